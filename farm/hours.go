package farm

import (
	"errors"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

// ErrClosed: it is outside of Spec.Hours.
var ErrClosed = errors.New("the farm is closed")

// Hours are when a farm runs, over and over: a twin for development that is there on weekdays from 9 to 17, say.
//
// When it closes, [Farm.Run] puts the farm away: it ends it with its volumes, keeps a last snapshot of each, and deletes those that
// earlier closings have kept of the same indexes. When it opens, Run launches the farm anew, with volumes that are filled from
// these snapshots; a Volume without From has the farm itself as its source. What is on no volume is gone, and addresses are new.
// A program that begins to run the farm while it is closed puts away what an earlier one has left.
//
// While other farms depend on it (see [ErrDependents]), the farm is not put away. When Spec.End comes, it ends as that says.
type Hours struct {
	// Open and Close are when it opens and closes, as [cronlock.Parse] reads them: "TZ=Europe/Paris 0 9 * * mon-fri" and
	// "TZ=Europe/Paris 0 17 * * mon-fri". Whichever came last counts; if both did, it is open.
	Open  string `json:"open"`
	Close string `json:"close"`
}

// hours are Hours that have been read.
type hours struct{ open, close cronlock.Schedule }

// read parses the expressions, which stand in these fields.
func (h *Hours) read(opens, closes string) (s hours, bad faults) {
	var err error
	if s.open, err = cronlock.Parse(h.Open); err != nil {
		bad.add(opens, "%q: %v", h.Open, err)
	}
	if s.close, err = cronlock.Parse(h.Close); err != nil {
		bad.add(closes, "%q: %v", h.Close, err)
	}
	return s, bad
}

// at reports whether the farm is open, and when that changes.
func (h hours) at(now time.Time) (open bool, until time.Time) {
	past := now.Add(1) // Prev gives what was before
	if open = !h.open.Prev(past).Before(h.close.Prev(past)); open {
		return true, h.close.Next(now)
	}
	return false, h.open.Next(now)
}

// closing is how a farm is put away.
func closing() *TerminateOptions { return &TerminateOptions{DeleteVolumes: true, FinalSnapshot: true} }

// closed reports whether it is outside of Spec.Hours, by the wall clock.
func (f *Farm) closed() bool {
	if f.hours == nil {
		return false
	}
	open, _ := f.hours.at(time.Now().Round(0))
	return !open
}

// due says how the farm is to end now, if it is: for good, or until it opens again.
func (f *Farm) due() *TerminateOptions {
	switch {
	case f.over():
		return &f.spec.End.TerminateOptions
	case f.closed():
		return f.closing
	}
	return nil
}

// Due is something that the farm does when its time comes.
type Due struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// String gives it as a line for a person.
func (d Due) String() string { return "at " + d.At.Format(time.RFC3339) + ": " + d.What }

// coming says what the hours and the end of the farm bring next.
func (f *Farm) coming() (all []Due) {
	now := time.Now().Round(0)
	end := f.spec.End
	if f.hours != nil {
		open, until := f.hours.at(now)
		what := "the farm opens: it is launched, with its volumes from the snapshots that are kept"
		if open {
			what = "the farm closes: all is ended, and a last snapshot of each volume is kept"
		}
		if !until.IsZero() && (end == nil || until.Before(end.At)) {
			all = append(all, Due{until, what})
		}
	}
	if end != nil {
		what := "the farm ends: " + end.TerminateOptions.keeps()
		all = append(all, Due{end.At, what})
	}
	return all
}

// change is how long it is until due may say something else; the clock may be set meanwhile.
func (f *Farm) change() time.Duration {
	wait, now := f.config.Interval, time.Now().Round(0)
	if f.spec.End != nil && !f.over() {
		wait = min(wait, f.spec.End.At.Round(0).Sub(now))
	}
	if f.hours != nil {
		if _, until := f.hours.at(now); !until.IsZero() {
			wait = min(wait, until.Sub(now))
		}
	}
	return wait
}

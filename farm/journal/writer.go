package journal

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
)

// Gap is the kind of an event that stands where the journal lacks some.
const Gap scalr.Kind = "journal-gap"

// waiting is how many events a Writer keeps for a journal that does not take them.
const waiting = 10_000

// flush bounds the last attempt to append, after the end of Run's context.
const flush = 5 * time.Second

// Writer is a sink of events that never waits: it keeps them until the journal has taken them. A journal that fails is tried
// again; when more than 10,000 events wait, the oldest are given up, and an event of kind [Gap] says how many. So is an event that
// the journal refuses while it takes the Gap in its place: what fails is tried by halves until that one is found.
type Writer struct {
	journal Journal
	news    chan struct{}

	mu   sync.Mutex
	wait []scalr.Event
	lost int
	most int // how many events are tried at once; 0 means all
	err  error
}

// NewWriter makes a Writer. [Writer.Run] does its work.
func NewWriter(j Journal) *Writer { return &Writer{journal: j, news: make(chan struct{}, 1)} }

// Event takes an event. It is a sink for scalr events, safe for concurrent use.
func (w *Writer) Event(e scalr.Event) {
	w.mu.Lock()
	if len(w.wait) >= waiting {
		w.wait = append(w.wait[:0:0], w.wait[waiting/10:]...)
		w.lost += waiting / 10
	}
	w.wait = append(w.wait, copied(e))
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Run appends events until the context ends, then what is left, and returns the error if that fails. One Run at a time.
func (w *Writer) Run(ctx context.Context) error {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		select {
		case <-w.news:
		case <-ctx.Done():
		}
		left, err := w.append(ctx)
		if err == nil && !left {
			pause = 0
			continue
		}
		if err == nil {
			pause = 0 // there is more, of which a part was tried
		} else {
			pause = min(max(2*pause, 100*time.Millisecond), 10*time.Second)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flush)
	defer cancel()
	for {
		if left, err := w.append(last); err != nil || !left {
			return err
		}
	}
}

// Err is why the last attempt to append failed; nil if it did not.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// append hands what waits to the journal, and keeps it if that fails. It reports whether something is left.
func (w *Writer) append(ctx context.Context) (left bool, err error) {
	w.mu.Lock()
	batch, lost, most := w.wait, w.lost, w.most
	w.wait, w.lost = nil, 0
	w.mu.Unlock()
	if len(batch) == 0 {
		return false, nil
	}
	n := len(batch)
	if most > 0 {
		n = min(n, most)
	}
	gap := func(lost int) scalr.Event {
		return scalr.Event{Time: batch[0].Time, Kind: Gap, Message: fmt.Sprintf("%d events are missing here: the journal did not take them in time, or refused them", lost)}
	}
	all := batch[:n]
	if lost > 0 {
		all = append([]scalr.Event{gap(lost)}, all...)
	}
	err = w.journal.Append(ctx, all...)
	switch {
	case err == nil:
		batch, lost = batch[n:], 0
	case n == 1 && w.journal.Append(ctx, gap(lost+1)) == nil:
		batch, lost, err = batch[1:], 0, nil // it is the event that fails, not the journal
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wait, w.lost, w.err = append(batch, w.wait...), w.lost+lost, err
	switch {
	case err != nil:
		w.most = max(n/2, 1)
	case w.most > 0:
		w.most *= 2
	}
	if len(w.wait) == 0 {
		w.most = 0
	}
	return len(w.wait) > 0, err
}

func copied(e scalr.Event) scalr.Event {
	e.Attrs = maps.Clone(e.Attrs)
	return e
}

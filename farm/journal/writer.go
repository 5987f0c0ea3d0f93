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
// again; when more than 10,000 events wait, the oldest are given up, and an event of kind [Gap] says how many.
type Writer struct {
	journal Journal
	news    chan struct{}

	mu   sync.Mutex
	wait []scalr.Event
	lost int
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
		if w.append(ctx) == nil {
			pause = 0
			continue
		}
		pause = min(max(2*pause, 100*time.Millisecond), 10*time.Second)
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
	return w.append(last)
}

// Err is why the last attempt to append failed; nil if it did not.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// append hands what waits to the journal, and keeps it if that fails.
func (w *Writer) append(ctx context.Context) error {
	w.mu.Lock()
	batch, lost := w.wait, w.lost
	w.wait, w.lost = nil, 0
	w.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	all := batch
	if lost > 0 {
		all = append([]scalr.Event{{Time: batch[0].Time, Kind: Gap, Message: fmt.Sprintf("%d events are missing here: the journal did not take them in time", lost)}}, batch...)
	}
	err := w.journal.Append(ctx, all...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err = err; err != nil {
		w.wait, w.lost = append(batch, w.wait...), w.lost+lost
	}
	return err
}

func copied(e scalr.Event) scalr.Event {
	e.Attrs = maps.Clone(e.Attrs)
	return e
}

// Package journal keeps what farms have decided and done, so that it can be asked later: why is this instance here, and what
// happened at 03:12?
//
// A farm tells everything that it decides and does as events, each with its reason. A [Journal] appends them and finds them
// again: in memory, in a file of JSON lines ([File]), or in a table of a database ([SQL]). [Writer] stands between, so
// that a farm never waits for a disk:
//
//	w := journal.NewWriter(file)
//	go w.Run(ctx)
//	config.Events = w.Event
//
// Implementations pass journaltest.Run.
package journal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
)

// Journal is an append-only log of events. It is safe for concurrent use.
type Journal interface {
	// Append adds events in their order. An error means that some of them may not be there.
	Append(ctx context.Context, events ...scalr.Event) error
	// Read gives the events that match, in the order of their times; those of one time in the order in which they came.
	Read(ctx context.Context, q Query) ([]scalr.Event, error)
}

// Query says which events. The zero value matches all.
type Query struct {
	From, To time.Time    // From ≤ time < To; zero leaves that end open
	Farm     string       // of this farm
	Role     string       // of this role
	Index    int          // of this slot of the role
	Subject  string       // about this thing, be it the event's subject or one of its attributes: an instance, a volume, a name
	Kinds    []scalr.Kind // of one of these kinds
	Last     int          // only so many, the last ones; 0 means all
}

// Match reports whether the event is one of those that the query asks for. Last is not its matter.
func (q Query) Match(e scalr.Event) bool {
	switch {
	case !q.From.IsZero() && e.Time.Before(q.From), !q.To.IsZero() && !e.Time.Before(q.To):
	case q.Farm != "" && e.Farm != q.Farm, q.Role != "" && e.Role != q.Role, q.Index != 0 && e.Index != q.Index:
	case len(q.Kinds) > 0 && !slices.Contains(q.Kinds, e.Kind):
	case q.Subject != "" && e.Subject != q.Subject && !about(e, q.Subject):
	default:
		return true
	}
	return false
}

func about(e scalr.Event, subject string) bool {
	for _, v := range e.Attrs {
		if v == subject {
			return true
		}
	}
	return false
}

// pick gives those of the events that match, in order.
func (q Query) pick(events []scalr.Event) []scalr.Event {
	found := []scalr.Event{}
	for _, e := range events {
		if q.Match(e) {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b scalr.Event) int { return a.Time.Compare(b.Time) })
	if q.Last > 0 && len(found) > q.Last {
		found = found[len(found)-q.Last:]
	}
	return found
}

// Why tells the story of one thing (an instance, a volume, an address, a name) for a person, a line an event.
func Why(ctx context.Context, j Journal, subject string) (string, error) {
	events, err := j.Read(ctx, Query{Subject: subject})
	if err != nil {
		return "", err
	}
	if len(events) == 0 {
		return fmt.Sprintf("the journal has nothing about %s\n", subject), nil
	}
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintln(&b, e.Time.UTC().Format(time.DateOnly), e)
	}
	return b.String(), nil
}

// Memory is a journal in memory. Its zero value is ready to use.
type Memory struct {
	mu     sync.Mutex
	events []scalr.Event
}

var _ Journal = (*Memory)(nil)

// Append implements Journal.
func (m *Memory) Append(ctx context.Context, events ...scalr.Event) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range events {
		m.events = append(m.events, copied(e))
	}
	return nil
}

// Read implements Journal.
func (m *Memory) Read(ctx context.Context, q Query) ([]scalr.Event, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	found := q.pick(m.events)
	for i := range found {
		found[i] = copied(found[i])
	}
	return found, nil
}

// Package journaltest holds the rules that every journal keeps.
package journaltest

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm/journal"
)

// Run checks journals that open makes, each of them empty.
func Run(t *testing.T, open func(t *testing.T) journal.Journal) {
	at := time.Date(2026, 3, 29, 3, 12, 0, 0, time.UTC)
	event := func(minute int, kind scalr.Kind, role string, index int, subject string) scalr.Event {
		return scalr.Event{Time: at.Add(time.Duration(minute) * time.Minute), Kind: kind, Farm: "shop", Role: role, Index: index, Subject: subject,
			Message: "because of \"it\"\nand äöü", Attrs: map[string]string{"instance": "i-9", "pool": "a"}}
	}
	check := func(t *testing.T, j journal.Journal, rule string, q journal.Query, want ...scalr.Event) {
		t.Helper()
		got, err := j.Read(t.Context(), q)
		if err != nil {
			t.Fatalf("%s: %v", rule, err)
		}
		same := len(got) == len(want)
		for i := 0; same && i < len(got); i++ {
			a, b := got[i], want[i]
			same = a.Time.Equal(b.Time)
			a.Time = b.Time
			same = same && reflect.DeepEqual(a, b)
		}
		if !same {
			t.Fatalf("broken rule: %s:\ngot  %v\nwant %v", rule, got, want)
		}
	}
	add := func(t *testing.T, j journal.Journal, events ...scalr.Event) {
		t.Helper()
		if err := j.Append(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("what was appended is read, in order of time", func(t *testing.T) {
		j := open(t)
		check(t, j, "an empty journal has no events", journal.Query{})
		a, b, c := event(1, "host-up", "www", 1, "i-1"), event(2, "host-up", "www", 2, "i-2"), event(0, "host-down", "db", 1, "i-3")
		add(t, j, a, b)
		add(t, j, c)
		check(t, j, "every event is there as it was, in order of time", journal.Query{}, c, a, b)
		check(t, j, "the last ones are the last in time", journal.Query{Last: 2}, a, b)
		same := []scalr.Event{event(5, "one", "www", 1, "x"), event(5, "two", "www", 1, "x"), event(5, "three", "www", 1, "x")}
		add(t, j, same...)
		check(t, j, "events of one time keep the order in which they came", journal.Query{From: at.Add(5 * time.Minute)}, same...)
	})

	t.Run("a query narrows", func(t *testing.T) {
		j := open(t)
		a, b, c := event(0, "host-up", "www", 1, "i-1"), event(1, "host-down", "www", 2, "i-2"), event(2, "host-up", "db", 1, "i-1")
		b.Farm = "other"
		a.Attrs = nil
		add(t, j, a, b, c)
		check(t, j, "From is included", journal.Query{From: b.Time}, b, c)
		check(t, j, "To is not included", journal.Query{To: c.Time}, a, b)
		check(t, j, "by farm", journal.Query{Farm: "shop"}, a, c)
		check(t, j, "by role", journal.Query{Role: "www"}, a, b)
		check(t, j, "by slot", journal.Query{Role: "www", Index: 2}, b)
		check(t, j, "by subject", journal.Query{Subject: "i-1"}, a, c)
		check(t, j, "an attribute is a subject too", journal.Query{Subject: "i-9"}, b, c)
		check(t, j, "by kind", journal.Query{Kinds: []scalr.Kind{"host-down", "no-such"}}, b)
		check(t, j, "by all of it", journal.Query{Farm: "shop", Role: "db", Kinds: []scalr.Kind{"host-up"}, Last: 1}, c)
		check(t, j, "text is no pattern and no statement", journal.Query{Farm: "' OR 1=1 --"})
	})

	t.Run("appending side by side loses nothing", func(t *testing.T) {
		j := open(t)
		var wg sync.WaitGroup
		errs := make(chan error, 200)
		for i := range 8 {
			wg.Go(func() {
				for k := range 25 {
					errs <- j.Append(t.Context(), event(i, scalr.Kind(fmt.Sprintf("kind-%d", k)), "www", i+1, "x"))
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		for i := range 8 {
			got, err := j.Read(t.Context(), journal.Query{Index: i + 1})
			if err != nil || len(got) != 25 {
				t.Fatalf("broken rule: what was acknowledged is there: %d of 25 events of slot %d, %v", len(got), i+1, err)
			}
			for k := range got {
				if want := scalr.Kind(fmt.Sprintf("kind-%d", k)); got[k].Kind != want {
					t.Fatalf("broken rule: events of one time keep the order in which they came: %s, want %s", got[k].Kind, want)
				}
			}
		}
	})
}

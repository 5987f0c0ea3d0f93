package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm/journal"
	"github.com/scalr-go/scalr/farm/journal/journaltest"
)

func TestMemory(t *testing.T) {
	journaltest.Run(t, func(*testing.T) journal.Journal { return new(journal.Memory) })
}

func TestFile(t *testing.T) {
	journaltest.Run(t, func(t *testing.T) journal.Journal {
		return &journal.File{Path: filepath.Join(t.TempDir(), "journal"), Sync: true}
	})
}

// The file is for nobody else, and a line that was torn by a crash takes nothing with it.
func TestTornLine(t *testing.T) {
	f := &journal.File{Path: filepath.Join(t.TempDir(), "journal")}
	at := time.Date(2026, 3, 29, 3, 12, 0, 0, time.UTC)
	for i := range 3 {
		require.NoError(t, f.Append(t.Context(), scalr.Event{Time: at.Add(time.Duration(i) * time.Second), Kind: "host-up", Message: fmt.Sprint(i)}))
	}
	info, err := os.Stat(f.Path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	whole, err := os.ReadFile(f.Path)
	require.NoError(t, err)
	second := strings.LastIndex(strings.TrimSpace(string(whole)), "\n") + 1
	for cut := second + 1; cut < len(whole); cut++ {
		require.NoError(t, os.WriteFile(f.Path, whole[:cut], 0o600))
		require.NoError(t, f.Append(t.Context(), scalr.Event{Time: at.Add(time.Minute), Kind: "host-down"}))
		got, err := f.Read(t.Context(), journal.Query{})
		require.NoError(t, err)
		var kinds []string
		for _, e := range got {
			kinds = append(kinds, string(e.Kind))
		}
		third := "journal-gap"
		if cut == len(whole)-1 {
			third = "host-up" // only the end of the line was missing
		}
		require.Equal(t, []string{"host-up", "host-up", third, "host-down"}, kinds, "cut at %d", cut)
	}
}

// moody is a journal that fails until it is told not to.
type moody struct {
	journal.Memory
	mu   sync.Mutex
	down bool
}

func (m *moody) set(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *moody) Append(ctx context.Context, events ...scalr.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return errors.New("no space left on device")
	}
	return m.Memory.Append(ctx, events...)
}

// picky refuses batches with a message that it does not like.
type picky struct{ *journal.Memory }

func (p picky) Append(ctx context.Context, events ...scalr.Event) error {
	for _, e := range events {
		if strings.Contains(e.Message, "bad") {
			return errors.New("data too long for column")
		}
	}
	return p.Memory.Append(ctx, events...)
}

// An event that the journal refuses keeps none from being written that comes before or after it, and is told as a gap in its place.
func TestWriterGivesUpWhatIsRefused(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			messages := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "bad"}), 1, 40).Draw(rt, "messages")
			j := picky{new(journal.Memory)}
			w := journal.NewWriter(j)
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- w.Run(ctx) }()
			var want, got []string
			for i, m := range messages {
				w.Event(scalr.Event{Time: time.Unix(int64(i), 0), Message: m})
				if m == "c" {
					synctest.Wait()
				}
				if m == "bad" {
					m = "1 events are missing here"
				}
				want = append(want, m)
			}
			time.Sleep(time.Hour)
			events, err := j.Read(context.Background(), journal.Query{})
			require.NoError(rt, err)
			for _, e := range events {
				m, _, _ := strings.Cut(e.Message, ":")
				got = append(got, m)
			}
			require.Equal(rt, want, got)
			require.NoError(rt, w.Err())
			stop()
			require.NoError(rt, <-done)
		})
	})
}

// A Writer keeps what the journal does not take, in order; says how much it has given up; and hands on the rest at its end.
func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := new(moody)
		w := journal.NewWriter(j)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		say := func(from, to int) {
			for i := from; i < to; i++ {
				w.Event(scalr.Event{Time: time.Unix(int64(i), 0), Message: fmt.Sprint(i)})
			}
		}
		told := func() (messages []string) {
			got, err := j.Read(t.Context(), journal.Query{})
			require.NoError(t, err)
			for _, e := range got {
				messages = append(messages, e.Message)
			}
			return messages
		}
		say(0, 2)
		synctest.Wait()
		require.Equal(t, []string{"0", "1"}, told())
		j.set(true)
		say(2, 5)
		time.Sleep(time.Minute)
		require.ErrorContains(t, w.Err(), "no space left")
		require.Len(t, told(), 2)
		j.set(false)
		time.Sleep(time.Minute)
		require.NoError(t, w.Err())
		require.Equal(t, []string{"0", "1", "2", "3", "4"}, told())

		j.set(true)
		say(5, 10_010)
		time.Sleep(time.Minute)
		j.set(false)
		time.Sleep(time.Minute)
		got := told()
		require.Equal(t, "1000 events are missing here: the journal did not take them in time, or refused them", got[5])
		require.Equal(t, "10009", got[len(got)-1])
		require.Len(t, got, 5+1+10_005-1000)

		j.set(true)
		say(10_010, 10_011)
		time.Sleep(time.Second)
		stop()
		j.set(false)
		require.NoError(t, <-done)
		require.Contains(t, told(), "10010")
	})
}

func TestWhy(t *testing.T) {
	j := new(journal.Memory)
	text, err := journal.Why(t.Context(), j, "i-1")
	require.NoError(t, err)
	require.Equal(t, "the journal has nothing about i-1\n", text)
	require.NoError(t, j.Append(t.Context(),
		scalr.Event{Time: time.Date(2026, 3, 29, 3, 12, 0, 0, time.UTC), Kind: "launch-instance", Role: "www", Index: 3, Subject: "i-1", Message: "slot www-3 is empty"},
		scalr.Event{Kind: "host-up", Subject: "i-2"}))
	text, err = journal.Why(t.Context(), j, "i-1")
	require.NoError(t, err)
	require.Equal(t, "2026-03-29 03:12:00.000 launch-instance      www-3 [i-1] slot www-3 is empty\n", text)
}

package dnsreg_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
)

// race is two owners who change one name at once, over a network that is slow and loses replies, and somebody who watches
// every state that the zone has.
type race struct {
	m     *dnsreg.Memory
	owner [2]racer

	mu    sync.Mutex
	rand  *rand.Rand
	loss  int // in percent, of calls before and after they take effect
	begun bool
	harm  []string
}

type racer struct {
	name  string
	acked []string // the values that a Sync has put there; nil from the beginning of the next one
}

// fault delays and loses calls, and looks at the zone after each that has taken effect.
func (w *race) fault(ctx context.Context, c dnsreg.Call) error {
	w.mu.Lock()
	delay, lost := time.Duration(w.rand.IntN(50))*time.Millisecond, w.rand.IntN(100) < w.loss
	w.mu.Unlock()
	if c.Done && c.Op == "Apply" {
		w.look(c.Changes)
	}
	time.Sleep(delay)
	if lost {
		return errDown
	}
	return nil
}

// look checks what the change set has done to the name.
func (w *race) look(changes []dnsreg.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		if c.Type != "A" {
			continue
		}
		var now []string
		if c.New != nil {
			now = c.New.Values
		}
		w.begun = w.begun || len(now) > 0
		if w.begun && len(now) == 0 {
			w.harm = append(w.harm, "the name is empty")
		}
		for _, o := range w.owner {
			for _, v := range o.acked {
				if !slices.Contains(now, v) {
					w.harm = append(w.harm, fmt.Sprintf("%s has lost %s: %v", o.name, v, now))
				}
			}
		}
	}
}

// be lets one owner want one thing after the other.
func (w *race) be(ctx context.Context, i int, wants [][]string, pauses []time.Duration) error {
	o := &w.owner[i]
	for n, values := range wants {
		time.Sleep(pauses[n])
		w.mu.Lock()
		o.acked = nil
		w.mu.Unlock()
		for try := 0; ; try++ {
			_, err := dnsreg.Sync(ctx, w.m, zone, o.name, []dnsreg.RRset{set("www."+zone, "A", time.Minute, values...)})
			if err == nil {
				break
			}
			if !errors.Is(err, errDown) && !errors.Is(err, dnsreg.ErrConflict) || try == 1000 {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
		w.mu.Lock()
		o.acked = values
		w.mu.Unlock()
	}
	return nil
}

// Two owners race on one name, with lost replies: neither loses a value that it has been told is there, the name is never
// empty, and in the end it has what both want. The long form is go test -run TwoOwners -rapid.checks 10000.
func TestTwoOwnersRaceWithLostReplies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		loss := rapid.IntRange(0, 40).Draw(rt, "loss")
		var wants [2][][]string
		var pauses [2][]time.Duration
		for i := range wants {
			pool := []string{"192.0.2.7", fmt.Sprintf("192.0.2.%d", 10+i), fmt.Sprintf("192.0.2.%d", 20+i), fmt.Sprintf("192.0.2.%d", 30+i)}
			for range rapid.IntRange(1, 6).Draw(rt, "wants") {
				wants[i] = append(wants[i], rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 1, len(pool), rapid.ID).Draw(rt, "values"))
				pauses[i] = append(pauses[i], time.Duration(rapid.IntRange(0, 200).Draw(rt, "pause"))*time.Millisecond)
			}
		}
		var w *race
		var errs [2]error
		var have []dnsreg.RRset
		synctest.Test(t, func(t *testing.T) {
			w = &race{m: &dnsreg.Memory{Zones: []string{zone}}, owner: [2]racer{{name: "one"}, {name: "two"}},
				rand: rand.New(rand.NewPCG(seed, 0)), loss: loss}
			w.m.Fault = w.fault
			var wg sync.WaitGroup
			for i := range w.owner {
				wg.Go(func() { errs[i] = w.be(t.Context(), i, wants[i], pauses[i]) })
			}
			wg.Wait()
			w.m.Fault = nil
			have, _ = w.m.Records(t.Context(), zone)
		})
		require.Equal(rt, [2]error{}, errs)
		require.Empty(rt, w.harm)
		all := slices.Concat(wants[0][len(wants[0])-1], wants[1][len(wants[1])-1])
		slices.Sort(all)
		i := slices.IndexFunc(have, func(r dnsreg.RRset) bool { return r.Name == "www."+zone && r.Type == "A" })
		require.GreaterOrEqual(rt, i, 0)
		require.Equal(rt, slices.Compact(all), have[i].Values)
	})
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

// locks has this process compete with all others for some locks, until ctx ends.
func (c *claimer) locks(ctx context.Context, group *sync.WaitGroup) {
	for n := range c.config.Options.Locks {
		group.Go(func() {
			name := fmt.Sprint("lock-", n)
			for ctx.Err() == nil {
				_ = c.Hold(ctx, name, func(ctx context.Context, lease cronlock.Lease) error {
					l := line{Kind: "hold", Run: name, Token: lease.Token, Runner: fmt.Sprint(os.Getpid())}
					for range 5 {
						l.Time = time.Now()
						if ctx.Err() != nil {
							return context.Cause(ctx)
						}
						say(l)
						l.Kind = "work"
						select {
						case <-time.After(20 * time.Millisecond):
						case <-ctx.Done():
						}
					}
					return nil
				})
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
}

// weighLocks looks at what was done under each lock, in the order of time: tokens rise, and whoever has a token works no more when there is a
// higher one.
func (f *fleet) weighLocks(s *summary) {
	byName := map[string][]line{}
	for _, l := range f.lines {
		if l.Kind == "hold" || l.Kind == "work" {
			byName[l.Run] = append(byName[l.Run], l)
		}
	}
	for _, list := range byName {
		slices.SortStableFunc(list, func(a, b line) int { return a.Time.Compare(b.Time) })
		highest, holders := uint64(0), map[uint64]string{}
		for _, l := range list {
			if l.Kind == "hold" {
				s.Holds++
				if l.Token <= highest {
					s.Tokens++
				}
			}
			if l.Token < highest {
				s.PastDeadline++
			}
			if cmp.Or(holders[l.Token], l.Runner) != l.Runner {
				s.Doubles++
			}
			highest, holders[l.Token] = max(highest, l.Token), l.Runner
		}
	}
}

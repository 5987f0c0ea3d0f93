package cronlocktest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// broken is a Claimer some of whose methods are replaced.
type broken struct {
	*cronlock.Memory
	claim   func(context.Context, cronlock.Claim) (cronlock.Claim, error)
	update  func(context.Context, cronlock.Claim, cronlock.Claim) (cronlock.Claim, error)
	open    func(context.Context) ([]cronlock.Key, error)
	set     func(context.Context, string, cronlock.Control) error
	fleet   func(context.Context) (cronlock.Fleet, error)
	join    func(context.Context, func(context.Context, cronlock.Lease) error) error
	instant func(context.Context, string, time.Time, time.Time) ([]time.Time, error)
}

func (b broken) Claim(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
	if b.claim != nil {
		return b.claim(ctx, c)
	}
	return b.Memory.Claim(ctx, c)
}

func (b broken) Update(ctx context.Context, was, c cronlock.Claim) (cronlock.Claim, error) {
	if b.update != nil {
		return b.update(ctx, was, c)
	}
	return b.Memory.Update(ctx, was, c)
}

func (b broken) Open(ctx context.Context) ([]cronlock.Key, error) {
	if b.open != nil {
		return b.open(ctx)
	}
	return b.Memory.Open(ctx)
}

func (b broken) SetControl(ctx context.Context, job string, c cronlock.Control) error {
	if b.set != nil {
		return b.set(ctx, job, c)
	}
	return b.Memory.SetControl(ctx, job, c)
}

func (b broken) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	if b.fleet != nil {
		return b.fleet(ctx)
	}
	return b.Memory.Fleet(ctx)
}

func (b broken) Join(ctx context.Context, work func(context.Context, cronlock.Lease) error) error {
	if b.join != nil {
		return b.join(ctx, work)
	}
	return b.Memory.Join(ctx, work)
}

func (b broken) Instants(ctx context.Context, job string, from, to time.Time) ([]time.Time, error) {
	if b.instant != nil {
		return b.instant(ctx, job, from, to)
	}
	return b.Memory.Instants(ctx, job, from, to)
}

// Each broken claimer is caught by the rule that it breaks.
func TestSuiteCatchesClaimers(t *testing.T) {
	for _, c := range []struct {
		rule, what string
		change     func(m *cronlock.Memory, b *broken)
	}{
		{"Once", "gives a run to everybody", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				got, err := m.Claim(ctx, c)
				if errors.Is(err, cronlock.ErrClaimed) {
					return got, nil
				}
				return got, err
			}
		}},
		{"Once", "does not say who has it", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				got, err := m.Claim(ctx, c)
				if err != nil {
					return cronlock.Claim{}, err
				}
				return got, nil
			}
		}},
		{"Own", "does not know its own record", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				if got, err := m.Get(ctx, c.Key); err == nil {
					return got, cronlock.ErrClaimed
				}
				return m.Claim(ctx, c)
			}
		}},
		{"ID", "keeps none", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				c.ID = ""
				return m.Claim(ctx, c)
			}
		}},
		{"ID", "asks for none", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				got, err := m.Claim(ctx, c)
				if c.Status == cronlock.Requested && errors.Is(err, cronlock.ErrClaimed) {
					err = nil
				}
				return got, err
			}
		}},
		{"Instants", "keeps seconds", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				c.At = c.At.Truncate(time.Second)
				return m.Claim(ctx, c)
			}
		}},
		{"Instants", "lists to the end", func(m *cronlock.Memory, b *broken) {
			b.instant = func(ctx context.Context, job string, from, to time.Time) ([]time.Time, error) {
				return m.Instants(ctx, job, from, to.Add(time.Microsecond))
			}
		}},
		{"Instants", "lists backwards", func(m *cronlock.Memory, b *broken) {
			b.instant = func(ctx context.Context, job string, from, to time.Time) ([]time.Time, error) {
				l, err := m.Instants(ctx, job, from, to)
				slices.Reverse(l)
				return l, err
			}
		}},
		{"Tokens", "keeps the token of another attempt", func(m *cronlock.Memory, b *broken) {
			b.update = func(ctx context.Context, was, c cronlock.Claim) (cronlock.Claim, error) {
				got, err := m.Update(ctx, was, c)
				got.Token = was.Token
				return got, err
			}
		}},
		{"Update", "overwrites what has changed", func(m *cronlock.Memory, b *broken) {
			b.update = func(ctx context.Context, was, c cronlock.Claim) (cronlock.Claim, error) {
				if now, err := m.Get(ctx, was.Key); err == nil {
					was = now
				}
				return m.Update(ctx, was, c)
			}
		}},
		{"Update", "drops the error", func(m *cronlock.Memory, b *broken) {
			b.update = func(ctx context.Context, was, c cronlock.Claim) (cronlock.Claim, error) {
				c.Error = ""
				return m.Update(ctx, was, c)
			}
		}},
		{"Open", "forgets what is asked for", func(m *cronlock.Memory, b *broken) {
			b.open = func(ctx context.Context) ([]cronlock.Key, error) {
				l, err := m.Open(ctx)
				return slices.DeleteFunc(l, func(k cronlock.Key) bool {
					c, _ := m.Get(ctx, k)
					return c.Status == cronlock.Requested
				}), err
			}
		}},
		{"Exclusive", "runs both", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				c.Exclusive = false
				return m.Claim(ctx, c)
			}
		}},
		{"Exclusive", "runs a second one by an update", func(m *cronlock.Memory, b *broken) {
			b.update = func(ctx context.Context, was, c cronlock.Claim) (cronlock.Claim, error) {
				c.Exclusive = c.Exclusive && was.Status != cronlock.Requested
				return m.Update(ctx, was, c)
			}
		}},
		{"Paused", "does not pause", func(m *cronlock.Memory, b *broken) {
			b.set = func(ctx context.Context, job string, c cronlock.Control) error {
				c.Paused = false
				return m.SetControl(ctx, job, c)
			}
		}},
		{"Floor", "has no floor", func(m *cronlock.Memory, b *broken) {
			b.set = func(ctx context.Context, job string, c cronlock.Control) error {
				c.Floor = time.Time{}
				return m.SetControl(ctx, job, c)
			}
		}},
		{"Floor", "claims below it", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				got, err := m.Claim(ctx, c)
				if errors.Is(err, cronlock.ErrPruned) {
					err = nil
				}
				return got, err
			}
		}},
		{"Control", "lets anybody replace it", func(m *cronlock.Memory, b *broken) {
			b.set = func(ctx context.Context, job string, c cronlock.Control) error {
				now, _ := m.Control(ctx, job)
				c.Version = now.Version
				return m.SetControl(ctx, job, c)
			}
		}},
		{"Join", "sees nobody", func(m *cronlock.Memory, b *broken) {
			b.fleet = func(context.Context) (cronlock.Fleet, error) { return cronlock.Fleet{}, nil }
		}},
		{"Join", "gives all one name", func(m *cronlock.Memory, b *broken) {
			b.join = func(ctx context.Context, work func(context.Context, cronlock.Lease) error) error {
				return m.Join(ctx, func(ctx context.Context, l cronlock.Lease) error { l.Name = "me"; return work(ctx, l) })
			}
		}},
		{"Join lost", "does not tell the work", func(m *cronlock.Memory, b *broken) {
			b.join = func(ctx context.Context, work func(context.Context, cronlock.Lease) error) error {
				return m.Join(ctx, func(ctx context.Context, l cronlock.Lease) error { return work(context.WithoutCancel(ctx), l) })
			}
		}},
		{"Join lost", "does not tell the caller", func(m *cronlock.Memory, b *broken) {
			b.join = func(ctx context.Context, work func(context.Context, cronlock.Lease) error) error {
				_ = m.Join(ctx, work)
				return nil
			}
		}},
		{"Bad claims", "takes them", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) { return c, nil }
		}},
		{"Ended context", "does not look", func(m *cronlock.Memory, b *broken) {
			b.claim = func(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
				return m.Claim(context.WithoutCancel(ctx), c)
			}
		}},
	} {
		t.Run(c.rule+": "+c.what, func(t *testing.T) {
			i := slices.IndexFunc(claimRules, func(r claimRule) bool { return r.name == c.rule })
			require.GreaterOrEqual(t, i, 0)
			synctest.Test(t, func(t *testing.T) {
				rec := &recorder{TB: t}
				var group sync.WaitGroup
				group.Go(func() {
					claimRules[i].run(rec, func(testing.TB) ClaimStore {
						m := new(cronlock.Memory)
						b := &broken{Memory: m}
						c.change(m, b)
						return ClaimStore{Open: func() cronlock.Claimer { return b }, Lose: func(runner string) { m.Expire(runner) }}
					})
				})
				group.Wait()
				time.Sleep(time.Minute)
				require.Contains(t, rec.message, "broken rule: "+claimRules[i].words)
			})
		})
	}
}

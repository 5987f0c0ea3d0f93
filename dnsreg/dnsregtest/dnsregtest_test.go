package dnsregtest

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

const zone = "example.com."

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) (dnsreg.Registrar, string) { return &dnsreg.Memory{Zones: []string{zone}}, zone })
}

func TestMemoryWithLimits(t *testing.T) {
	for _, limit := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			Run(t, func(*testing.T) (dnsreg.Registrar, string) {
				return &dnsreg.Memory{Zones: []string{zone}, MaxChanges: limit, MinTTL: 2 * time.Minute}, zone
			})
		})
	}
}

// One zone for all rules, as with a real host: each rule must leave it as it was.
func TestOneZoneForAllRules(t *testing.T) {
	m := &dnsreg.Memory{Zones: []string{zone}}
	Run(t, func(*testing.T) (dnsreg.Registrar, string) { return m, zone })
	list, err := m.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Len(t, list, 2, "SOA and NS")
}

func TestOneByOne(t *testing.T) {
	Run(t, func(*testing.T) (dnsreg.Registrar, string) { return oneByOne(memory()), zone })
}

// recorder is a test that keeps its failures to itself.
type recorder struct {
	t      *testing.T
	mu     sync.Mutex
	failed []string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return r.t.Context() }
func (r *recorder) FailNow()                 { runtime.Goexit() }
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !strings.HasPrefix(format, "clean up") {
		r.failed = append(r.failed, fmt.Sprintf(format, args...))
	}
}

func TestBrokenRegistrarsAreCaught(t *testing.T) {
	rules := make(map[string]check)
	for _, c := range checks() {
		require.NotContains(t, rules, c.rule, "a rule twice")
		rules[c.rule] = c
	}
	caught := make(map[string]bool)
	for _, b := range brokenWays {
		t.Run(b.name, func(t *testing.T) {
			c, ok := rules[b.rule]
			require.True(t, ok, "there is no rule %q", b.rule)
			caught[b.rule] = true
			r := b.make()
			require.True(t, c.applies(r.Capabilities()), "the rule does not apply")
			rec := &recorder{t: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.check(rec, r, zone)
			}()
			<-done
			require.NotEmpty(t, rec.failed, "the suite does not catch it")
		})
	}
	t.Run("every rule catches something", func(t *testing.T) {
		for rule := range rules {
			require.True(t, caught[rule], "nothing breaks the rule %q", rule)
		}
	})
}

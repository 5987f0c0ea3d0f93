package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/dnsregtest"
	"github.com/scalr-go/scalr/dnsreg/fanout"
)

const zone = "example.com."

func www(values ...string) dnsreg.RRset {
	return dnsreg.RRset{Name: "www." + zone, Type: "A", TTL: time.Minute, Values: values}
}

// host is a registrar that can fail or hang.
type host struct {
	*dnsreg.Memory
	down, hangs atomic.Bool
	calls       atomic.Int64
}

var errDown = errors.New("down")

func newHost() *host {
	h := &host{Memory: &dnsreg.Memory{Zones: []string{zone}}}
	h.Fault = func(ctx context.Context, c dnsreg.Call) error {
		if c.Done {
			return nil
		}
		h.calls.Add(1)
		if h.hangs.Load() {
			<-ctx.Done()
			return ctx.Err()
		}
		if h.down.Load() {
			return errDown
		}
		return nil
	}
	return h
}

func (h *host) values(t *testing.T) []string {
	list, err := h.Memory.Records(t.Context(), zone)
	require.NoError(t, err)
	for _, r := range list {
		if r.Name == "www."+zone && r.Type == "A" {
			return r.Values
		}
	}
	return nil
}

// start runs a fan-out to two followers in virtual time.
func start(t *testing.T) (f *fanout.Fanout, lead, one, two *host) {
	lead, one, two = newHost(), newHost(), newHost()
	f, err := fanout.New(fanout.Options{Zone: zone, Owners: []string{"shop"}, Lead: lead,
		Followers: []fanout.Follower{{Name: "one", Registrar: one}, {Name: "two", Registrar: two}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	synctest.Wait()
	return f, lead, one, two
}

func put(t *testing.T, f *fanout.Fanout, values ...string) {
	var want []dnsreg.RRset
	if len(values) > 0 {
		want = append(want, www(values...))
	}
	_, err := dnsreg.Sync(t.Context(), f, zone, "shop", want)
	require.NoError(t, err)
	synctest.Wait()
}

func TestAFanoutIsARegistrar(t *testing.T) {
	dnsregtest.Run(t, func(t *testing.T) (dnsreg.Registrar, string) {
		f, err := fanout.New(fanout.Options{Zone: zone, Owners: []string{"shop"}, Lead: newHost(),
			Followers: []fanout.Follower{{Name: "one", Registrar: newHost()}}})
		require.NoError(t, err)
		return f, zone
	})
}

func TestFollowersHaveWhatTheOwnersHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead, one, two := start(t)
		person := dnsreg.RRset{Name: "www." + zone, Type: "A", TTL: time.Minute, Values: []string{"192.0.2.9"}}
		require.NoError(t, two.Memory.Apply(t.Context(), zone, []dnsreg.Change{{Name: person.Name, Type: "A", New: &person}}))
		put(t, f, "192.0.2.1", "192.0.2.2")
		require.Equal(t, []string{"192.0.2.1", "192.0.2.2"}, lead.values(t))
		require.Equal(t, []string{"192.0.2.1", "192.0.2.2"}, one.values(t))
		require.Equal(t, []string{"192.0.2.1", "192.0.2.2", "192.0.2.9"}, two.values(t), "a person's value stays")
		for _, s := range f.Status() {
			require.Equal(t, fanout.Status{Name: s.Name, Serial: 1, Latest: 1}, s)
		}
		put(t, f)
		require.Nil(t, one.values(t))
		require.Equal(t, []string{"192.0.2.9"}, two.values(t))
	})
}

// One that is down keeps nobody waiting, is hardly asked, says how far behind it is, and then has everything.
func TestAFollowerThatIsDownCatchesUp(t *testing.T) {
	for name, fail := range map[string]func(*host, bool){
		"down":  func(h *host, on bool) { h.down.Store(on) },
		"hangs": func(h *host, on bool) { h.hangs.Store(on) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, _, one, two := start(t)
				fail(one, true)
				calls := one.calls.Load()
				for i := range 600 { // a change each second
					put(t, f, fmt.Sprintf("192.0.2.%d", i%200+1))
					require.Equal(t, []string{fmt.Sprintf("192.0.2.%d", i%200+1)}, two.values(t), "the other one waits")
					time.Sleep(time.Second)
				}
				require.LessOrEqual(t, one.calls.Load()-calls, int64(600/60+8))
				s := f.Status()[0]
				require.Equal(t, uint64(600), s.Latest)
				require.Zero(t, s.Serial)
				require.GreaterOrEqual(t, s.Lag, 600*time.Second)
				require.NotZero(t, s.Failures)
				require.Error(t, s.Err)
				require.Zero(t, f.Status()[1].Lag)

				fail(one, false)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				require.Equal(t, two.values(t), one.values(t))
				require.Equal(t, fanout.Status{Name: "one", Serial: 600, Latest: 600}, f.Status()[0])
			})
		})
	}
}

// What somebody undoes on a follower, or changes on the lead, is found without a change through the fan-out.
func TestFollowersAreComparedAnyway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead, one, _ := start(t)
		put(t, f, "192.0.2.1")
		w := www("192.0.2.1")
		require.NoError(t, one.Memory.Apply(t.Context(), zone, []dnsreg.Change{{Name: w.Name, Type: "A", Old: &w}}))
		_, err := dnsreg.Sync(t.Context(), lead, zone, "shop", []dnsreg.RRset{www("192.0.2.1", "192.0.2.2")})
		require.NoError(t, err)
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		require.Equal(t, []string{"192.0.2.1", "192.0.2.2"}, one.values(t))
	})
}

// A lead that cannot be read is no empty lead.
func TestALeadThatIsDownEmptiesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, lead, one, _ := start(t)
		put(t, f, "192.0.2.1")
		lead.down.Store(true)
		time.Sleep(10 * time.Minute)
		require.Equal(t, []string{"192.0.2.1"}, one.values(t))
		require.ErrorIs(t, f.Status()[0].Err, errDown)
	})
}

// A lead that begins anew has nothing at first. It empties nobody, whichever owner is back first, until it has had something.
func TestALeadThatBeginsAnewEmptiesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newHost()
		begin := func() (f *fanout.Fanout, stop func()) {
			f, err := fanout.New(fanout.Options{Zone: zone, Owners: []string{"other", "shop"}, Lead: newHost(),
				Followers: []fanout.Follower{{Name: "one", Registrar: one}}})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			synctest.Wait()
			return f, func() { cancel(); require.NoError(t, <-done) }
		}
		settle := func() { time.Sleep(2 * time.Minute); synctest.Wait() }
		f, stop := begin()
		put(t, f, "192.0.2.1")
		settle()
		require.Equal(t, []string{"192.0.2.1"}, one.values(t))
		require.NoError(t, f.Status()[0].Err)
		stop()

		f, stop = begin()
		settle()
		require.Equal(t, []string{"192.0.2.1"}, one.values(t), "emptied")
		require.ErrorContains(t, f.Status()[0].Err, "one for shop: the lead has had nothing of this owner's yet: 1 RRsets stay")
		_, err := dnsreg.Sync(t.Context(), f, zone, "other", []dnsreg.RRset{www("192.0.2.7")})
		require.NoError(t, err)
		settle()
		require.Equal(t, []string{"192.0.2.1", "192.0.2.7"}, one.values(t), "the other owner is back first")
		put(t, f, "192.0.2.2")
		settle()
		require.Equal(t, []string{"192.0.2.2", "192.0.2.7"}, one.values(t))
		require.NoError(t, f.Status()[0].Err)
		put(t, f)
		settle()
		require.Equal(t, []string{"192.0.2.7"}, one.values(t), "what goes by the Fanout goes")
		stop()
	})
}

func TestOptionsAreChecked(t *testing.T) {
	m := &dnsreg.Memory{}
	good := fanout.Options{Zone: zone, Owners: []string{"shop"}, Lead: m, Followers: []fanout.Follower{{Name: "one", Registrar: m}}}
	for want, change := range map[string]func(*fanout.Options){
		`fanout: Zone: name "": invalid: is empty`:                         func(o *fanout.Options) { o.Zone = "" },
		"fanout: Owners is empty, want at least one":                       func(o *fanout.Options) { o.Owners = nil },
		"fanout: Lead is missing":                                          func(o *fanout.Options) { o.Lead = nil },
		"fanout: Followers is empty, want at least one":                    func(o *fanout.Options) { o.Followers = nil },
		"fanout: Interval is -1ns, want more than 0, or 0 for the default": func(o *fanout.Options) { o.Interval = -1 },
		`fanout: Followers[1] is "one", want a name of its own and a registrar`: func(o *fanout.Options) {
			o.Followers = append(o.Followers, o.Followers[0])
		},
	} {
		o := good
		change(&o)
		_, err := fanout.New(o)
		require.EqualError(t, err, want)
	}
	bad := good
	bad.Owners = []string{"a b"}
	_, err := fanout.New(bad)
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
}

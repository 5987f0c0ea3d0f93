package memcloud_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// The limits of the cloud in the property test.
const (
	quotaInstances, quotaVolumes, quotaAddresses = 6, 5, 3
	roomAtA, roomForLarge                        = 4, 2
)

// modelled is a cloud, and what the test knows of it by itself.
type modelled struct {
	*memcloud.Cloud
	lag     time.Duration
	latency time.Duration
	tokens  map[string]string // instance by token
	ended   map[string]bool   // instances that were seen Terminated
}

// TestTheWorldStaysWhole does anything that callers and tests can do, with faults at every call, and checks after each
// step what must hold whatever happens.
func TestTheWorldStaysWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			seconds := func(most int, name string) time.Duration {
				return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Second
			}
			m := &modelled{tokens: map[string]string{}, ended: map[string]bool{}, lag: seconds(20, "lag"), latency: seconds(1, "latency")}
			var fault string
			m.Cloud = memcloud.New(memcloud.Options{
				BootTime: seconds(30, "boot"), BootSpread: seconds(10, "spread"), ReadyTime: seconds(10, "ready"), ListLag: m.lag,
				TerminateTime: seconds(20, "terminate"), TerminatedLinger: seconds(60, "linger"), Latency: m.latency,
				Placements: []string{"a", "b"}, Sizes: []string{"small", "large"}, LateVolumes: rapid.Bool().Draw(t, "late"),
				Quota:    memcloud.Quota{Instances: quotaInstances, Volumes: quotaVolumes, Addresses: quotaAddresses},
				Capacity: map[memcloud.Offering]int{{Placement: "a"}: roomAtA, {Size: "large"}: roomForLarge},
				Seed:     rapid.Uint64().Draw(t, "seed"),
				Fault: func(_ context.Context, c memcloud.Call) error {
					if fault == "panic before" && !c.After || fault == "panic after" && c.After {
						panic(fault)
					}
					if fault == "before" && !c.After || fault == "after" && c.After {
						return errors.New(fault)
					}
					return nil
				},
			})
			ctx := t.Context()
			// call makes a call, with a fault or without, and checks what the fault has done.
			call := func(f func() error) (err error) {
				fault = rapid.SampledFrom([]string{"", "", "", "before", "after", "panic before", "panic after"}).Draw(t, "fault")
				changes := len(m.Changes())
				func() {
					defer func() {
						if p := recover(); p != nil && p != fault {
							panic(p)
						}
					}()
					err = f()
				}()
				made := len(m.Changes()) - changes
				switch {
				case fault == "before" || fault == "panic before":
					require.Zero(t, made, "a call that failed before has changed something")
				case fault == "after":
					require.ErrorIs(t, err, provider.ErrAmbiguous)
				case err != nil:
					require.Zero(t, made, "a call that failed has changed something: %v", err)
				}
				require.LessOrEqual(t, made, 1)
				fault = ""
				return err
			}
			instance := func() string {
				ids := []string{"i-unknown"}
				for _, id := range m.tokens {
					ids = append(ids, id)
				}
				slices.Sort(ids)
				return rapid.SampledFrom(ids).Draw(t, "instance")
			}
			volume := func() string {
				ids := []string{"vol-unknown"}
				for _, v := range m.World(nil).Volumes {
					ids = append(ids, v.ID)
				}
				return rapid.SampledFrom(ids).Draw(t, "volume")
			}
			address := func() string {
				ids := []string{"eip-unknown"}
				for _, a := range m.World(nil).Addresses {
					ids = append(ids, a.ID)
				}
				return rapid.SampledFrom(ids).Draw(t, "address")
			}
			t.Repeat(map[string]func(*rapid.T){
				"launch": func(t *rapid.T) {
					n := rapid.IntRange(0, 11).Draw(t, "token")
					l := provider.Launch{Token: fmt.Sprint("t", n), Image: "debian", Size: []string{"", "small", "large"}[n%3],
						Placement: []string{"", "a", "b"}[n/3%3], Tags: map[string]string{"n": fmt.Sprint(n)}}
					if n%2 == 1 {
						l.Token, l.Volumes = fmt.Sprint(l.Token, "v"), []string{volume()}
						l.Token += l.Volumes[0][4:]
					}
					var i provider.Instance
					before := m.Changes()
					err := call(func() (err error) { i, err = m.Launch(ctx, l); return err })
					id := i.ID
					if made := m.Changes()[len(before):]; len(made) == 1 {
						require.Empty(t, m.tokens[l.Token], "a token has launched a second instance")
						m.tokens[l.Token] = made[0].ID
						id = made[0].ID
					}
					if err == nil && id != "" {
						require.Equal(t, m.tokens[l.Token], id)
					}
				},
				"terminate": func(*rapid.T) { id := instance(); call(func() error { return m.Terminate(ctx, id) }) },
				"stop":      func(*rapid.T) { id := instance(); call(func() error { return m.Stop(ctx, id) }) },
				"start":     func(*rapid.T) { id := instance(); call(func() error { return m.Start(ctx, id) }) },
				"reboot":    func(*rapid.T) { id := instance(); call(func() error { return m.Reboot(ctx, id) }) },
				"create volume": func(t *rapid.T) {
					n := rapid.IntRange(0, 7).Draw(t, "token")
					s := provider.VolumeSpec{Token: fmt.Sprint("v", n), SizeGB: 1, Placement: []string{"a", "b"}[n%2]}
					call(func() error { _, err := m.CreateVolume(ctx, s); return err })
				},
				"attach":        func(*rapid.T) { v, i := volume(), instance(); call(func() error { return m.AttachVolume(ctx, v, i) }) },
				"detach":        func(*rapid.T) { v := volume(); call(func() error { return m.DetachVolume(ctx, v) }) },
				"delete volume": func(*rapid.T) { v := volume(); call(func() error { return m.DeleteVolume(ctx, v) }) },
				"allocate": func(t *rapid.T) {
					s := provider.AddressSpec{Token: fmt.Sprint("a", rapid.IntRange(0, 4).Draw(t, "token"))}
					call(func() error { _, err := m.AllocateAddress(ctx, s); return err })
				},
				"associate": func(*rapid.T) {
					a, i := address(), instance()
					call(func() error { return m.AssociateAddress(ctx, a, i) })
				},
				"disassociate": func(*rapid.T) { a := address(); call(func() error { return m.DisassociateAddress(ctx, a) }) },
				"release":      func(*rapid.T) { a := address(); call(func() error { return m.ReleaseAddress(ctx, a) }) },
				"kill":         func(*rapid.T) { m.Kill(instance(), "spot reclaim") },
				"fail":         func(*rapid.T) { m.Fail(instance(), "no host") },
				"hang":         func(*rapid.T) { m.Hang(instance()) },
				"wait": func(t *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 90_000).Draw(t, "ms")) * time.Millisecond)
				},
				"": func(t *rapid.T) { m.check(t) },
			})
		})
	})
}

// check checks what must hold at any time.
func (m *modelled) check(t *rapid.T) {
	w := m.World(nil)
	require.LessOrEqual(t, len(w.Instances), quotaInstances)
	require.LessOrEqual(t, len(w.Volumes), quotaVolumes)
	require.LessOrEqual(t, len(w.Addresses), quotaAddresses)
	placed, large := map[string]int{}, 0
	byID, private, public := map[string]provider.Instance{}, map[netip.Addr]string{}, map[netip.Addr]string{}
	for _, i := range w.Instances {
		require.False(t, m.ended[i.ID], "%s is back from the dead", i)
		byID[i.ID] = i
		if placed[i.Placement]++; i.Size == "large" {
			large++
		}
		if i.State == provider.Running {
			require.True(t, i.Private.IsValid() && i.Public.IsValid(), "%s runs without an address", i)
		}
		if i.Private.IsValid() {
			require.Empty(t, private[i.Private], "two instances have one private address: %s", i)
			require.Empty(t, public[i.Public], "two instances have one public address: %s", i)
			private[i.Private], public[i.Public] = i.ID, i.ID
		}
	}
	require.LessOrEqual(t, placed["a"], roomAtA)
	require.LessOrEqual(t, large, roomForLarge)
	for _, v := range w.Volumes {
		if i, ok := byID[v.Instance]; v.Instance != "" {
			require.True(t, ok, "%s is attached to %s, which has ended", v.ID, v.Instance)
			require.Equal(t, i.Placement, v.Placement)
			require.NotEmpty(t, v.Device)
		} else {
			require.Empty(t, v.Device)
		}
	}
	held := map[string]bool{}
	for _, a := range w.Addresses {
		if i, ok := byID[a.Instance]; a.Instance != "" {
			require.True(t, ok, "%s points to %s, which has ended", a.ID, a.Instance)
			require.Equal(t, a.Addr, i.Public)
			require.False(t, held[a.Instance], "%s has two addresses", a.Instance)
			held[a.Instance] = true
		} else {
			require.Empty(t, public[a.Addr], "a free address is shown by an instance")
		}
	}

	// Lists show the world as it was one lag ago, and Terminated instances beside.
	if m.lag == 0 {
		return
	}
	time.Sleep(m.lag - m.latency/2)
	list, err := m.Instances(t.Context(), nil)
	require.NoError(t, err)
	list = slices.DeleteFunc(list, func(i provider.Instance) bool {
		m.ended[i.ID] = m.ended[i.ID] || i.State == provider.Terminated
		return i.State == provider.Terminated
	})
	require.Equal(t, w.Instances, list)
}

package clouds

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// booted is a cloud whose machines do not boot, and are thought to have: each is told of once a list has shown that it runs.
type booted struct {
	provider.Provider
	mu    sync.Mutex
	known map[string]bool
	start func(provider.Instance)
}

func (b *booted) Unwrap() provider.Provider { return b.Provider }

func (b *booted) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	list, err := b.Provider.Instances(ctx, tags)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, in := range list {
		if in.State == provider.Running && in.Private.IsValid() && !b.known[in.ID] {
			b.known[in.ID] = true
			b.start(in)
		}
	}
	return list, err
}

// twinOfNow makes a twin of a farm with a database of n servers on volumes, and ends it, twice, by hosts that are killed at each of their
// changes, after its effect: once it is ended when its parent's volume has been copied, and once when it serves. The volume is copied once, the
// copy is of the replica and does not stay, each volume and machine is there once, and in the end there is nothing; the parent has what it
// had. Snapshot is what hosts call the making of one. The databases are memdb: it is the cloud that is real.
func twinOfNow(t *testing.T, h *hosts, n int, names [2]string, open func() provider.Provider, config func(provider.Provider) farm.Config, snapshot string) {
	// program is a farm as a new process has it, with its database's Manager.
	program := func(spec farm.Spec, db *memdb.Cluster, known map[string]bool, start func(addr string), origin *replication.Origin) *farm.Farm {
		manager, err := replication.New(replication.Config{Name: spec.Name + "/db", Engine: db, Origin: origin})
		require.NoError(t, err)
		c := config(&booted{Provider: open(), known: known, start: func(in provider.Instance) { start(in.Private.String() + ":3306") }})
		c.Databases, c.Interval = map[string]*replication.Manager{"db": manager}, 100*time.Millisecond
		f, err := farm.New(spec, c)
		require.NoError(t, err)
		return f
	}
	// run runs a farm until it is as wanted.
	run := func(ctx context.Context, f *farm.Farm, wanted func() bool) error {
		ctx, stop := context.WithTimeout(ctx, patience)
		ran := make(chan error, 1)
		go func() { ran <- f.Run(ctx) }()
		defer func() { stop(); <-ran }()
		for !wanted() {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}
	serves := func(f *farm.Farm) bool {
		ready, primary := 0, false
		for _, s := range f.Servers("db") {
			if s.Ready {
				ready++
			}
			primary = primary || s.Primary
		}
		return ready == n && primary
	}
	cloud := open()

	spec := databases(names[0], n, farm.Volume{})
	spec.Roles[0].Image, spec.Roles[0].Size = "app", "small"
	production := memdb.New(memdb.Options{})
	shop := program(spec, production, map[string]bool{}, production.Start, nil)
	require.NoError(t, run(t.Context(), shop, func() bool { return serves(shop) }))
	var source replication.Member
	var addr string // the primary's
	for _, s := range shop.Servers("db") {
		if s.Primary {
			addr = s.Private.String() + ":3306"
		}
		if !s.Primary || n == 1 {
			source = replication.Member{ID: s.Name, Machine: s.ID}
		}
	}
	require.NoError(t, production.Write(t.Context(), addr, "secret", "production"))
	before := look(t, cloud, spec.Name)
	copied := before.Volumes[source.ID][0]

	spec, warnings, err := spec.Clone(names[1], farm.CloneOptions{Snapshots: true})
	require.NoError(t, err)
	require.Empty(t, warnings)
	dev, known := memdb.New(memdb.Options{}), map[string]bool{}
	twin := func() *farm.Farm {
		return program(spec, dev, known, func(twins string) { dev.StartCopy(twins, production, addr) }, &replication.Origin{
			Volumes: true,
			Source:  func(context.Context) (replication.Member, error) { return source, nil },
			Scrub: func(_ context.Context, m replication.Member) error {
				dev.Inject(m.Addr, "secret", "scrubbed")
				return nil
			}})
	}
	// become runs the twin under hosts that are killed until it is as wanted.
	become := func(wanted func(*farm.Farm) bool) (int, map[string]int) {
		t.Helper()
		return h.work(t, func(ctx context.Context) error {
			f := twin()
			return run(ctx, f, func() bool { return wanted(f) })
		})
	}
	end := func() {
		t.Helper()
		_, all := h.work(t, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return twin().Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true})
		})
		require.Empty(t, all)
		require.True(t, look(t, cloud, spec.Name).empty(), "left over: %+v", look(t, cloud, spec.Name))
		require.Empty(t, copies(t, cloud, spec.Name))
	}

	// snapshots are the twin's; not known while the host is dead.
	snapshots := func() (list []provider.Snapshot, known bool) {
		s, _ := provider.As[provider.Snapshots](cloud)
		list, err := s.Snapshots(t.Context(), map[string]string{farm.TagFarm: spec.Name})
		return list, err == nil
	}
	_, all := become(func(*farm.Farm) bool {
		list, _ := snapshots()
		return len(list) == 1 && list[0].Volume == copied && h.has(snapshot) // the list may come before the answer
	})
	require.Equal(t, map[string]int{snapshot: 1}, all, "of the twin there is nothing else")
	end()

	killed, all := become(func(f *farm.Farm) bool {
		list, known := snapshots()
		return serves(f) && known && len(list) == 0
	})
	require.Equal(t, 1, all[snapshot], "the volume is copied once")
	require.GreaterOrEqual(t, killed, 4)
	after := look(t, cloud, spec.Name)
	require.NoError(t, after.settled(spec))
	require.Empty(t, after.ended, "an instance too many was launched")
	v, _ := provider.As[provider.Volumes](cloud)
	volumes, err := v.Volumes(t.Context(), map[string]string{farm.TagFarm: spec.Name})
	require.NoError(t, err)
	from := map[string]bool{}
	for _, x := range volumes {
		from[x.Tags[farm.TagSnapshot]] = true
	}
	require.Len(t, from, 1, "all volumes are filled from one snapshot")
	require.NotContains(t, from, "")
	end()
	require.Equal(t, before, look(t, cloud, names[0]), "the parent has what it had")

	ending, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, shop.Terminate(ending, farm.TerminateOptions{DeleteVolumes: true}))
	require.True(t, look(t, cloud, names[0]).empty())
}

// TestTwinOfNowByKilledHostsOnEC2 does so on moto.
func TestTwinOfNowByKilledHostsOnEC2(t *testing.T) {
	h := &hosts{}
	a := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{h.layer}})
	a.Proxy.SetFault(h.fault)
	s := onEC2(t, a)
	twinOfNow(t, h, 2, [2]string{"shop", "dev"}, s.cloud, s.config, "CreateSnapshot")
}

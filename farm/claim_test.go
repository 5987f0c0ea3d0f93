package farm

import (
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

type fakeFollower struct{ told []cache.Server }

func (f *fakeFollower) SetServers(s []cache.Server) error { f.told = s; return nil }

// A twin that is given its parent's manager or follower would tell it of its own machines.
func TestManagersAndFollowersAreOfOneFarm(t *testing.T) { synctest.Test(t, oneFarm) }

func oneFarm(t *testing.T) {
	manager := func() *replication.Manager {
		m, err := replication.New(replication.Config{Name: "db", Engine: memdb.New(memdb.Options{})})
		require.NoError(t, err)
		return m
	}
	make := func(name string, m *replication.Manager, f cache.Follower) (*Farm, error) {
		config := testConfig(testCloud(memcloud.Options{}), nil)
		config.Databases, config.Caches = map[string]*replication.Manager{"db": m}, map[string]cache.Follower{"mc": f}
		return New(Spec{Name: name, Roles: []Role{{Name: "db", Serves: Database, Image: "m", Min: 1, Max: 1}, {Name: "mc", Serves: Cache, Image: "m", Min: 1, Max: 1}}}, config)
	}
	m, f := manager(), new(fakeFollower)
	parent, err := make("claim-parent", m, f)
	require.NoError(t, err)
	_, err = make("claim-parent", m, f)
	require.NoError(t, err, "the same farm")
	_, err = make("claim-twin", m, new(fakeFollower))
	require.ErrorContains(t, err, `config.Databases["db"]: serves farm "claim-parent", want one for each farm`)
	_, err = make("claim-twin", manager(), f)
	require.ErrorContains(t, err, `config.Caches["mc"]: serves farm "claim-parent", want one for each farm`)
	_, err = make("claim-twin", manager(), new(fakeFollower))
	require.NoError(t, err)
	require.NoError(t, parent.Terminate(t.Context(), TerminateOptions{}))
	_, err = make("claim-twin", m, f)
	require.NoError(t, err, "the other has ended")
	runtime.KeepAlive(m)
}

package farm

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/memcloud"
)

// TestANameHasSoManyAddresses runs more machines than a name has addresses: it has those that it had, as long as they serve, and then the
// lowest indexes; the plan says so.
func TestANameHasSoManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = mostA + 20
		cloud := testCloud(memcloud.Options{})
		spec, config := web(n, n+10), testConfig(cloud, testZone())
		spec.Roles[0].Drain = -1
		f, err := New(spec, config)
		require.NoError(t, err)
		turn := func() (p Plan) {
			for range 15 {
				p, err = f.Reconcile(t.Context())
				require.NoError(t, err)
				time.Sleep(time.Second)
			}
			require.Empty(t, p.Steps)
			return p
		}
		p := turn()
		named := func() (service []string) {
			records, err := config.DNS.Records(t.Context(), spec.Zone)
			require.NoError(t, err)
			found := 0
			for _, r := range records {
				if label := strings.TrimSuffix(r.Name, spec.Zone); r.Type == "A" && slices.Contains([]string{"www.", "int-www.", "shop.", ""}, label) {
					require.Len(t, r.Values, mostA)
					found++
					if label == "www." {
						service = r.Values
					}
				}
			}
			require.Equal(t, 4, found)
			return service
		}
		before := named()
		require.Len(t, before, mostA)
		servers := f.Servers("www")
		require.Len(t, servers, n)
		for i, s := range servers {
			require.Equal(t, i < mostA, slices.Contains(before, s.Public.String()), s.Name)
		}
		require.Equal(t, "wait www: 20 of its addresses of type A are not under www.shop.example.: a name has at most 2000\n", p.String())

		gone := servers[3]
		cloud.SetCapacity("", "", 0) // nobody takes its place
		require.NoError(t, cloud.Fail(gone.ID, "hardware"))
		for range 5 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(time.Second)
		}
		want := slices.DeleteFunc(slices.Clone(before), func(v string) bool { return v == gone.Public.String() })
		want = append(want, servers[mostA].Public.String())
		require.ElementsMatch(t, want, named(), "the next one takes its place in the name")
		cloud.SetCapacity("", "", 10*n)
		turn()
		require.Len(t, f.Servers("www"), n)
		require.ElementsMatch(t, want, named(), "who is named stays so")

		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{}))
		require.Empty(t, world(cloud))
		require.Empty(t, values(t, config, spec.Zone, "www.shop.example.", "A"))
	})
}

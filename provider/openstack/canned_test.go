package openstack

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
)

// canned is a server that answers as an OpenStack does: with a catalog of its own, and what the handler says of the rest.
func canned(t testing.TB, handler http.HandlerFunc) *Cloud {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	mux.HandleFunc("POST /v3/auth/tokens", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Subject-Token", "a-token")
		w.WriteHeader(http.StatusCreated)
		var services []string
		for _, s := range []string{"compute", "network", "image"} {
			services = append(services, fmt.Sprintf(`{"type": %q, "name": %q, "endpoints": [{"interface": "public", "region": "one", "region_id": "one", "url": %q}]}`,
				s, s, server.URL+"/"+s))
		}
		fmt.Fprintf(w, `{"token": {"expires_at": "2099-01-01T00:00:00.000000Z", "catalog": [%s]}}`, strings.Join(services, ","))
	})
	for _, s := range []string{"compute", "network", "image"} {
		mux.HandleFunc("GET /"+s+"/{$}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"versions": [{"id": "v2.1", "status": "CURRENT", "links": []}]}`)
		})
	}
	mux.HandleFunc("/", handler)
	c, err := New(t.Context(), Options{Region: "one", Auth: &gophercloud.AuthOptions{IdentityEndpoint: server.URL + "/v3",
		Username: "u", Password: "p", DomainID: "default", TenantName: "p"}})
	require.NoError(t, err)
	return c
}

// fleet answers GET servers/detail with n servers, 1000 a page.
func fleet(n int, calls *atomic.Int64) http.HandlerFunc {
	const page = 1000
	pages := map[string][]byte{}
	for start := 0; start < n; start += page {
		var servers []map[string]any
		for i := start; i < min(start+page, n); i++ {
			servers = append(servers, map[string]any{"id": fmt.Sprintf("00000000-0000-4000-8000-%012d", i), "name": fmt.Sprintf("shop-www-%d", i),
				"status": "ACTIVE", "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:10Z", "OS-EXT-AZ:availability_zone": "nova",
				"OS-EXT-STS:task_state": nil, "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1,
				"image":  map[string]any{"id": "f0000000-0000-4000-8000-000000000000", "links": []any{}},
				"flavor": map[string]any{"original_name": "m1.small", "vcpus": 1, "ram": 2048, "disk": 20, "extra_specs": map[string]any{}},
				"addresses": map[string]any{"private": []any{map[string]any{"addr": fmt.Sprintf("10.%d.%d.1", i/256, i%256), "version": 4,
					"OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:00"}}},
				"metadata": map[string]string{"scalr-farm": "shop", "scalr-role": "www", "scalr-index": strconv.Itoa(i), "scalr-generation": "1",
					"scalr-pool": "a", keyToken: "t", keySpec: "s", keyImage: "debian", keySize: "m1.small"},
				"security_groups": []any{map[string]any{"name": "default"}}, "key_name": nil, "tags": []string{"scalr-farm=shop"}, "links": []any{}})
		}
		body := map[string]any{"servers": servers}
		if start+page < n {
			body["servers_links"] = []any{map[string]any{"rel": "next", "href": fmt.Sprintf("http://elsewhere.invalid/servers/detail?marker=%d&tags=x", start+page)}}
		}
		text, _ := json.Marshal(body)
		marker := ""
		if start > 0 {
			marker = strconv.Itoa(start)
		}
		pages[marker] = text
	}
	return func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Write(pages[r.URL.Query().Get("marker")])
	}
}

func TestAListFollowsItsPages(t *testing.T) {
	var calls atomic.Int64
	c := canned(t, fleet(2500, &calls))
	all, err := c.Instances(t.Context(), map[string]string{"scalr-farm": "shop"})
	require.NoError(t, err)
	require.Len(t, all, 2500)
	require.EqualValues(t, 3, calls.Load(), "a call for each page")
	require.Equal(t, "10.9.195.1", all[2499].Private.String())
}

func TestAListThatIsNotCompleteIsAnError(t *testing.T) {
	for name, answer := range map[string]string{
		"a cell is down":       `{"servers": [{"id": "x", "status": "UNKNOWN"}]}`,
		"a page after itself":  `{"servers": [], "servers_links": [{"rel": "next", "href": "http://x/?"}]}`,
		"the list is missing":  `{}`,
		"the answer is cut":    `{"servers": [`,
		"a server is no thing": `{"servers": [1]}`,
	} {
		c := canned(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answer) })
		all, err := c.Instances(t.Context(), nil)
		require.Error(t, err, name)
		require.Nil(t, all, name)
	}
}

// TestThrottlingHoldsBackEveryCallOfTheService answers 429 once, and wants no other call of the service before its time.
func TestThrottlingHoldsBackEveryCallOfTheService(t *testing.T) {
	var mu sync.Mutex
	var until time.Time
	early, images := 0, 0
	c := canned(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/image") {
			images++
			fmt.Fprint(w, `{"images": []}`)
			return
		}
		switch now := time.Now(); {
		case until.IsZero():
			until = now.Add(time.Second)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case now.Before(until.Add(-50 * time.Millisecond)):
			early++
			fallthrough
		default:
			fmt.Fprint(w, `{"servers": []}`)
		}
	})
	_, err := c.Instances(t.Context(), nil)
	require.NoError(t, err)
	mu.Lock()
	until = time.Time{}
	mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { _, err := c.Instances(t.Context(), nil); require.NoError(t, err) })
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return !until.IsZero() }, 30*time.Second, time.Millisecond)
	for range 4 {
		wg.Go(func() { _, err := c.Instances(t.Context(), nil); require.NoError(t, err) })
	}
	_, err = c.Images(t.Context(), nil)
	require.NoError(t, err)
	wg.Wait()
	require.LessOrEqual(t, early, 4, "those that had begun before may come early")
	require.Equal(t, 1, images)
}

func TestAThrottleLongerThanACallIsTheCallers(t *testing.T) {
	var calls atomic.Int64
	c := canned(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	_, err := c.Instances(t.Context(), nil)
	require.ErrorIs(t, err, provider.ErrThrottled)
	require.EqualValues(t, 1, calls.Load())
	require.ErrorContains(t, err, "retry after 1h0m0s")
}

func TestReadsAreMadeAgainAndCreationsAreNot(t *testing.T) {
	var gets, posts atomic.Int64
	c := canned(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
		} else if gets.Add(1); strings.HasSuffix(r.URL.Path, "servers/detail") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	_, err := c.Instances(t.Context(), nil)
	require.Error(t, err)
	require.EqualValues(t, 4, gets.Load())
	require.Error(t, c.Reboot(t.Context(), "x"))
	require.EqualValues(t, 1, posts.Load())
}

func TestACatalogWithoutAServiceSaysSo(t *testing.T) {
	c := canned(t, http.NotFound)
	_, err := c.Balancers(t.Context(), nil)
	require.ErrorContains(t, err, "the catalog has no load-balancer service")
	_, err = c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "t", SizeGB: 1})
	require.ErrorContains(t, err, "the catalog has no block-storage service")
}

// BenchmarkList lists 10,000 servers of a farm.
func BenchmarkList(b *testing.B) {
	const n = 10_000
	var calls atomic.Int64
	c := canned(b, fleet(n, &calls))
	b.ReportAllocs()
	calls.Store(0)
	for b.Loop() {
		all, err := c.Instances(context.Background(), map[string]string{"scalr-farm": "shop"})
		if err != nil || len(all) != n {
			b.Fatal(len(all), err)
		}
	}
	b.ReportMetric(float64(calls.Load())/float64(b.N), "calls/op")
}

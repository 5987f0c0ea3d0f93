package openstack

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/stretchr/testify/require"
)

// A volume whose last snapshot is on its way out is deleted: whoever deletes that has seen no mark, and leaves the volume. One
// that has other snapshots is marked for whoever deletes the last of them.
func TestAVolumeWhoseSnapshotsAreEndingIsDeleted(t *testing.T) {
	for _, c := range []struct {
		name  string
		lists []string // the snapshots' states, list after list
		want  string
	}{
		{"no snapshot", []string{""}, "DELETE"},
		{"one that ends", []string{"deleting", "deleting", ""}, "DELETE"},
		{"one that stays", []string{"available", "available"}, "PUT"},
		{"one that stays, and one that ends", []string{"available deleting", "available"}, "PUT"},
		{"one that ends while the volume is marked", []string{"available", "deleting", ""}, "PUT DELETE"},
		{"one that cannot be deleted", []string{"error_deleting", "error_deleting"}, "PUT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var made []string
			lists := c.lists
			cloud := canned(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case strings.HasSuffix(r.URL.Path, "/snapshots/detail"):
					var all []string
					for i, status := range strings.Fields(lists[0]) {
						all = append(all, fmt.Sprintf(`{"id": "s%d", "status": %q, "created_at": "2026-01-02T03:04:05.000000"}`, i, status))
					}
					lists = lists[1:]
					fmt.Fprintf(w, `{"snapshots": [%s]}`, strings.Join(all, ","))
				case r.Method == http.MethodGet:
					fmt.Fprint(w, `{"volume": {"id": "v", "status": "available", "created_at": "2026-01-02T03:04:05.000000"}}`)
				default:
					made = append(made, r.Method)
					if r.Method == http.MethodDelete {
						w.WriteHeader(http.StatusAccepted)
						return
					}
					fmt.Fprint(w, `{"volume": {"id": "v"}}`)
				}
			})
			cloud.volume = &gophercloud.ServiceClient{ProviderClient: cloud.compute.ProviderClient, Endpoint: cloud.compute.Endpoint}
			require.NoError(t, cloud.DeleteVolume(t.Context(), "v"))
			require.Equal(t, c.want, strings.Join(made, " "))
			require.Empty(t, lists)
		})
	}
}

// A volume that was to go with its last snapshot is deleted by the next list, if whoever deleted the snapshot has died before it
// deleted the volume. If it cannot be, it is there.
func TestAVolumeWhoseSnapshotsHaveEndedIsDeletedByAList(t *testing.T) {
	for _, c := range []struct {
		name      string
		snapshots string
		deletion  int
		made      string
		listed    int
	}{
		{"it waits for a snapshot", `{"id": "s", "status": "available", "created_at": "2026-01-02T03:04:05.000000"}`, http.StatusAccepted, "", 0},
		{"no snapshot is left", "", http.StatusAccepted, "DELETE", 0},
		{"somebody else has deleted it", "", http.StatusNotFound, "DELETE", 0},
		{"it is busy", "", http.StatusBadRequest, "DELETE", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var made atomic.Value
			made.Store("")
			cloud := canned(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/snapshots/detail"):
					fmt.Fprintf(w, `{"snapshots": [%s]}`, c.snapshots)
				case strings.HasSuffix(r.URL.Path, "/volumes/detail"):
					fmt.Fprintf(w, `{"volumes": [{"id": "v", "status": "available", "created_at": "2026-01-02T03:04:05.000000", "metadata": {%q: "2026-01-02T03:04:05Z"}}]}`, keyEnded)
				default:
					made.Store(r.Method)
					w.WriteHeader(c.deletion)
				}
			})
			cloud.volume = &gophercloud.ServiceClient{ProviderClient: cloud.compute.ProviderClient, Endpoint: cloud.compute.Endpoint}
			found, err := cloud.Volumes(t.Context(), nil)
			require.NoError(t, err)
			require.Len(t, found, c.listed)
			require.Equal(t, c.made, made.Load())
		})
	}
}

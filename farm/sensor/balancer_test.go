package sensor_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/sensor"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, lost := map[string]int{}, false
		cloud := memcloud.New(memcloud.Options{Fault: func(_ context.Context, c memcloud.Call) error {
			if c.After {
				return nil
			}
			calls[c.Method]++
			if lost && c.Method == "Requests" {
				return errors.New("lost")
			}
			return nil
		}})
		other := memcloud.New(memcloud.Options{})
		balancer := func(c *memcloud.Cloud, token, of, role string) string {
			b, err := c.CreateBalancer(t.Context(), provider.BalancerSpec{Token: token, Protocol: "http", Port: 80,
				Tags: map[string]string{farm.TagFarm: of, farm.TagRole: role}})
			require.NoError(t, err)
			return b.ID
		}
		one, two := balancer(cloud, "1", "shop", "www"), balancer(other, "2", "shop", "www")
		foreign, db := balancer(cloud, "3", "blog", "www"), balancer(cloud, "4", "shop", "api")
		s := sensor.Requests("shop", cloud, other)
		add := func(c *memcloud.Cloud, id string, n uint64) { require.NoError(t, c.AddRequests(id, n)) }
		read := func() (float64, bool) {
			t.Helper()
			samples, err := s.Read(t.Context(), "www", nil)
			require.NoError(t, err)
			if len(samples) == 0 {
				return 0, false
			}
			require.Len(t, samples, 1)
			require.Empty(t, samples[0].Instance, "it is the role's")
			require.Equal(t, time.Now(), samples[0].At)
			return samples[0].Value, true
		}
		want := func(v float64) {
			t.Helper()
			got, ok := read()
			require.True(t, ok)
			require.InDelta(t, v, got, 1e-9)
		}

		add(cloud, one, 1000)
		_, ok := read()
		require.False(t, ok, "a count wants two readings")
		for range 5 {
			add(cloud, one, 300)
			add(other, two, 100)
			add(cloud, foreign, 9999)
			add(cloud, db, 9999)
			time.Sleep(10 * time.Second)
			want(40)
		}
		require.Equal(t, 1, calls["Balancers"], "a list is good for a while")

		lost = true
		samples, err := s.Read(t.Context(), "www", nil)
		require.ErrorContains(t, err, "lost")
		require.Empty(t, samples, "missing is missing, also if the other balancer answers")
		lost = false
		add(cloud, one, 600)
		time.Sleep(10 * time.Second)
		want(60)

		// One goes and another one comes: it counts from its beginning.
		require.NoError(t, cloud.DeleteBalancer(t.Context(), one))
		add(cloud, balancer(cloud, "5", "shop", "www"), 500)
		time.Sleep(10 * time.Second)
		want(50)

		_, err = s.Read(t.Context(), "cron", nil)
		require.ErrorContains(t, err, "balancers of cron: there are none")
		_, err = sensor.Requests("shop", bare{cloud}).Read(t.Context(), "www", nil)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
}

// bare is a cloud with no capability.
type bare struct{ provider.Provider }

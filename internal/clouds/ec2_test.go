package clouds

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/ec2"
)

const region = "eu-central-1"

// onEC2 is EC2 as moto and the proxy give it, in two zones.
func onEC2(t *testing.T, a *testenv.AWS) subject {
	return subject{
		proxy: a.Proxy,
		cloud: func() provider.Provider {
			c, err := ec2.New(t.Context(), ec2.Options{Region: region, ListLag: 300 * time.Millisecond,
				Config: &aws.Config{BaseEndpoint: aws.String(a.URL()), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")}})
			require.NoError(t, err)
			return c
		},
		config: func(p provider.Provider) farm.Config {
			images := map[string]string{"web": testenv.MotoImage, "app": testenv.MotoImage}
			sizes := map[string]string{"small": "t3.small", "large": "m5.large"}
			return quick(farm.Pool{Name: "a", Provider: p, Placement: region + "a", Images: images, Sizes: sizes},
				farm.Pool{Name: "b", Provider: p, Placement: region + "b", Images: images, Sizes: sizes})
		},
	}
}

// TestHostKilledOnEC2 kills the program that runs a farm at a request to the cloud, before and after the request's effect,
// with every fifth reply to a change lost besides, and starts it again: nothing is leaked, nothing doubled. It tries some
// requests; with CLOUD_LONG set, each from that number on.
func TestHostKilledOnEC2(t *testing.T) {
	all, died := onEC2(t, testenv.Moto(t, testenv.MotoOptions{})).killed(t, shop("shop"), 0, false)
	require.False(t, died)
	kills := 0
	try := func(t *testing.T, s subject, kill int, after bool) {
		if _, died := s.killed(t, shop(fmt.Sprintf("shop%d%t", kill, after)), kill, after); died {
			kills++
		}
	}
	if from := os.Getenv("CLOUD_LONG"); from != "" {
		first, err := strconv.Atoi(from)
		require.NoError(t, err, "CLOUD_LONG")
		for kill := range all {
			if kill+1 < first {
				continue
			}
			t.Run(fmt.Sprintf("%d_of_%d", kill+1, all), func(t *testing.T) { // moto gets slow with what has been
				s := onEC2(t, testenv.Moto(t, testenv.MotoOptions{}))
				try(t, s, kill+1, false)
				try(t, s, kill+1, true)
			})
		}
	} else {
		s := onEC2(t, testenv.Moto(t, testenv.MotoOptions{}))
		step := max(all/4, 1)
		for kill := step / 2; kill < all; kill += step {
			try(t, s, max(kill, 1), kill/step%2 == 1)
		}
	}
	t.Logf("killed %d times, of %d requests", kills, all)
	require.Positive(t, kills)
}

// TestTwinOfAKilledHostOnEC2 makes a twin under a host that is killed, and ends it: the twin is what its spec says, and its parent
// has what it had.
func TestTwinOfAKilledHostOnEC2(t *testing.T) {
	s := onEC2(t, testenv.Moto(t, testenv.MotoOptions{}))
	parent := shop("shop")
	cloud := s.cloud()
	f, err := farm.New(parent, s.config(cloud))
	require.NoError(t, err)
	require.NoError(t, rest(t.Context(), f))
	before := look(t, cloud, parent.Name)
	for i, kill := range []int{20, 60} {
		twin, warnings, err := parent.Clone(fmt.Sprintf("twin%d", i), farm.CloneOptions{Zone: "qa.shop.example."})
		require.NoError(t, err)
		require.Empty(t, warnings)
		_, died := s.killed(t, twin, kill, i == 0)
		require.True(t, died)
		require.Equal(t, before, look(t, cloud, parent.Name))
	}
	require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true}))
	require.True(t, look(t, cloud, parent.Name).empty())
}

// TestIndexKeepsItsThingsOnEC2 ends the machines of a farm from outside: their successors have the volumes and the
// addresses of their indexes.
func TestIndexKeepsItsThingsOnEC2(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{})
	s := onEC2(t, a)
	cloud := s.cloud()
	f, err := farm.New(shop("shop"), s.config(cloud))
	require.NoError(t, err)
	require.NoError(t, rest(t.Context(), f))
	before := look(t, cloud, "shop")
	require.NoError(t, before.settled(shop("shop")))
	for _, slot := range []string{"app-1", "www-1"} {
		require.NoError(t, cloud.Terminate(t.Context(), before.Instances[slot][0]))
	}
	require.NoError(t, rest(t.Context(), f))
	after := look(t, cloud, "shop")
	require.NoError(t, after.settled(shop("shop")))
	require.NotEqual(t, before.Instances["app-1"], after.Instances["app-1"])
	require.NotEqual(t, before.Instances["www-1"], after.Instances["www-1"])
	require.Equal(t, before.Instances["app-2"], after.Instances["app-2"])
	require.Equal(t, before.Volumes, after.Volumes, "the volume follows its index")
	require.Equal(t, before.Addresses, after.Addresses, "the address follows its index")
	require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true}))
	require.True(t, look(t, cloud, "shop").empty())
}

// TestFallbackOnEC2 takes the capacity away: of a size in a zone, then in both, then gives it back. The role goes to the other
// zone, then to the other size, and comes back when the back-off ends.
func TestFallbackOnEC2(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{})
	s := onEC2(t, a)
	cloud := s.cloud()
	refused := 0
	spec := farm.Spec{Name: "shop", Roles: []farm.Role{{Name: "app", Image: "app", Size: "large", Fallback: []string{"small"}, Min: 1, Max: 1}}}
	config := s.config(cloud)
	config.Backoff = 2 * time.Second
	f, err := farm.New(spec, config)
	require.NoError(t, err)
	// next ends the machine, if there is one, and gives the next one.
	next := func() provider.Instance {
		t.Helper()
		for _, ids := range look(t, cloud, "shop").Instances {
			require.NoError(t, cloud.Terminate(t.Context(), ids[0]))
		}
		require.NoError(t, rest(t.Context(), f))
		list, err := cloud.Instances(t.Context(), map[string]string{farm.TagFarm: "shop"})
		require.NoError(t, err)
		var found provider.Instance
		for _, i := range list {
			if i.State == provider.Running {
				found = i
			}
		}
		return found
	}
	set := func(offers ...string) {
		a.Proxy.SetFault(func(r faultproxy.Request) faultproxy.Fault {
			if r.Operation == "RunInstances" && slices.Contains(offers, r.Form.Get("InstanceType")+" "+r.Form.Get("Placement.AvailabilityZone")) {
				refused++
				return faultproxy.NoCapacity(r)
			}
			return faultproxy.Fault{}
		})
	}
	set("m5.large " + region + "a")
	got := next()
	require.Equal(t, region+"b", got.Placement, "the next zone")
	require.Equal(t, "m5.large", got.Size)
	require.Equal(t, 1, refused, "what has no capacity is not asked again")

	set("m5.large "+region+"a", "m5.large "+region+"b")
	got = next()
	require.Equal(t, "t3.small", got.Size, "the next size")

	set()
	require.Eventually(t, func() bool {
		got = next()
		return got.Size == "m5.large" && got.Placement == region+"a"
	}, patience, 100*time.Millisecond, "it comes back when the back-off has ended")
	require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{}))
}

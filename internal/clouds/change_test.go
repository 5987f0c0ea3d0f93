package clouds

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/ec2"
)

// inTwoRegions is the configuration of a farm over two regions of EC2, which know nothing of each other, as a new process has it.
func inTwoRegions(t *testing.T, a *testenv.AWS) (config farm.Config, here, there provider.Provider) {
	cloud := func(region string) provider.Provider {
		c, err := ec2.New(t.Context(), ec2.Options{Region: region, ListLag: quick().ListLag,
			Config: &aws.Config{BaseEndpoint: aws.String(a.URL()), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")}})
		require.NoError(t, err)
		return c
	}
	here, there = cloud("eu-central-1"), cloud("eu-west-1")
	images := map[string]string{"web": testenv.MotoImage, "app": testenv.MotoImage}
	return quick(farm.Pool{Name: "here", Provider: here, Placement: "eu-central-1a", Images: images},
		farm.Pool{Name: "there", Provider: there, Placement: "eu-west-1a", Images: images}), here, there
}

// some is the shop with the first of its roles, in one pool: a volume cannot move.
func some(name string, roles int) farm.Spec {
	spec := shop(name)
	spec.Roles = spec.Roles[:roles]
	for i := range spec.Roles {
		spec.Roles[i].After, spec.Roles[i].Pools = nil, []string{"here"}
	}
	return spec
}

// changed are changes of farms, by name.
var changed = map[string]struct {
	roles int                // of the shop's
	over  func(holding) bool // what is here
	to    func(*testing.T, farm.Spec) farm.Spec
	check func(t *testing.T, before, here, there holding)
}{"rolled": {2, func(holding) bool { return true }, update, updated}, "moved": {1, holding.empty, move, moved}}

func update(_ *testing.T, spec farm.Spec) farm.Spec {
	for i := range spec.Roles {
		spec.Roles[i].Version, spec.Roles[i].Update = "2", &farm.Update{}
	}
	return spec
}

func updated(t *testing.T, before, here, there holding) {
	require.Equal(t, before.Volumes, here.Volumes, "the volume follows its index")
	require.Equal(t, before.Addresses, here.Addresses, "and the address")
	require.Equal(t, before.Balancers, here.Balancers)
	require.Len(t, here.Instances, len(before.Instances))
	for slot, ids := range before.Instances {
		require.Len(t, here.Instances[slot], 1)
		require.NotEqual(t, ids, here.Instances[slot])
	}
	for _, kind := range []map[string][]string{here.Volumes, here.Addresses} {
		for slot, ids := range kind {
			require.Equal(t, here.Instances[slot], []string{here.holders[ids[0]]})
		}
	}
	require.True(t, there.empty(), "%+v", there)
}

func move(t *testing.T, spec farm.Spec) farm.Spec {
	spec, err := spec.Move(farm.MoveOptions{Pools: []string{"there"}})
	require.NoError(t, err)
	return spec
}

func moved(t *testing.T, _, here, there holding) {
	require.True(t, here.empty(), "%+v", here)
	require.Len(t, there.Instances, 1)
	require.Len(t, there.Addresses, 1)
	require.Equal(t, 1, there.Balancers)
	require.Empty(t, there.ended, "an instance too many was launched")
	for slot, ids := range there.Addresses {
		require.Len(t, ids, 1)
		require.Equal(t, there.Instances[slot], []string{there.holders[ids[0]]})
	}
}

// TestHostKilledWhileAFarmChangesOnEC2 kills the program that changes a farm at a request to the cloud, after its effect, with
// every fifth reply to a change lost besides, and starts it again: nothing is leaked, nothing doubled. With CLOUD_LONG set, it tries each
// request from that number on, before and after its effect.
func TestHostKilledWhileAFarmChangesOnEC2(t *testing.T) {
	for name, change := range changed {
		t.Run(name, func(t *testing.T) {
			a := testenv.Moto(t, testenv.MotoOptions{})
			// try changes a farm under a host that is killed, and another one.
			try := func(kill int, effect bool) (requests int, died bool) {
				t.Helper()
				who := fmt.Sprintf("%s%d%t", name, kill, effect)
				spec := some(who, change.roles)
				config, here, there := inTwoRegions(t, a)
				zone := config.DNS
				f, err := farm.New(spec, config)
				require.NoError(t, err)
				require.NoError(t, rest(t.Context(), f))
				before := look(t, here, who)
				spec = change.to(t, spec)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for _, h := range []*host{{kill: kill, after: effect, lose: 5, killed: cancel}, {lose: 5}} {
					config, here, there = inTwoRegions(t, a)
					config.DNS = zone
					f, err = farm.New(spec, config)
					require.NoError(t, err)
					a.Proxy.SetFault(h.fault)
					if err = rest(ctx, f); requests == 0 {
						requests, died = h.count(), err != nil
					}
					if died {
						ctx = t.Context()
					}
				}
				require.NoError(t, err, "killed at request %d", kill)
				for !change.over(look(t, here, who)) { // what nobody wants is kept for a while
					require.NoError(t, rest(t.Context(), f))
				}
				a.Proxy.SetFault(nil)
				after := look(t, here, who)
				change.check(t, before, after, look(t, there, who))
				for slot := range before.Instances {
					require.Equal(t, 1, after.ended[slot], "of slot %s one machine has ended, the old one", slot)
				}
				end, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				require.NoError(t, f.Terminate(end, farm.TerminateOptions{DeleteVolumes: true}))
				require.True(t, look(t, here, who).empty() && look(t, there, who).empty())
				return requests, died
			}
			from := os.Getenv("CLOUD_LONG")
			if from == "" {
				_, died := try(50, true) // about in the middle
				require.True(t, died)
				return
			}
			first, err := strconv.Atoi(from)
			require.NoError(t, err, "CLOUD_LONG")
			for kill, died := first, true; died; kill++ {
				requests, _ := try(kill, true)
				_, died = try(kill, false)
				t.Logf("killed at %d requests, once before and once after its effect", requests)
			}
		})
	}
}

// TestHostsKilledAtEveryChangeOnEC2 updates and moves a farm by programs that are killed at each of their changes, after its effect:
// what is there is what the spec says, and each slot's old machine is the only one that has ended.
func TestHostsKilledAtEveryChangeOnEC2(t *testing.T) {
	for name, change := range changed {
		t.Run(name, func(t *testing.T) {
			h := &hosts{}
			if name == "moved" { // whoever completes a balancer asks for all of its parts
				h.once = map[string]bool{}
			}
			a := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{h.layer}})
			a.Proxy.SetFault(h.fault)
			spec := some(own(name), change.roles)
			config, here, there := inTwoRegions(t, a)
			zone := config.DNS
			f, err := farm.New(spec, config)
			require.NoError(t, err)
			require.NoError(t, rest(t.Context(), f))
			before := look(t, here, spec.Name)

			spec = change.to(t, spec)
			killed, _ := h.work(t, func(ctx context.Context) error {
				config, here, there = inTwoRegions(t, a)
				config.DNS = zone
				f, err = farm.New(spec, config)
				require.NoError(t, err)
				for {
					switch err := rest(ctx, f); {
					case err != nil:
						return err
					case change.over(look(t, here, spec.Name)): // what nobody wants is kept for a while
						return nil
					}
				}
			})
			require.GreaterOrEqual(t, killed, 5)
			after := look(t, here, spec.Name)
			change.check(t, before, after, look(t, there, spec.Name))
			for slot := range before.Instances {
				require.Equal(t, 1, after.ended[slot], "of slot %s one machine has ended, the old one", slot)
			}
			end, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			require.NoError(t, f.Terminate(end, farm.TerminateOptions{DeleteVolumes: true}))
			require.True(t, look(t, here, spec.Name).empty() && look(t, there, spec.Name).empty())
		})
	}
}

package route53_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/dnsregtest"
	"github.com/scalr-go/scalr/dnsreg/route53"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
)

const zone = "farm.example."

const secret = "do-not-print-this"

func hosted(t *testing.T, client *sdk.Client, name string, private bool) string {
	in := &sdk.CreateHostedZoneInput{Name: &name, CallerReference: aws.String(t.Name() + time.Now().String()),
		HostedZoneConfig: &types.HostedZoneConfig{PrivateZone: private}}
	if private {
		in.VPC = &types.VPC{VPCId: aws.String("vpc-1"), VPCRegion: types.VPCRegionUsEast1}
	}
	out, err := client.CreateHostedZone(t.Context(), in)
	require.NoError(t, err)
	return strings.TrimPrefix(*out.HostedZone.Id, "/hostedzone/")
}

func start(t *testing.T) (*testenv.AWS, *sdk.Client, *route53.Registrar) {
	t.Helper()
	moto := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{manners()}})
	caller := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(caller.CloseIdleConnections)
	client := sdk.New(sdk.Options{Region: "us-east-1", BaseEndpoint: aws.String(moto.URL()), HTTPClient: caller,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", secret, "")})
	hosted(t, client, zone, false)
	r, err := route53.New(route53.Options{Client: client})
	require.NoError(t, err)
	return moto, client, r
}

func TestRegistrar(t *testing.T) {
	_, _, r := start(t)
	dnsregtest.Run(t, func(*testing.T) (dnsreg.Registrar, string) { return r, zone })
}

func a(label string, values ...string) dnsreg.RRset {
	return dnsreg.RRset{Name: label + "." + zone, Type: "A", TTL: time.Minute, Values: values}
}

func create(sets ...dnsreg.RRset) (changes []dnsreg.Change) {
	for _, s := range sets {
		changes = append(changes, dnsreg.Change{Name: s.Name, Type: s.Type, New: &s})
	}
	return changes
}

// What is wrong stands alone in the end, and all else is done; large change sets go in several batches.
func TestOneBadRecordDoesNotHoldBackTheOthers(t *testing.T) {
	moto, _, r := start(t)
	var want []dnsreg.RRset
	for i := range 300 {
		want = append(want, a(fmt.Sprintf("n%04d", i), "192.0.2.1"))
	}
	want = append(want, a("refused", "192.0.2.2"))
	changes := 0
	moto.Proxy.SetFault(func(q faultproxy.Request) faultproxy.Fault {
		if q.Method == http.MethodPost {
			changes++
		}
		return faultproxy.Fault{}
	})
	made, err := dnsreg.Sync(t.Context(), r, zone, "shop", want)
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
	require.ErrorContains(t, err, "refused.farm.example.")
	require.Len(t, made, 600)
	list, err := r.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Equal(t, want[:300], dnsreg.Owned(zone, "shop", list))
	require.Less(t, changes, 30, "calls: batches are large, and only those with the bad one are halved")
}

// A change set that is throttled is made in the end, once; one whose reply is lost is told as unknown, and not made again.
func TestFaults(t *testing.T) {
	moto, _, r := start(t)
	_, err := r.Records(t.Context(), zone)
	require.NoError(t, err)
	posts := 0
	on := func(fault func(n int) faultproxy.Fault) {
		posts = 0
		moto.Proxy.SetFault(func(q faultproxy.Request) faultproxy.Fault {
			if q.Method != http.MethodPost {
				return faultproxy.Fault{}
			}
			posts++
			return fault(posts)
		})
	}
	on(func(n int) faultproxy.Fault {
		if n < 4 {
			return faultproxy.AWSError("route53", http.StatusBadRequest, []string{"Throttling", "PriorRequestNotComplete", "Throttling"}[n-1], "Rate exceeded")
		}
		return faultproxy.Fault{}
	})
	require.NoError(t, r.Apply(t.Context(), zone, create(a("a", "192.0.2.1"))))
	require.Equal(t, 4, posts)

	for name, fault := range map[string]faultproxy.Fault{
		"lost": faultproxy.Lose, "broken": faultproxy.AWSError("route53", http.StatusInternalServerError, "InternalFailure", "x"),
	} {
		on(func(int) faultproxy.Fault { return fault })
		changes := create(a(name, "192.0.2.1"))
		err := r.Apply(t.Context(), zone, changes)
		partial, ok := errors.AsType[*dnsreg.PartialError](err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, changes, partial.Unknown)
		require.Equal(t, 1, posts, name)
		require.NotContains(t, err.Error(), secret)
	}
	moto.Proxy.SetFault(nil)
	list, err := r.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Contains(t, list, a("lost", "192.0.2.1"))
	require.NotContains(t, list, a("broken", "192.0.2.1"))

	on(func(int) faultproxy.Fault {
		return faultproxy.AWSError("route53", http.StatusForbidden, "AccessDenied", "no")
	})
	err = r.Apply(t.Context(), zone, create(a("c", "192.0.2.1")))
	require.ErrorContains(t, err, "AccessDenied")
	_, partial := errors.AsType[*dnsreg.PartialError](err)
	require.False(t, partial, "it was not made, for sure")

	on(func(int) faultproxy.Fault {
		return faultproxy.AWSError("route53", http.StatusBadRequest, "Throttling", "Rate exceeded")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.Apply(ctx, zone, create(a("d", "192.0.2.1"))), context.DeadlineExceeded)
}

// A change set whose reply is lost is there at the next Sync, which then has nothing to do.
func TestSyncGoesOnAfterALostReply(t *testing.T) {
	moto, _, r := start(t)
	want := []dnsreg.RRset{a("www", "192.0.2.1", "192.0.2.2")}
	moto.Proxy.SetFault(func(q faultproxy.Request) faultproxy.Fault {
		if q.Method == http.MethodPost {
			return faultproxy.Lose
		}
		return faultproxy.Fault{}
	})
	_, err := dnsreg.Sync(t.Context(), r, zone, "shop", want)
	require.Error(t, err)
	moto.Proxy.SetFault(nil)
	made, err := dnsreg.Sync(t.Context(), r, zone, "shop", want)
	require.NoError(t, err)
	require.Empty(t, made)
}

// How a text is cut into strings does not count, though Route 53 compares strings: who shares a name with such a one can still
// change it, and under a precondition.
func TestTextsThatAreCutOtherwiseAreShared(t *testing.T) {
	_, client, r := start(t)
	zones, err := client.ListHostedZonesByName(t.Context(), &sdk.ListHostedZonesByNameInput{DNSName: aws.String(zone)})
	require.NoError(t, err)
	_, err = client.ChangeResourceRecordSets(t.Context(), &sdk.ChangeResourceRecordSetsInput{HostedZoneId: zones.HostedZones[0].Id,
		ChangeBatch: &types.ChangeBatch{Changes: []types.Change{{Action: types.ChangeActionCreate, ResourceRecordSet: &types.ResourceRecordSet{
			Name: aws.String("person." + zone), Type: types.RRTypeTxt, TTL: aws.Int64(60),
			ResourceRecords: []types.ResourceRecord{{Value: aws.String(`"v=DKIM1; " "p=" "abc"`)}, {Value: aws.String(`"first"`)}}}}}}})
	require.NoError(t, err)
	text := func(values ...string) *dnsreg.RRset {
		return &dnsreg.RRset{Name: "person." + zone, Type: "TXT", TTL: time.Minute, Values: values}
	}
	for _, stale := range []*dnsreg.RRset{nil, text("first"), text("first", "v=DKIM1; p=abd")} {
		err = r.Apply(t.Context(), zone, []dnsreg.Change{{Name: "person." + zone, Type: "TXT", Old: stale, New: text("x")}})
		require.ErrorIs(t, err, dnsreg.ErrConflict)
	}
	_, err = dnsreg.Sync(t.Context(), r, zone, "shop", []dnsreg.RRset{*text("mine"), a("www", "192.0.2.1")})
	require.NoError(t, err)
	list, err := r.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Contains(t, list, *text("first", "mine", "v=DKIM1; p=abc"))
	require.Contains(t, list, a("www", "192.0.2.1"))
}

// What has no values of its own is not listed, is not overwritten, and stays.
func TestAliasesAndRoutingPoliciesStay(t *testing.T) {
	_, client, r := start(t)
	id := ""
	zones, err := client.ListHostedZones(t.Context(), &sdk.ListHostedZonesInput{})
	require.NoError(t, err)
	id = *zones.HostedZones[0].Id
	alias := types.ResourceRecordSet{Name: aws.String("alias." + zone), Type: types.RRTypeA,
		AliasTarget: &types.AliasTarget{DNSName: aws.String("lb.example.net."), HostedZoneId: aws.String("Z2"), EvaluateTargetHealth: false}}
	weighted := types.ResourceRecordSet{Name: aws.String("weighted." + zone), Type: types.RRTypeA, TTL: aws.Int64(60), Weight: aws.Int64(1),
		SetIdentifier: aws.String("one"), ResourceRecords: []types.ResourceRecord{{Value: aws.String("192.0.2.1")}}}
	_, err = client.ChangeResourceRecordSets(t.Context(), &sdk.ChangeResourceRecordSetsInput{HostedZoneId: &id, ChangeBatch: &types.ChangeBatch{
		Changes: []types.Change{{Action: types.ChangeActionCreate, ResourceRecordSet: &alias}, {Action: types.ChangeActionCreate, ResourceRecordSet: &weighted}}}})
	require.NoError(t, err)
	list, err := r.Records(t.Context(), zone)
	require.NoError(t, err)
	for _, s := range list {
		require.NotContains(t, s.Name, "alias")
		require.NotContains(t, s.Name, "weighted")
	}
	err = r.Apply(t.Context(), zone, create(a("alias", "192.0.2.9")))
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
	require.ErrorContains(t, err, "alias.farm.example. A")
}

// The zone's own name servers are replaced, under their precondition.
func TestTheZonesNameServersAreReplaced(t *testing.T) {
	_, _, r := start(t)
	ns := func() dnsreg.RRset {
		list, err := r.Records(t.Context(), zone)
		require.NoError(t, err)
		for _, s := range list {
			if s.Name == zone && s.Type == "NS" {
				return s
			}
		}
		return dnsreg.RRset{}
	}
	old := ns()
	new := dnsreg.RRset{Name: zone, Type: "NS", TTL: time.Hour, Values: []string{"ns1.example.org.", "ns2.example.org."}}
	require.NoError(t, r.Apply(t.Context(), zone, []dnsreg.Change{{Name: zone, Type: "NS", Old: &old, New: &new}}))
	require.Equal(t, new, ns())
	require.ErrorIs(t, r.Apply(t.Context(), zone, []dnsreg.Change{{Name: zone, Type: "NS", Old: &old, New: &new}}), dnsreg.ErrConflict)
}

// Public and private zones of one name are told apart; where the name does not tell, the ID does.
func TestZones(t *testing.T) {
	_, client, r := start(t)
	private := hosted(t, client, zone, true)
	require.NoError(t, r.Apply(t.Context(), zone, create(a("public", "192.0.2.1"))))
	inside, err := route53.New(route53.Options{Client: client, Private: true})
	require.NoError(t, err)
	require.NoError(t, inside.Apply(t.Context(), zone, create(a("private", "10.0.0.1"))))
	byID, err := route53.New(route53.Options{Client: client, Zones: map[string]string{"Farm.Example": private}})
	require.NoError(t, err)
	list, err := byID.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Contains(t, list, a("private", "10.0.0.1"))
	require.NotContains(t, list, a("public", "192.0.2.1"))

	second := hosted(t, client, zone, false)
	fresh, err := route53.New(route53.Options{Client: client})
	require.NoError(t, err)
	_, err = fresh.Records(t.Context(), zone)
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
	require.ErrorContains(t, err, second)

	_, err = route53.New(route53.Options{})
	require.EqualError(t, err, "route53: Client is missing")
	_, err = route53.New(route53.Options{Client: client, Zones: map[string]string{"farm.example": ""}})
	require.EqualError(t, err, "route53: Zones has no ID for farm.example.")
}

package ec2_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/ec2"
)

// canned is an EC2 that answers as it is told.
func canned(t testing.TB, answer func(faultproxy.Request) faultproxy.Fault) (*ec2.Cloud, *faultproxy.Proxy) {
	t.Helper()
	p := faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"aws": "http://127.0.0.1:1"}, Name: faultproxy.AWS})
	p.SetFault(answer)
	return newCloud(t, p.URL("aws"), ec2.Options{ListLag: 50 * time.Millisecond}), p
}

func xml(body string, args ...any) faultproxy.Fault {
	return faultproxy.Fault{Response: faultproxy.Response{Status: 200, Header: http.Header{"Content-Type": {"text/xml"}}, Body: fmt.Appendf(nil, body, args...)}}
}

func always(code int, name, message string) func(faultproxy.Request) faultproxy.Fault {
	return func(r faultproxy.Request) faultproxy.Fault {
		return faultproxy.AWSError(r.Service, code, name, message)
	}
}

var good = provider.Launch{Token: "web-1-a", Name: "web-1", Image: "ami-1", Size: "m7g.large", Placement: "eu-central-1a"}

// An error that will not change is given at once: the request is made once, and the error has its kind and names what it is
// about.
func TestLastingErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  func(faultproxy.Request) faultproxy.Fault
		kind    error
		mention []string
	}{
		{"no capacity", faultproxy.NoCapacity, provider.ErrCapacity, []string{`"m7g.large"`, `"eu-central-1a"`}},
		{"type unknown to the zone", always(400, "Unsupported", "Your requested instance type (m7g.large) is not supported in your requested Availability Zone"),
			provider.ErrCapacity, []string{`"m7g.large"`, `"eu-central-1a"`}},
		{"quota of zero", always(400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 0 allows"),
			provider.ErrQuota, []string{"vCPU limit of 0"}},
		{"wrong key", always(401, "AuthFailure", "AWS was not able to validate the provided access credentials"), provider.ErrAuth, []string{"AuthFailure"}},
		{"no permission", always(403, "UnauthorizedOperation", "You are not authorized. Encoded authorization failure message: "+strings.Repeat("x", 5000)),
			provider.ErrAuth, []string{"not authorized"}},
		{"region not enabled", always(400, "OptInRequired", "You are not subscribed to this service"), provider.ErrAuth, []string{"OptInRequired"}},
		{"no image", always(400, "InvalidAMIID.NotFound", "The image id '[ami-1]' does not exist"), provider.ErrNotFound, []string{`Image is "ami-1"`}},
		{"malformed image", always(400, "InvalidAMIID.Malformed", "Invalid id"), provider.ErrInvalid, []string{`Image is "ami-1"`}},
		{"no type", always(400, "InvalidParameterValue", "Invalid value 'm7g.large' for InstanceType."), provider.ErrInvalid, []string{`Size is "m7g.large"`}},
		{"no zone", always(400, "InvalidParameterValue", "Invalid availability zone: [eu-central-1a]"), provider.ErrInvalid, []string{`Placement is "eu-central-1a"`}},
		{"no key pair", always(400, "InvalidKeyPair.NotFound", "The key pair does not exist"), provider.ErrNotFound, []string{"KeyPair"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cloud, p := canned(t, c.answer)
			_, err := cloud.Launch(t.Context(), good)
			require.ErrorIs(t, err, c.kind)
			for _, m := range c.mention {
				require.ErrorContains(t, err, m)
			}
			require.Less(t, len(err.Error()), 700)
			require.Equal(t, 1, p.Count("", ""), "it was tried again")
		})
	}
}

// What may pass is tried again; what remains after that may have had an effect.
func TestPassingErrors(t *testing.T) {
	reply := xml(`<RunInstancesResponse><instancesSet><item><instanceId>i-1</instanceId><launchTime>%s</launchTime></item></instancesSet></RunInstancesResponse>`,
		time.Now().UTC().Format(time.RFC3339))
	for name, f := range map[string]func(faultproxy.Request) faultproxy.Fault{
		"lost":      func(faultproxy.Request) faultproxy.Fault { return faultproxy.Refuse },
		"internal":  always(500, "InternalError", "An internal error has occurred"),
		"busy":      func(faultproxy.Request) faultproxy.Fault { return faultproxy.Status(503, "<html>busy</html>") },
		"throttled": faultproxy.Throttled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			var tokens []string
			cloud, p := canned(t, func(r faultproxy.Request) faultproxy.Fault {
				if r.Operation != "RunInstances" {
					return xml(`<DescribeInstancesResponse><reservationSet></reservationSet></DescribeInstancesResponse>`)
				}
				tokens = append(tokens, r.Form.Get("ClientToken"))
				if r.Number < 3 {
					return f(r)
				}
				return reply
			})
			i, err := cloud.Launch(t.Context(), good)
			require.NoError(t, err)
			require.Equal(t, "i-1", i.ID)
			require.Equal(t, []string{good.Token, good.Token, good.Token}, tokens)
			p.SetFault(f)
			_, err = cloud.Launch(t.Context(), good)
			want := provider.ErrAmbiguous
			if name == "throttled" {
				want = provider.ErrThrottled
			}
			require.ErrorIs(t, err, want)
			_, err = cloud.Instances(t.Context(), nil)
			require.Error(t, err)
			require.NotErrorIs(t, err, provider.ErrAmbiguous, "a list changes nothing")
		})
	}
}

// A thing without a client token is not asked for twice: its reply was lost, so it is looked for.
func TestLostReplyWithoutClientToken(t *testing.T) {
	var mu sync.Mutex
	shown := false
	cloud, p := canned(t, func(r faultproxy.Request) faultproxy.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch r.Operation {
		case "AllocateAddress":
			return faultproxy.Refuse // the server did it, and the connection broke
		case "DescribeAddresses":
			item := ""
			if shown {
				item = `<item><allocationId>eipalloc-1</allocationId><publicIp>192.0.2.1</publicIp><tagSet><item><key>scalr:token</key><value>a</value></item></tagSet></item>`
			}
			return xml(`<DescribeAddressesResponse><addressesSet>%s</addressesSet></DescribeAddressesResponse>`, item)
		}
		return faultproxy.Status(500, "")
	})
	_, err := cloud.AllocateAddress(t.Context(), provider.AddressSpec{Token: "a"})
	require.ErrorIs(t, err, provider.ErrAmbiguous)
	mu.Lock()
	shown = true
	mu.Unlock()
	a, err := cloud.AllocateAddress(t.Context(), provider.AddressSpec{Token: "a"})
	require.NoError(t, err)
	require.Equal(t, "eipalloc-1", a.ID)
	require.Equal(t, 1, p.Count("ec2", "AllocateAddress"))
}

// After a reply was lost, absence from a list is not believed before the list's lag has passed.
func TestLostReplyAndLateList(t *testing.T) {
	var mu sync.Mutex
	var lost time.Time
	p := faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"aws": "http://127.0.0.1:1"}, Name: faultproxy.AWS})
	const lag = 500 * time.Millisecond
	p.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Operation == "CreateSnapshot" && r.Number == 1:
			lost = time.Now()
			return faultproxy.Refuse
		case r.Operation == "DescribeSnapshots" && !lost.IsZero() && time.Since(lost) > lag/2:
			return xml(`<DescribeSnapshotsResponse><snapshotSet><item><snapshotId>snap-1</snapshotId><tagSet><item><key>scalr:token</key><value>a</value></item></tagSet></item></snapshotSet></DescribeSnapshotsResponse>`)
		case r.Operation == "DescribeSnapshots":
			return xml(`<DescribeSnapshotsResponse><snapshotSet></snapshotSet></DescribeSnapshotsResponse>`)
		}
		return faultproxy.Status(500, "")
	})
	cloud := newCloud(t, p.URL("aws"), ec2.Options{ListLag: lag})
	spec := provider.SnapshotSpec{Token: "a", Volume: "vol-1"}
	_, err := cloud.CreateSnapshot(t.Context(), spec)
	require.ErrorIs(t, err, provider.ErrAmbiguous)
	x, err := cloud.CreateSnapshot(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, "snap-1", x.ID)
	require.Equal(t, 1, p.Count("ec2", "CreateSnapshot"))
}

// EC2 may say of a token that its instance has ended; the tags lead to that instance.
func TestTokenOfTerminated(t *testing.T) {
	instance := `<item><instancesSet><item><instanceId>i-1</instanceId><instanceState><code>48</code><name>terminated</name></instanceState>
		<tagSet><item><key>scalr:token</key><value>web-1-a</value></item></tagSet></item></instancesSet></item>`
	cloud, _ := canned(t, func(r faultproxy.Request) faultproxy.Fault {
		if r.Operation == "RunInstances" {
			return faultproxy.AWSError("ec2", 400, "IdempotentInstanceTerminated", "The instance has been terminated")
		}
		return xml(`<DescribeInstancesResponse><reservationSet>%s</reservationSet></DescribeInstancesResponse>`, instance)
	})
	i, err := cloud.Launch(t.Context(), good)
	require.NoError(t, err)
	require.Equal(t, provider.Terminated, i.State)
	instance = ""
	_, err = cloud.Launch(t.Context(), good)
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, "Token")
}

// A young instance that EC2 does not know yet is not gone.
func TestYoungInstanceIsNotGone(t *testing.T) {
	answer := func(r faultproxy.Request) faultproxy.Fault {
		switch r.Operation {
		case "RunInstances":
			return xml(`<RunInstancesResponse><instancesSet><item><instanceId>i-1</instanceId><launchTime>%s</launchTime></item></instancesSet></RunInstancesResponse>`,
				time.Now().UTC().Format(time.RFC3339))
		case "DescribeInstances":
			return xml(`<DescribeInstancesResponse><reservationSet></reservationSet></DescribeInstancesResponse>`)
		}
		return faultproxy.AWSError(r.Service, 400, "InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist")
	}
	p := faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"aws": "http://127.0.0.1:1"}, Name: faultproxy.AWS})
	p.SetFault(answer)
	cloud := newCloud(t, p.URL("aws"), ec2.Options{ListLag: time.Hour})
	_, err := cloud.Launch(t.Context(), good)
	require.NoError(t, err)
	for name, call := range map[string]func(context.Context, string) error{
		"Terminate": cloud.Terminate, "Stop": cloud.Stop, "Start": cloud.Start, "Reboot": cloud.Reboot,
	} {
		err := call(t.Context(), "i-1")
		require.Error(t, err, name)
		require.NotErrorIs(t, err, provider.ErrNotFound, name)
	}
	require.NoError(t, cloud.Terminate(t.Context(), "i-2"), "an unknown one is gone")

	hasty, _ := canned(t, answer)
	_, err = hasty.Launch(t.Context(), good)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return hasty.Terminate(t.Context(), "i-1") == nil }, time.Minute, 10*time.Millisecond,
		"it is gone when the lists have caught up")
}

// What is asked of EC2: a request signed and filtered, with the token, the tags and the session tokens for metadata.
func TestRequests(t *testing.T) {
	var got []faultproxy.Request
	cloud, _ := canned(t, func(r faultproxy.Request) faultproxy.Fault {
		got = append(got, r)
		if r.Operation == "DescribeInstances" {
			return xml(`<DescribeInstancesResponse><reservationSet></reservationSet></DescribeInstancesResponse>`)
		}
		return faultproxy.NoCapacity(r)
	})
	l := good
	l.Spot, l.KeyPair, l.Network, l.SecurityGroups = true, "deploy", "subnet-1", []string{"sg-1"}
	l.UserData, l.Tags = provider.Secret("#!/bin/sh"), map[string]string{"scalr:farm": "shop"}
	_, err := cloud.Launch(t.Context(), l)
	require.ErrorIs(t, err, provider.ErrCapacity)
	form := got[0].Form
	for field, want := range map[string]string{
		"ClientToken": "web-1-a", "ImageId": "ami-1", "InstanceType": "m7g.large", "Placement.AvailabilityZone": "eu-central-1a", "SubnetId": "subnet-1",
		"SecurityGroupId.1": "sg-1", "KeyName": "deploy", "MinCount": "1", "MaxCount": "1", "MetadataOptions.HttpTokens": "required",
		"InstanceMarketOptions.MarketType": "spot", "InstanceMarketOptions.SpotOptions.SpotInstanceType": "one-time", "UserData": "IyEvYmluL3No",
		"TagSpecification.1.ResourceType": "instance", "TagSpecification.1.Tag.1.Key": "Name", "TagSpecification.1.Tag.1.Value": "web-1",
	} {
		require.Equal(t, want, form.Get(field), field)
	}
	require.NotContains(t, form.Encode(), "secret", "nothing but the signature shows the key")

	_, err = cloud.Instances(t.Context(), map[string]string{"scalr:farm": `a*b?c\d`})
	require.NoError(t, err)
	form = got[1].Form
	require.Equal(t, "tag:scalr:farm", form.Get("Filter.1.Name"))
	require.Equal(t, `a\*b\?c\\d`, form.Get("Filter.1.Value.1"), "wildcards are taken literally")
	require.Equal(t, "1000", form.Get("MaxResults"))
	require.Empty(t, form.Get("InstanceId.1"))
}

// A half-read list is never returned.
func TestListIsCompleteOrAnError(t *testing.T) {
	cloud, _ := canned(t, func(r faultproxy.Request) faultproxy.Fault {
		if r.Form.Get("NextToken") == "" {
			return xml(`<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></item></reservationSet><nextToken>2</nextToken></DescribeInstancesResponse>`)
		}
		return faultproxy.AWSError("ec2", 400, "InvalidNextToken", "expired")
	})
	list, err := cloud.Instances(t.Context(), nil)
	require.Error(t, err)
	require.Empty(t, list)
}

// All calls pause when one is throttled.
func TestThrottledCallsPause(t *testing.T) {
	var mu sync.Mutex
	var at []time.Time
	cloud, p := canned(t, func(r faultproxy.Request) faultproxy.Fault {
		mu.Lock()
		defer mu.Unlock()
		at = append(at, time.Now())
		if len(at) == 1 {
			return faultproxy.Throttled(r)
		}
		return xml(`<DescribeInstancesResponse><reservationSet></reservationSet></DescribeInstancesResponse>`)
	})
	first := make(chan error, 1)
	go func() {
		_, err := cloud.Instances(t.Context(), nil)
		first <- err
	}()
	require.Eventually(t, func() bool { return p.Count("", "") > 0 }, time.Minute, time.Millisecond)
	time.Sleep(20 * time.Millisecond) // the reply reaches the client; if it has not, the other call only comes sooner
	_, err := cloud.Addresses(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, <-first)
	require.Len(t, at, 3)
}

// Nobody's credentials reach an error, and to have none is an error at once.
func TestNoCredentials(t *testing.T) {
	conf := config("http://127.0.0.1:1")
	asked := 0
	conf.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		asked++
		return aws.Credentials{}, errors.New("no role found")
	})
	cloud := newCloud(t, "", ec2.Options{Config: conf})
	_, err := cloud.Launch(t.Context(), good)
	require.ErrorIs(t, err, provider.ErrAuth)
	require.NotErrorIs(t, err, provider.ErrAmbiguous)
	require.ErrorContains(t, err, "no role found")
	require.Equal(t, 1, asked)
	require.NotContains(t, fmt.Sprintf("%+v", newCloud(t, "http://127.0.0.1:1", ec2.Options{})), "secret")
}

// A region that does not exist has no host.
func TestNoSuchRegion(t *testing.T) {
	conf := config("")
	conf.BaseEndpoint, conf.Region = nil, "eu-nowhere-1"
	looks := 0
	conf.HTTPClient = &http.Client{Transport: &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		looks++
		host, _, _ := net.SplitHostPort(addr)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	}}}
	cloud := newCloud(t, "", ec2.Options{Config: conf})
	_, err := cloud.Instances(t.Context(), nil)
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, `Region is "eu-nowhere-1"`)
	require.Equal(t, 1, looks)
	for _, bad := range []string{"frankfurt", "eu_central_1", "eu-central", "https://ec2"} {
		_, err := ec2.New(t.Context(), ec2.Options{Config: conf, Region: bad})
		require.ErrorContains(t, err, "Options.Region is "+fmt.Sprintf("%q", bad))
	}
}

// The default chain finds credentials and region where everybody has them.
func TestDefaultChain(t *testing.T) {
	p := faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"aws": "http://127.0.0.1:1"}, Name: faultproxy.AWS})
	var auth string
	p.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		auth = r.Header.Get("Authorization")
		return xml(`<DescribeAddressesResponse><addressesSet></addressesSet></DescribeAddressesResponse>`)
	})
	dir := t.TempDir()
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-2", "AWS_PROFILE": "",
		"AWS_ENDPOINT_URL": p.URL("aws"), "AWS_CONFIG_FILE": dir + "/config", "AWS_SHARED_CREDENTIALS_FILE": dir + "/credentials"} {
		t.Setenv(k, v)
	}
	cloud, err := ec2.New(t.Context(), ec2.Options{})
	require.NoError(t, err)
	require.Equal(t, "eu-west-2", cloud.Region())
	_, err = cloud.Addresses(t.Context(), nil)
	require.NoError(t, err)
	require.Contains(t, auth, "Credential=AKIAEXAMPLE/")
	require.Contains(t, auth, "/eu-west-2/ec2/")
}

// Bad input is refused before anything is asked.
func TestBadInput(t *testing.T) {
	cloud, p := canned(t, func(faultproxy.Request) faultproxy.Fault { return faultproxy.Status(500, "") })
	launch := func(change func(*provider.Launch)) error {
		l := good
		change(&l)
		_, err := cloud.Launch(t.Context(), l)
		return err
	}
	_, drain := cloud.CreateBalancer(t.Context(), provider.BalancerSpec{Token: "a", Protocol: "http", Port: 80, Drain: 2 * time.Hour})
	_, path := cloud.CreateBalancer(t.Context(), provider.BalancerSpec{Token: "a", Protocol: "http", Port: 80, HealthPath: "/" + strings.Repeat("x", 200)})
	for field, err := range map[string]error{
		"HealthPath has 201 bytes": path,
		"UserData":                 launch(func(l *provider.Launch) { l.UserData = make([]byte, 16385) }),
		"Tags":                     launch(func(l *provider.Launch) { l.Tags = map[string]string{"Name": "x"} }),
		"Tags has":                 launch(func(l *provider.Launch) { l.Tags = map[string]string{"aws:x": "x"} }),
		"Drain is 2h":              drain,
		"balancer is":              cloud.RegisterTarget(t.Context(), "web", "i-1"),
		"the balancer ":            cloud.DeleteBalancer(t.Context(), "web"),
	} {
		require.ErrorIs(t, err, provider.ErrInvalid, field)
		require.ErrorContains(t, err, field)
	}
	require.Zero(t, p.Count("", ""))
	_, err := ec2.New(t.Context(), ec2.Options{Config: config(""), ListLag: -1, Subnets: map[string]string{"eu-central-1a": ""}})
	require.ErrorContains(t, err, "Options.ListLag")
	require.ErrorContains(t, err, "Options.Subnets")
}

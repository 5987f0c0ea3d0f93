package faultproxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
)

// ec2 makes instances i-1, i-2, … and lists them.
func ec2(t *testing.T, layers ...faultproxy.Layer) *faultproxy.Proxy {
	var made atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		switch r.PostForm.Get("Action") {
		case "RunInstances":
			fmt.Fprintf(w, "<RunInstancesResponse><instancesSet><item><instanceId>i-%d</instanceId></item></instancesSet></RunInstancesResponse>", made.Add(1))
		case "DescribeInstances":
			fmt.Fprint(w, "<DescribeInstancesResponse><reservationSet>")
			for n := range made.Load() {
				fmt.Fprintf(w, "<item><instancesSet><item><instanceId>i-%d</instanceId></item></instancesSet></item>", n+1)
			}
			fmt.Fprint(w, "</reservationSet></DescribeInstancesResponse>")
		}
	}))
	t.Cleanup(s.Close)
	return faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"aws": s.URL}, Name: faultproxy.AWS, Layers: layers})
}

func call(t *testing.T, p *faultproxy.Proxy, parameters ...string) (int, string) {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		form.Set(parameters[i], parameters[i+1])
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL("aws")+"/", strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=key/20260102/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestClientTokens(t *testing.T) {
	p := ec2(t, faultproxy.ClientTokens())
	_, one := call(t, p, "Action", "RunInstances", "ClientToken", "a", "ImageId", "x")
	require.Contains(t, one, "i-1")
	_, again := call(t, p, "Action", "RunInstances", "ClientToken", "a", "ImageId", "x")
	require.Equal(t, one, again)
	code, mismatch := call(t, p, "Action", "RunInstances", "ClientToken", "a", "ImageId", "y")
	require.Equal(t, 400, code)
	require.Contains(t, mismatch, "IdempotentParameterMismatch")
	_, two := call(t, p, "Action", "RunInstances", "ClientToken", "b", "ImageId", "x")
	require.Contains(t, two, "i-2")
	_, three := call(t, p, "Action", "RunInstances", "ImageId", "x")
	require.Contains(t, three, "i-3")
	require.Equal(t, 5, p.Count("ec2", "RunInstances"))
}

func TestYoung(t *testing.T) {
	p := ec2(t, faultproxy.Young(300*time.Millisecond))
	began := time.Now()
	call(t, p, "Action", "RunInstances")
	for {
		_, list := call(t, p, "Action", "DescribeInstances")
		code, body := call(t, p, "Action", "TerminateInstances", "InstanceId.1", "i-1")
		if strings.Contains(list, "i-1") {
			require.Equal(t, 200, code)
			require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond)
			break
		}
		require.Equal(t, "<DescribeInstancesResponse><reservationSet></reservationSet></DescribeInstancesResponse>", list)
		if code != 200 { // it may have grown up in between
			require.Contains(t, body, "InvalidInstanceID.NotFound")
		}
		require.Less(t, time.Since(began), time.Minute)
	}
}

func TestAWSFaults(t *testing.T) {
	p := ec2(t)
	p.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		if r.Operation == "RunInstances" {
			return faultproxy.NoCapacity(r)
		}
		return faultproxy.Throttled(r)
	})
	code, body := call(t, p, "Action", "RunInstances", "InstanceType", "m7g.large", "Placement.AvailabilityZone", "eu-west-1a")
	require.Equal(t, 500, code)
	require.Contains(t, body, "InsufficientInstanceCapacity")
	require.Contains(t, body, "m7g.large")
	code, body = call(t, p, "Action", "DescribeInstances")
	require.Equal(t, 503, code)
	require.Contains(t, body, "RequestLimitExceeded")
}

func TestDropItems(t *testing.T) {
	text := `<?xml version="1.0"?><R xmlns="http://x/"><set><item><id>a</id><deep><item>b</item></deep></item> <item><id>c</id></item></set><item>b</item></R>`
	require.Equal(t, `<?xml version="1.0"?><R xmlns="http://x/"><set> <item><id>c</id></item></set><item>b</item></R>`,
		string(faultproxy.DropItems([]byte(text), "set", ">b<")))
	require.Equal(t, text, string(faultproxy.DropItems([]byte(text), "set", ">z<")))
}

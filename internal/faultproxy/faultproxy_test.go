package faultproxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cloud counts what reaches it and answers with its own URL.
type cloud struct {
	*httptest.Server
	seen atomic.Int64
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.seen.Add(1)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s; next: %s/page2", r.Method, r.URL.RequestURI(), body, c.URL)
	}))
	t.Cleanup(c.Close)
	return c
}

func post(t *testing.T, ctx context.Context, url, body string) (int, string, error) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(got), err
}

func TestFaults(t *testing.T) {
	c := newCloud(t)
	p := faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"compute": c.URL}, Rewrite: true})
	at := p.URL("compute") + "/v2.1/servers?name=a%20b"

	code, body, err := post(t, t.Context(), at, "x")
	require.NoError(t, err)
	require.Equal(t, 200, code)
	require.Equal(t, "POST /v2.1/servers?name=a%20b x; next: "+p.URL("compute")+"/page2", body)

	for n, f := range []struct {
		fault   faultproxy.Fault
		reaches int64
		code    int
	}{
		{faultproxy.Fault{}, 1, 200},
		{faultproxy.Lose, 1, 0},
		{faultproxy.Refuse, 0, 0},
		{faultproxy.Status(503, "busy"), 0, 503},
		{faultproxy.Fault{Delay: time.Millisecond, Late: time.Millisecond}, 1, 200},
	} {
		var saw faultproxy.Request
		p.SetFault(func(r faultproxy.Request) faultproxy.Fault {
			saw = r
			return f.fault
		})
		before := c.seen.Load()
		code, _, err := post(t, t.Context(), at, "x")
		require.Equal(t, f.code == 0, err != nil, "%+v: %v", f.fault, err)
		require.Equal(t, f.code, code, "%+v", f.fault)
		require.Equal(t, f.reaches, c.seen.Load()-before, "%+v", f.fault)
		p.SetFault(nil)
		require.Equal(t, "x", string(saw.Body))
		require.Equal(t, n+2, saw.Number)
	}
	require.Equal(t, 6, p.Count("compute", "POST /v2.1/servers"))
	require.Equal(t, 6, p.Count("", ""))
}

// A client that gives up does not stop the server, which is what makes an outcome unknown.
func TestServerGoesOn(t *testing.T) {
	release := make(chan struct{})
	done := make(chan struct{})
	p := faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"x": newCloud(t).URL}, Layers: []faultproxy.Layer{
		func(next faultproxy.Handler) faultproxy.Handler {
			return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
				defer close(done)
				<-release
				require.NoError(t, ctx.Err())
				return next(ctx, r)
			}
		},
	}})
	ctx, cancel := context.WithCancel(t.Context())
	p.SetFault(func(faultproxy.Request) faultproxy.Fault {
		cancel()
		return faultproxy.Fault{}
	})
	_, _, err := post(t, ctx, p.URL("x"), "")
	require.ErrorIs(t, err, context.Canceled)
	close(release)
	<-done
}

func TestUnknownTarget(t *testing.T) {
	p := faultproxy.New(t, faultproxy.Options{})
	code, body, err := post(t, t.Context(), p.URL("x"), "")
	require.NoError(t, err)
	require.Equal(t, 502, code)
	require.Contains(t, body, `no target "x"`)
}

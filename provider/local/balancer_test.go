//go:build linux

package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// web is a web server on port 8080 that says which instance it is. It is sick while there is a file "sick" in its directory,
// and a slow request ends when there is a file "go".
func web() {
	there := func(name string) bool { _, err := os.Stat(name); return err == nil }
	var served atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		if there("sick") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		io.WriteString(w, os.Getenv("SCALR_INSTANCE"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Instance", os.Getenv("SCALR_INSTANCE"))
		http.NewResponseController(w).Flush()
		for !there("go") && r.Context().Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		io.WriteString(w, "done")
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if there("sick") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/served", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, served.Load()) })
	fmt.Println(http.ListenAndServe(os.Getenv("SCALR_ADDR")+":8080", mux))
	os.Exit(1)
}

func webImage() local.Image { return local.Image{Port: 8080, Command: program("web")} }

var httpSpec = provider.BalancerSpec{Token: "lb", Name: "lb", Protocol: "http", Port: 8000, TargetPort: 8080, HealthPath: "/healthz",
	Drain: time.Minute, Tags: map[string]string{"a": "b"}}

func balance(t testing.TB, c *local.Cloud, s provider.BalancerSpec) provider.Balancer {
	t.Helper()
	testenv.Need(t, "haproxy")
	b, err := c.CreateBalancer(t.Context(), s)
	require.NoError(t, err)
	require.True(t, b.Ready, "it takes connections when it has been created")
	return b
}

// webs launches web servers behind a balancer.
func webs(t testing.TB, c *local.Cloud, b provider.Balancer, tokens ...string) (list []provider.Instance) {
	t.Helper()
	for _, token := range tokens {
		i := untilState(t, c, launch(t, c, token).ID, provider.Running)
		require.NoError(t, c.RegisterTarget(t.Context(), b.ID, i.ID))
		list = append(list, i)
	}
	return list
}

// seen gives a balancer as it is listed.
func seen(t testing.TB, c *local.Cloud, id string) provider.Balancer {
	t.Helper()
	all, err := c.Balancers(t.Context(), nil)
	require.NoError(t, err)
	for _, b := range all {
		if b.ID == id {
			return b
		}
	}
	require.Fail(t, "not listed", id)
	return provider.Balancer{}
}

// targetState is "" for what is no target.
func targetState(t testing.TB, c *local.Cloud, b, instance string) provider.TargetState {
	t.Helper()
	for _, x := range seen(t, c, b).Targets {
		if x.Instance == instance {
			return x.State
		}
	}
	return ""
}

func untilTarget(t testing.TB, c *local.Cloud, b, instance string, want provider.TargetState) {
	t.Helper()
	until(t, fmt.Sprintf("target state %q", want), func() bool { return targetState(t, c, b, instance) == want })
}

func site(b provider.Balancer, path string) string {
	return "http://" + net.JoinHostPort(b.Host, strconv.Itoa(b.Port)) + path
}

// fetch gets a page, and how many requests a server has answered.
func fetch(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

func get(t testing.TB, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := testContext(t)
	defer cancel()
	body, err := fetch(ctx, client, url)
	require.NoError(t, err)
	return body
}

// crew is people who ask for pages all the time.
type crew struct {
	mu     sync.Mutex
	began  int64            // requests, so far
	first  map[string]int64 // by instance, the first request that it has answered, by when it began
	last   map[string]int64 // the last one
	failed []error
	end    func()
}

// visit starts a crew. Half of them keep their connections.
func visit(t testing.TB, url string) *crew {
	c := &crew{first: map[string]int64{}, last: map[string]int64{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			transport := &http.Transport{DisableKeepAlives: n%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: time.Minute}
			for ctx.Err() == nil {
				c.mu.Lock()
				c.began++
				number := c.began
				c.mu.Unlock()
				body, err := fetch(context.WithoutCancel(ctx), client, url)
				c.mu.Lock()
				if err != nil {
					c.failed = append(c.failed, err)
				} else {
					if _, known := c.first[body]; !known {
						c.first[body] = number
					}
					c.last[body] = max(c.last[body], number)
				}
				c.mu.Unlock()
			}
		})
	}
	c.end = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(c.end)
	return c
}

// now is the number of the last request that has begun.
func (c *crew) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.began
}

// servedBy reports whether the instance has answered a request that began after the given one.
func (c *crew) servedBy(instance string, after int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[instance] > after
}

// slowly begins a slow request and says who has it, and then how it ended.
func slowly(t testing.TB, url string) (instance string, end <-chan string) {
	t.Helper()
	ctx, cancel := testContext(t)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	require.NoError(t, err)
	said := make(chan string, 1)
	go func() {
		defer cancel()
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		said <- fmt.Sprint(string(body), " ", err)
	}()
	return resp.Header.Get("Instance"), said
}

// Targets come and go, and one is drained, while people ask for pages all the time: no request fails.
func TestNoRequestFailsWhileTargetsComeAndGo(t *testing.T) {
	c := cloud(t, webImage())
	b := balance(t, c, httpSpec)
	first := webs(t, c, b, "one", "two")
	for _, i := range first {
		untilTarget(t, c, b.ID, i.ID, provider.TargetHealthy)
	}
	people := visit(t, site(b, "/"))
	until(t, "both serve", func() bool { return people.servedBy(first[0].ID, 0) && people.servedBy(first[1].ID, 0) })

	drained, end := slowly(t, site(b, "/slow"))
	require.Contains(t, []string{first[0].ID, first[1].ID}, drained)
	require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, drained))
	told := people.now()
	assert.Equal(t, provider.TargetDraining, targetState(t, c, b.ID, drained), "a request is open")

	third := webs(t, c, b, "three")[0]
	until(t, "the third one serves", func() bool { return people.servedBy(third.ID, 0) })
	until(t, "many requests are served", func() bool { return people.now() > told+200 })
	assert.False(t, people.servedBy(drained, told), "a target that is being drained gets no new request")
	assert.Equal(t, provider.TargetDraining, targetState(t, c, b.ID, drained), "the request is still open")
	select {
	case how := <-end:
		assert.Fail(t, "the slow request was cut", how)
	default:
	}
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir(drained), "go"), nil, 0o600))
	assert.Equal(t, "done <nil>", <-end)
	untilTarget(t, c, b.ID, drained, "")
	require.NoError(t, c.Terminate(t.Context(), drained))

	// The same once more, by a target that comes back before it has been drained and one that comes back afterwards.
	back, end := slowly(t, site(b, "/slow"))
	require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, back))
	require.NoError(t, c.RegisterTarget(t.Context(), b.ID, back))
	told = people.now()
	until(t, "it serves again", func() bool { return people.servedBy(back, told) })
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir(back), "go"), nil, 0o600))
	assert.Equal(t, "done <nil>", <-end)
	for range 5 {
		require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, third.ID))
		untilTarget(t, c, b.ID, third.ID, "")
		require.NoError(t, c.RegisterTarget(t.Context(), b.ID, third.ID))
		told = people.now()
		until(t, "it serves again", func() bool { return people.servedBy(third.ID, told) })
	}
	people.end()
	assert.Empty(t, people.failed, "of %d requests", people.began)
	t.Logf("%d requests", people.began)
}

func TestUnhealthyTargetsGetNoRequest(t *testing.T) {
	c := cloud(t, webImage())
	b := balance(t, c, httpSpec)
	sick := untilState(t, c, launch(t, c, "sick").ID, provider.Running)
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir(sick.ID), "sick"), nil, 0o600))
	well := webs(t, c, b, "well")[0]
	untilTarget(t, c, b.ID, well.ID, provider.TargetHealthy)
	people := visit(t, site(b, "/")) // not even before the first check gets it any
	until(t, "there are requests", func() bool { return people.servedBy(well.ID, 0) })
	require.NoError(t, c.RegisterTarget(t.Context(), b.ID, sick.ID))
	untilTarget(t, c, b.ID, sick.ID, provider.TargetUnhealthy)
	people.end()
	assert.Empty(t, people.failed)
	for _, x := range seen(t, c, b.ID).Targets {
		if x.Instance == sick.ID {
			assert.Equal(t, "Layer7 wrong status, code 500: Internal Server Error", x.Reason)
		}
	}
	for range 50 {
		require.Equal(t, well.ID, get(t, site(b, "/")))
	}
	assert.Equal(t, "0", get(t, "http://"+sick.Private.String()+":8080/served"), "it has got no request at all")

	require.NoError(t, os.Remove(filepath.Join(c.Dir(sick.ID), "sick")))
	untilTarget(t, c, b.ID, sick.ID, provider.TargetHealthy)
	until(t, "it serves", func() bool { return get(t, site(b, "/")) == sick.ID })

	// One that is switched off is no longer healthy, and a terminated one no target.
	require.NoError(t, c.Stop(t.Context(), sick.ID))
	assert.Equal(t, provider.TargetUnhealthy, targetState(t, c, b.ID, sick.ID))
	require.NoError(t, c.Terminate(t.Context(), sick.ID))
	assert.Equal(t, provider.TargetState(""), targetState(t, c, b.ID, sick.ID))
	require.Equal(t, well.ID, get(t, site(b, "/")))
}

func TestDrainTimeIsTheLimit(t *testing.T) {
	c := cloud(t, webImage())
	s := httpSpec
	s.Drain = 0
	b := balance(t, c, s)
	i := webs(t, c, b, "one")[0]
	untilTarget(t, c, b.ID, i.ID, provider.TargetHealthy)
	who, end := slowly(t, site(b, "/slow"))
	require.Equal(t, i.ID, who)
	require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, i.ID))
	assert.NotContains(t, <-end, "done", "the request is cut")
	assert.Empty(t, seen(t, c, b.ID).Targets)
}

func TestTCPBalancer(t *testing.T) {
	c := cloud(t, serverImage())
	b := balance(t, c, provider.BalancerSpec{Token: "lb", Protocol: "tcp", Port: 8080})
	i := webs(t, c, b, "one")[0]
	untilTarget(t, c, b.ID, i.ID, provider.TargetHealthy)
	conn, err := net.Dial("tcp", net.JoinHostPort(b.Host, "8080"))
	require.NoError(t, err)
	defer conn.Close()
	said, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, i.ID+"\n", string(said))
	until(t, "the connection is counted, and no health check", func() bool {
		n, err := c.Requests(t.Context(), b.ID)
		require.NoError(t, err)
		return n == 1
	})
}

func TestRequestsAreCounted(t *testing.T) {
	c := cloud(t, webImage())
	b := balance(t, c, httpSpec)
	i := webs(t, c, b, "one")[0]
	untilTarget(t, c, b.ID, i.ID, provider.TargetHealthy)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for range 7 { // on one connection
		_, err := fetch(t.Context(), &http.Client{Transport: transport}, site(b, "/"))
		require.NoError(t, err)
	}
	until(t, "each request is counted, and no health check", func() bool {
		n, err := c.Requests(t.Context(), b.ID)
		require.NoError(t, err)
		return n == 7
	})
}

// A balancer whose process dies is started again by whoever looks next, with the targets that it had.
func TestBalancerComesBack(t *testing.T) {
	c := cloud(t, webImage())
	b := balance(t, c, httpSpec)
	list := webs(t, c, b, "one", "two")
	require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, list[1].ID))
	untilTarget(t, c, b.ID, list[1].ID, "")
	require.NoError(t, c.Signal(t.Context(), b.ID, syscall.SIGKILL))
	until(t, "it is there", func() bool { return seen(t, c, b.ID).Ready })
	untilTarget(t, c, b.ID, list[0].ID, provider.TargetHealthy)
	assert.Len(t, seen(t, c, b.ID).Targets, 1)
	assert.Equal(t, list[0].ID, get(t, site(b, "/")))
	again, err := c.CreateBalancer(t.Context(), httpSpec)
	require.NoError(t, err)
	assert.Equal(t, b.ID, again.ID)
	assert.Equal(t, b.Host, again.Host)
}

func TestBalancerRefuses(t *testing.T) {
	c := cloud(t, webImage())
	testenv.Need(t, "haproxy")
	for field, change := range map[string]func(*provider.BalancerSpec){
		"Networks":   func(s *provider.BalancerSpec) { s.Networks = []string{"n"} },
		"HealthPath": func(s *provider.BalancerSpec) { s.HealthPath = "/a b" },
		"1024":       func(s *provider.BalancerSpec) { s.HealthPath = "/" + strings.Repeat("a", 1024) },
		"0xa":        func(s *provider.BalancerSpec) { s.HealthPath = "/\nglobal" },
	} {
		s := httpSpec
		change(&s)
		_, err := c.CreateBalancer(t.Context(), s)
		assert.ErrorIs(t, err, provider.ErrInvalid)
		assert.ErrorContains(t, err, field)
	}
	long := newCloud(t, local.Options{Dir: filepath.Join(testenv.Dir(t), strings.Repeat("d", 100))})
	_, err := long.CreateBalancer(t.Context(), httpSpec)
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, "Options.Dir")

	s := httpSpec
	s.HealthPath = `/a'b\"#$X${HOME}%[x]?y=%20`
	b := balance(t, c, s)
	i := launch(t, c, "t")
	for name, err := range map[string]error{
		"no balancer": c.RegisterTarget(t.Context(), i.ID, i.ID),
		"no instance": c.RegisterTarget(t.Context(), b.ID, b.ID),
		"none":        c.DeregisterTarget(t.Context(), "b-none", i.ID),
	} {
		assert.ErrorIs(t, err, provider.ErrNotFound, name)
	}
	// It is no instance.
	require.NoError(t, c.Terminate(t.Context(), b.ID))
	require.NoError(t, c.Stop(t.Context(), b.ID))
	require.ErrorIs(t, c.Reboot(t.Context(), b.ID), provider.ErrNotFound)
	_, err = c.RunCommand(t.Context(), b.ID, provider.Command{Args: []string{"true"}})
	require.ErrorIs(t, err, provider.ErrNotFound)
	require.NoError(t, c.DeleteBalancer(t.Context(), i.ID))
	assert.True(t, seen(t, c, b.ID).Ready)
	assert.NotEmpty(t, testenv.Processes(i.ID))

	require.NoError(t, c.DeleteBalancer(t.Context(), b.ID))
	assert.Empty(t, testenv.Processes(b.ID))
	assert.NoDirExists(t, c.Dir(b.ID))
	left, err := filepath.Glob(filepath.Join(filepath.Dir(c.Dir("x")), "state", b.ID+"*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestBalancerWithoutHAProxy(t *testing.T) {
	c := cloud(t, sleepImage())
	c.SetHAProxy("scalr-no-such-program")
	_, err := c.CreateBalancer(t.Context(), httpSpec)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "Debian package haproxy")
	all, err := c.Balancers(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, all)
	launch(t, c, "t")
}

// A balancer that cannot start says why, and leaves nothing.
func TestBalancerThatCannotStart(t *testing.T) {
	testenv.Need(t, "haproxy")
	c := cloud(t, sleepImage())
	var l net.Listener
	c.SetStep(func(step string) {
		if step == "prepared" { // somebody takes the port
			files, _ := filepath.Glob(filepath.Join(filepath.Dir(c.Dir("x")), "b-*", "haproxy.cfg"))
			config, _ := os.ReadFile(files[0])
			_, rest, _ := strings.Cut(string(config), "\tbind ")
			addr, _, _ := strings.Cut(rest, "\n")
			var err error
			l, err = net.Listen("tcp", addr)
			require.NoError(t, err)
		}
	})
	_, err := c.CreateBalancer(t.Context(), httpSpec)
	require.ErrorContains(t, err, "cannot bind socket")
	l.Close()
	left, err := os.ReadDir(filepath.Dir(c.Dir("x")))
	require.NoError(t, err)
	assert.Len(t, left, 1, "the state")
	c.SetStep(func(string) {})
	balance(t, c, httpSpec)
}

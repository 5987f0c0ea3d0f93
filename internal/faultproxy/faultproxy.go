// Package faultproxy stands between a client and the HTTP API of a cloud, and makes of a well-behaved server what clouds
// are: replies that are lost, calls that are throttled or fail, pages that come late.
//
//	p := faultproxy.New(t, faultproxy.Options{Targets: map[string]string{"compute": "http://127.0.0.1:8774"}})
//	p.SetFault(func(r faultproxy.Request) faultproxy.Fault {
//		if r.Operation == "POST /v2.1/servers" && r.Number == 1 {
//			return faultproxy.Lose // the server is created, and nobody hears of it
//		}
//		return faultproxy.Fault{}
//	})
//	client.BaseURL = p.URL("compute")
//
// A [Line] does so for any server over TCP, and is cut.
//
// What a fault hits is chosen by a hook over the request, so that a test names it and a property draws it. Beside faults a
// proxy has layers: they change what the server does where it differs from the cloud that it stands for ([Layer]).
package faultproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// most bounds the size of a request or a reply.
const most = 64 << 20

// Options say what a proxy stands in front of.
type Options struct {
	// Targets are the base URLs of what it forwards to, by name. Each is reached at its own [Proxy.URL].
	Targets map[string]string
	// Name tells the service and the operation of a request; nil takes the target's name, and the method and path:
	// "compute", "POST /v2.1/servers". See [AWS].
	Name func(Request) (service, operation string)
	// Layers handle a request that no fault has hit, the first one first, before it is forwarded.
	Layers []Layer
	// Rewrite replaces the targets' URLs by the proxy's own in the bodies of replies: catalogs, and links to next pages.
	Rewrite bool
}

// Request is one request of a client.
type Request struct {
	Target             string // the name in Options.Targets
	Service, Operation string // as Options.Name says
	Number             int    // 1 for the first request with this service and operation
	Method, Path       string // the path with its query, without the target's base
	Header             http.Header
	Body               []byte
	Form               url.Values // of a body of type application/x-www-form-urlencoded; nil otherwise
}

// Response is the reply to one.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Handler answers a request. A Layer that changes the Form of a request also changes its Body, see [Request.WithForm].
type Handler func(context.Context, Request) (Response, error)

// Layer changes what a server does. It may make requests of its own with next.
type Layer func(next Handler) Handler

// Fault is what becomes of a request; the zero Fault lets it pass.
type Fault struct {
	// Refuse closes the connection before the server has seen the request.
	Refuse bool
	// Lose forwards the request and closes the connection instead of replying.
	Lose bool
	// Response, if its Status is not 0, is the reply; the server does not see the request.
	Response Response
	// Delay is waited for first. A client that gives up meanwhile has sent nothing to the server.
	Delay time.Duration
	// Late is waited for between the server's reply and the client's.
	Late time.Duration
}

// Lose and Refuse are the faults without a reply.
var (
	Lose   = Fault{Lose: true}
	Refuse = Fault{Refuse: true}
)

// Status is the fault of a reply with a status and a plain body.
func Status(code int, body string) Fault {
	return Fault{Response: Response{Status: code, Body: []byte(body)}}
}

// Proxy is a running proxy, on a loopback address. It ends with the test.
type Proxy struct {
	o       Options
	handle  Handler
	server  *httptest.Server
	forward http.Client

	mu     sync.Mutex
	fault  func(Request) Fault
	counts map[[2]string]int
}

// New starts a proxy.
func New(t testing.TB, o Options) *Proxy {
	t.Helper()
	p := &Proxy{o: o, counts: map[[2]string]int{}}
	p.o.Targets = maps.Clone(o.Targets)
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	p.forward = http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	p.handle = p.pass
	for _, layer := range slices.Backward(o.Layers) {
		p.handle = layer(p.handle)
	}
	p.server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// URL is where a target is reached through the proxy, without a slash at its end.
func (p *Proxy) URL(target string) string { return p.server.URL + "/" + target }

// SetFault sets the hook; nil ends all faults. It is called for one request at a time, and may hold it by blocking.
func (p *Proxy) SetFault(f func(Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Count is how many requests there have been of an operation of a service; empty counts all of them.
func (p *Proxy) Count(service, operation string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, count := range p.counts {
		if (service == "" || k[0] == service) && (operation == "" || k[1] == operation) {
			n += count
		}
	}
	return n
}

// WithForm is the request with other parameters.
func (r Request) WithForm(form url.Values) Request {
	r.Form, r.Body, r.Header = form, []byte(form.Encode()), r.Header.Clone()
	r.Header.Del("Content-Length")
	return r
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	r, err := p.read(in)
	if err != nil {
		http.Error(w, "faultproxy: "+err.Error(), http.StatusBadGateway)
		return
	}
	f := p.note(&r)
	if !wait(in.Context(), f.Delay) || f.Refuse {
		panic(http.ErrAbortHandler)
	}
	reply := f.Response
	if reply.Status == 0 {
		// What the client gives up must go on at the server, as it would in a cloud.
		reply, err = p.handle(context.WithoutCancel(in.Context()), r)
		if err != nil {
			reply = Response{Status: http.StatusBadGateway, Body: []byte("faultproxy: " + err.Error())}
		}
	}
	if !wait(in.Context(), f.Late) || f.Lose {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), reply.Header)
	w.Header().Set("Content-Length", strconv.Itoa(len(reply.Body)))
	w.WriteHeader(reply.Status)
	if in.Method != http.MethodHead {
		w.Write(reply.Body)
	}
}

// read takes the request in.
func (p *Proxy) read(in *http.Request) (Request, error) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(in.URL.EscapedPath(), "/"), "/")
	if _, ok := p.o.Targets[name]; !ok {
		return Request{}, fmt.Errorf("there is no target %q", name)
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, in.Body, most))
	if err != nil {
		return Request{}, err
	}
	r := Request{Target: name, Service: name, Operation: in.Method + " /" + rest, Method: in.Method, Path: "/" + rest,
		Header: in.Header.Clone(), Body: body}
	if in.URL.RawQuery != "" {
		r.Path += "?" + in.URL.RawQuery
	}
	if strings.HasPrefix(in.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		if r.Form, err = url.ParseQuery(string(body)); err != nil {
			return Request{}, err
		}
	}
	if p.o.Name != nil {
		r.Service, r.Operation = p.o.Name(r)
	}
	return r, nil
}

// note counts the request and asks the hook.
func (p *Proxy) note(r *Request) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := [2]string{r.Service, r.Operation}
	p.counts[key]++
	r.Number = p.counts[key]
	if p.fault == nil {
		return Fault{}
	}
	return p.fault(*r)
}

// hopByHop are the headers of one connection (RFC 9110, section 7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// pass forwards a request.
func (p *Proxy) pass(ctx context.Context, r Request) (Response, error) {
	out, err := http.NewRequestWithContext(ctx, r.Method, strings.TrimSuffix(p.o.Targets[r.Target], "/")+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return Response{}, err
	}
	out.Header = r.Header.Clone()
	for _, h := range hopByHop {
		out.Header.Del(h)
	}
	out.Header.Del("Accept-Encoding") // layers read the replies
	resp, err := p.forward.Do(out)
	if err != nil {
		return Response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, most))
	if err != nil {
		return Response{}, err
	}
	for _, h := range append(hopByHop, "Content-Length") {
		resp.Header.Del(h)
	}
	if p.o.Rewrite {
		for _, name := range slices.Sorted(maps.Keys(p.o.Targets)) {
			body = bytes.ReplaceAll(body, []byte(strings.TrimSuffix(p.o.Targets[name], "/")), []byte(p.URL(name)))
		}
		if l := resp.Header.Get("Location"); l != "" {
			for name, target := range p.o.Targets {
				l = strings.Replace(l, strings.TrimSuffix(target, "/"), p.URL(name), 1)
			}
			resp.Header.Set("Location", l)
		}
	}
	return Response{resp.StatusCode, resp.Header, body}, nil
}

// wait reports whether the client is still there after the time.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

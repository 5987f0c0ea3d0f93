package openstack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
)

const (
	// most bounds the size of an answer.
	most = 256 << 20
	// longest is for how long a call waits by itself when the cloud throttles it.
	longest = 30 * time.Second
)

// gate holds back the requests to a service that has asked for a pause, whoever makes them.
type gate struct {
	next  http.RoundTripper
	mu    sync.Mutex
	until map[string]time.Time // by service
}

// RoundTrip waits and makes the request.
func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	service := serviceOf(r.URL)
	for {
		g.mu.Lock()
		pause := time.Until(g.until[service])
		g.mu.Unlock()
		if pause <= 0 {
			break
		}
		if err := sleep(r.Context(), pause); err != nil {
			return nil, err
		}
	}
	resp, err := g.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests {
		g.mu.Lock()
		if g.until == nil {
			g.until = map[string]time.Time{}
		}
		g.until[service] = time.Now().Add(min(retryAfter(resp.Header, time.Second), longest))
		g.mu.Unlock()
	}
	resp.Body = bounded{io.LimitReader(resp.Body, most), resp.Body}
	return resp, nil
}

// serviceOf tells services apart, which have each a host, a port or a first folder of their own.
func serviceOf(u *url.URL) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return u.Host + "/" + first
}

type bounded struct {
	io.Reader
	io.Closer
}

// retryAfter reads how long the cloud asks to wait (RFC 9110, section 10.2.3).
func retryAfter(h http.Header, otherwise time.Duration) time.Duration {
	text := h.Get("Retry-After")
	if s, err := strconv.Atoi(text); err == nil && s >= 0 {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(t))
	}
	return otherwise
}

// backOff lets a throttled request be made again: the gate waits. A pause that is longer than a call should take is the
// caller's to wait.
func backOff(ctx context.Context, resp *gophercloud.ErrUnexpectedResponseCode, _ error, _ uint) error {
	pause := retryAfter(resp.ResponseHeader, time.Second)
	if end, ok := ctx.Deadline(); pause > longest || ok && time.Until(end) < pause {
		return *resp
	}
	return ctx.Err()
}

// again lets a request be made again that failed for a moment and has the same effect when it is made twice. A POST has not.
func again(ctx context.Context, method, _ string, _ *gophercloud.RequestOpts, err error, failures uint) error {
	status, answered := statusOf(err)
	if method == http.MethodPost || method == http.MethodPatch || failures > 3 || answered && status < 500 || ctx.Err() != nil {
		return err
	}
	if sleep(ctx, 100*time.Millisecond<<failures) != nil {
		return err
	}
	return nil
}

// sleep waits, and fails if the context ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poll looks every so often, ever less so, until look is content, fails or the context ends.
func poll(ctx context.Context, look func() (bool, error)) error {
	for pause := 200 * time.Millisecond; ; pause = min(pause*3/2, 5*time.Second) {
		if done, err := look(); done || err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// list follows all pages of a list. The SDK's own pager decodes each page into maps, encodes it again and decodes that: ten
// times the memory where a project has thousands of servers.
func list[T any](ctx context.Context, sc *gophercloud.ServiceClient, key string, q url.Values, path ...string) ([]T, error) {
	base := sc.ServiceURL(path...)
	var all []T
	for seen := map[string]bool{}; ; {
		query := q.Encode()
		if seen[query] {
			return nil, fmt.Errorf("the list of %s has no end: its page %q follows itself", key, query)
		}
		seen[query] = true
		at := base
		if query != "" {
			at += "?" + query
		}
		var page map[string]json.RawMessage
		if _, err := sc.Get(ctx, at, &page, &gophercloud.RequestOpts{OkCodes: []int{http.StatusOK}}); err != nil {
			return nil, err
		}
		items, ok := page[key]
		if !ok {
			return nil, fmt.Errorf("the list of %s has no %q", key, key)
		}
		var some []T
		if err := json.Unmarshal(items, &some); err != nil {
			return nil, fmt.Errorf("the list of %s: %w", key, err)
		}
		if all == nil {
			all = some
		} else {
			all = append(all, some...)
		}
		next, err := nextPage(page, key)
		if err != nil || next == nil {
			return all, err
		}
		q = next
	}
}

// nextPage gives the query of the page after this one, or nil. Hosts in links are often wrong behind a proxy; the query is
// what counts.
func nextPage(page map[string]json.RawMessage, key string) (url.Values, error) {
	var href string
	var links []struct{ Rel, Href string }
	if raw, ok := page[key+"_links"]; ok {
		if err := json.Unmarshal(raw, &links); err != nil {
			return nil, fmt.Errorf("the links of %s: %w", key, err)
		}
	}
	for _, l := range links {
		if l.Rel == "next" {
			href = l.Href
		}
	}
	if raw, ok := page["next"]; ok { // Glance
		if err := json.Unmarshal(raw, &href); err != nil {
			return nil, fmt.Errorf("the links of %s: %w", key, err)
		}
	}
	if href == "" {
		return nil, nil
	}
	u, err := url.Parse(href)
	if err != nil {
		return nil, fmt.Errorf("the links of %s: %w", key, err)
	}
	return u.Query(), nil
}

// locks let one call at a time work on a thing.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock waits until nobody else has the key.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		other, taken := l.held[key]
		if !taken {
			mine := make(chan struct{})
			l.held[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

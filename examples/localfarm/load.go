package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr/examples/worldcup"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
)

// visitors are the people who use the site. They know its name, www.shop.example, and nothing else.
type visitors struct {
	client *http.Client

	mu       sync.Mutex
	acked    []int         // the rows that were acknowledged
	kill     time.Time     // when the primary was killed
	dead     time.Time     // when it was sure to be dead
	failover time.Duration // from the kill to the first row that was acknowledged by the new primary
	served   int
	failed   int
}

// newVisitors makes clients whose connections are spread over the addresses that the name has.
func newVisitors(dial func(context.Context, string, string) (net.Conn, error)) *visitors {
	return &visitors{client: &http.Client{Timeout: 3 * time.Second,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

func (v *visitors) site(path string) string {
	return "http://www." + strings.TrimSuffix(zone, ".") + ":" + strconv.Itoa(webPort) + path
}

// write posts one row after another until the context ends. A row counts only when the site says that it is stored; a row
// whose fate is not known is never counted and never sent again.
func (v *visitors) write(ctx context.Context) error {
	for id := 1; ctx.Err() == nil; id++ {
		sent := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.site("/rows"), strings.NewReader(url.Values{"id": {strconv.Itoa(id)}}.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if err := v.do(req); err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		v.mu.Lock()
		v.acked = append(v.acked, id)
		// A row that was on its way when the primary was killed may have been acknowledged by it.
		if v.failover == 0 && !v.dead.IsZero() && sent.After(v.dead) {
			v.failover = time.Since(v.kill)
		}
		v.mu.Unlock()
	}
	return nil
}

// browse asks for pages at the rate of the replay until the context ends.
func (v *visitors) browse(ctx context.Context, r *worldcup.Replay) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	at := time.NewTimer(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-at.C:
		}
		at.Reset(time.Duration(float64(time.Minute) * scaledDown / r.Now()))
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.site("/page"), nil)
			if err == nil {
				err = v.do(req)
			}
			if ctx.Err() != nil {
				return
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			v.served++
			if err != nil {
				v.failed++
			}
		})
	}
}

func (v *visitors) do(req *http.Request) error {
	resp, err := v.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}

// rates is the farm's sensor: it asks each web server how many requests it has served, and gives requests a minute, in the
// figures of the trace. A server that does not answer is missing from the samples.
type rates struct {
	client *http.Client

	mu   sync.Mutex
	last map[string]reading
}

type reading struct {
	served int64
	at     time.Time
	rate   float64 // over the second or more before that; negative while it is not known
}

func (s *rates) Read(ctx context.Context, _ string, servers []farm.Server) ([]scale.Sample, error) {
	var wg sync.WaitGroup
	for _, server := range servers {
		wg.Go(func() {
			if served, err := s.ask(ctx, server); err == nil {
				s.note(server.ID, served, time.Now())
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var samples []scale.Sample
	for _, server := range servers {
		if last, known := s.last[server.ID]; known && last.rate >= 0 {
			samples = append(samples, scale.Sample{Instance: server.ID, Value: last.rate, At: last.at})
		}
	}
	return samples, nil
}

// note takes a reading each second: over less than that a rate is noise.
func (s *rates) note(id string, served int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.last[id]
	if !known {
		s.last[id] = reading{served, now, -1}
	} else if d := now.Sub(before.at); d >= time.Second {
		s.last[id] = reading{served, now, float64(served-before.served) / d.Minutes() * scaledDown}
	}
}

func (s *rates) ask(ctx context.Context, server farm.Server) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(server.Private.String(), strconv.Itoa(server.Port))+"/served", nil)
	if err != nil {
		return 0, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, 64)
}

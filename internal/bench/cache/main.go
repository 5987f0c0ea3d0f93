// Command cache measures cache and cache/memcached against real memcached servers, and against bare gomemcache in the same run.
//
//	go run ./internal/bench/cache -json
//
// The last line is a summary. The ratios are the medians of our time over gomemcache's, by turns, with one server: get is one
// key, multi is GetMulti of 100, parallel is 16 goroutines (gomemcache may keep 16 connections). In multi_ratio a turn
// is 20 calls; in multi_ratio_mixed it is one, where each pays for what the other left behind: cold caches, garbage, and a thread of Go's
// scheduler that looks for work on the processor that memcached needs. loads_per_expiry counts loads by
// 64 callers in 8 processes each time that a value expires. stale_sets counts values from before a Delete that were returned
// after it. moved_on_replace counts keys that change their slot when one of ten machines is replaced. outage_p99_ms is over
// all calls of 16 callers, with loads of a millisecond, from the moment on when one of ten servers hangs. near_hit_ns is a hit in
// the near cache. Servers listen on loopback addresses and end with the program.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
	"github.com/scalr-go/scalr/cache/near"
)

type summary struct {
	Summary        bool    `json:"summary"`
	GetRatio       float64 `json:"get_ratio"`
	MultiRatio     float64 `json:"multi_ratio"`
	MultiMixed     float64 `json:"multi_ratio_mixed"`
	ParallelRatio  float64 `json:"parallel_ratio"`
	LoadsPerExpiry float64 `json:"loads_per_expiry"`
	StaleSets      int     `json:"stale_sets"`
	MovedOnReplace int     `json:"moved_on_replace"`
	OutageP99      float64 `json:"outage_p99_ms"`
	NearHit        float64 `json:"near_hit_ns"`
	NearAllocs     float64 `json:"near_hit_allocs"`
	Expiries       int     `json:"expiries"`
	Deletes        int     `json:"deletes"`
	OutageMax      float64 `json:"outage_max_ms"`
	OutageCalls    int     `json:"outage_calls"`
}

func main() {
	asJSON := flag.Bool("json", false, "print the summary only, as a line of JSON")
	worker := flag.String("worker", "", "be one of the processes that wait for a value to expire, on this server")
	only := flag.String("only", "", "measure this only: gomemcache, near, expiry, stale, replace or outage")
	until := flag.Int64("until", 0, "of a worker: when to end, in milliseconds of Unix time")
	flag.Parse()
	var err error
	if *worker != "" {
		err = work(*worker, time.UnixMilli(*until))
	} else {
		err = run(*asJSON, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(asJSON bool, only string) error {
	program, err := exec.LookPath("memcached")
	if err != nil {
		fmt.Fprintln(os.Stderr, "memcached is not installed: apt-get install memcached")
		os.Exit(2)
	}
	f, err := start(program, 11)
	defer f.end()
	if err != nil {
		return err
	}
	s := summary{Summary: true}
	for _, step := range []struct {
		name string
		do   func(*fleet, *summary) error
	}{
		{"gomemcache", against}, {"near", nearHit}, {"expiry", expiry}, {"stale", stale}, {"replace", replace}, {"outage", outage},
	} {
		if only != "" && only != step.name {
			continue
		}
		if err := step.do(f, &s); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if !asJSON {
			fmt.Printf("%-20s %+v\n", step.name, s)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// turns is how many calls each has before it is the other's turn: long enough that a call finds the processor as its own kind
// left it, as in a program that uses one of both, and short enough that both see the same weather.
const turns = 20

// against measures both by turns.
func against(f *fleet, s *summary) error {
	bare := memcache.New(f.servers[0].Addr)
	bare.MaxIdleConns = 16
	defer bare.Close()
	ours, err := memcached.New(memcached.Options{Servers: f.servers[:1], Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer ours.Close()
	bare.Timeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // as a request has
	defer cancel()
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("page:%04d", i))
		if err := ours.Set(ctx, cache.Item{Key: keys[i], Value: make([]byte, 100)}); err != nil {
			return err
		}
	}
	sixteen := func(call func() error) func() error {
		return func() error {
			var wg sync.WaitGroup
			var failed atomic.Pointer[error]
			for range 16 {
				wg.Go(func() {
					for range 20 {
						if err := call(); err != nil {
							failed.Store(&err)
						}
					}
				})
			}
			wg.Wait()
			if err := failed.Load(); err != nil {
				return *err
			}
			return nil
		}
	}
	get := func() error { _, err := bare.Get("page:0042"); return err }
	getOurs := func() error { _, err := ours.Get(ctx, "page:0042"); return err }
	multi := func() error {
		items, err := bare.GetMulti(keys)
		if err == nil && len(items) != 100 {
			err = fmt.Errorf("%d items", len(items))
		}
		return err
	}
	multiOurs := func() error {
		items, err := ours.GetMulti(ctx, keys)
		if err == nil && len(items) != 100 {
			err = fmt.Errorf("%d items", len(items))
		}
		return err
	}
	for _, m := range []struct {
		bare, ours func() error
		rounds     int
		turn       int
		ratio      *float64
	}{
		{get, getOurs, 4000, 1, &s.GetRatio},
		{multi, multiOurs, 2000, turns, &s.MultiRatio},
		{multi, multiOurs, 1000, 1, &s.MultiMixed},
		{sixteen(get), sixteen(getOurs), 100, 1, &s.ParallelRatio},
	} {
		var took [2][]time.Duration
		for i := range m.rounds / m.turn {
			for j, call := range []func() error{m.bare, m.ours} {
				for range m.turn {
					start := time.Now()
					if err := call(); err != nil {
						return err
					}
					if i >= m.rounds/m.turn/10 { // after it has warmed up
						took[j] = append(took[j], time.Since(start))
					}
				}
			}
		}
		*m.ratio = round(float64(quantile(took[1], 0.5)) / float64(quantile(took[0], 0.5)))
	}
	return nil
}

func nearHit(_ *fleet, s *summary) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	load := func(context.Context) (string, error) { return "value", nil }
	values := &cache.Of[string]{Store: new(cache.Memory), Near: near.New[string](1000), NearTTL: time.Hour}
	const calls = 1000
	var took []time.Duration
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 2000 {
		start := time.Now()
		for range calls {
			if _, err := values.Get(ctx, "page:42", load); err != nil {
				return err
			}
		}
		took = append(took, time.Since(start))
	}
	runtime.ReadMemStats(&after)
	s.NearHit = round(float64(quantile(took, 0.5)) / calls)
	s.NearAllocs = round(float64(after.Mallocs-before.Mallocs) / (2000 * calls))
	return nil
}

const (
	processes = 8
	callers   = 8
	ttl       = 2 * time.Second
	loading   = 50 * time.Millisecond
)

// expiry lets processes read one value that expires, and counts loads.
func expiry(f *fleet, s *summary) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	until := time.Now().Add(6*ttl + time.Second)
	outs := make([][]byte, processes)
	errs := make([]error, processes)
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			cmd := exec.Command(self, "-worker", f.servers[0].Addr, "-until", strconv.FormatInt(until.UnixMilli(), 10))
			cmd.Stderr = os.Stderr
			outs[i], errs[i] = cmd.Output()
		})
	}
	wg.Wait()
	var loads []int64
	for i, out := range outs {
		if errs[i] != nil {
			return errs[i]
		}
		var some []int64
		if err := json.Unmarshal(out, &some); err != nil {
			return err
		}
		loads = append(loads, some...)
	}
	slices.Sort(loads)
	expiries, last := 0, int64(0)
	for _, at := range loads {
		if time.Duration(at-last) > ttl/2 {
			expiries++
			last = at
		}
	}
	s.Expiries = expiries
	s.LoadsPerExpiry = round(float64(len(loads)) / float64(max(expiries, 1)))
	return nil
}

// work is one process: it prints when its loads began, in nanoseconds of Unix time.
func work(addr string, until time.Time) error {
	c, err := memcached.New(memcached.Options{Servers: []cache.Server{{Slot: "cache-1", Addr: addr}}, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	of := &cache.Of[string]{Store: c, Prefix: "expires:", TTL: ttl}
	var mu sync.Mutex
	loads := []int64{}
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range callers {
		wg.Go(func() {
			for time.Now().Before(until) {
				_, err := of.Get(context.Background(), "value", func(context.Context) (string, error) {
					mu.Lock()
					loads = append(loads, time.Now().UnixNano())
					mu.Unlock()
					time.Sleep(loading)
					return "value", nil
				})
				if err != nil {
					failed.Store(&err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return json.NewEncoder(os.Stdout).Encode(loads)
}

// stale reads and writes rows through clients of their own, and counts values that are older than an acknowledged Delete.
func stale(f *fleet, s *summary) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var row, floor, stales, deletes atomic.Int64
	load := func(context.Context) (int64, error) {
		v := row.Load()
		time.Sleep(2 * time.Millisecond) // what was read is on its way
		return v, nil
	}
	var wg sync.WaitGroup
	for i := range 8 {
		c, err := memcached.New(memcached.Options{Servers: f.servers[:10], Timeout: 10 * time.Second})
		if err != nil {
			return err
		}
		defer c.Close()
		of := &cache.Of[int64]{Store: c, Prefix: "row:"}
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					least := floor.Load()
					if v, err := of.Get(ctx, "1", load); err == nil && v < least {
						stales.Add(1)
					}
				}
			})
		}
		if i > 0 {
			continue
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				v := row.Add(1)
				if of.Delete(ctx, "1") == nil {
					floor.Store(v)
					deletes.Add(1)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	s.StaleSets, s.Deletes = int(stales.Load()), int(deletes.Load())
	return nil
}

// replace puts another machine into a slot.
func replace(f *fleet, s *summary) error {
	c, err := memcached.New(memcached.Options{Servers: f.servers[:10]})
	if err != nil {
		return err
	}
	defer c.Close()
	before := map[string]string{}
	for i := range 100_000 {
		key := fmt.Sprintf("page:%d", i)
		owner, _ := c.Owner(key)
		before[key] = owner.Slot
	}
	next := slices.Clone(f.servers[:10])
	next[3].Addr = f.servers[10].Addr
	slices.Reverse(next) // no order is promised
	if err := c.SetServers(next); err != nil {
		return err
	}
	for key, slot := range before {
		if owner, _ := c.Owner(key); owner.Slot != slot {
			s.MovedOnReplace++
		}
	}
	return nil
}

// outage lets one server hang under load.
func outage(f *fleet, s *summary) error {
	c, err := memcached.New(memcached.Options{Servers: f.servers[:10]})
	if err != nil {
		return err
	}
	defer c.Close()
	of := &cache.Of[string]{Store: c, Prefix: "outage:", TTL: time.Hour}
	load := func(context.Context) (string, error) { time.Sleep(time.Millisecond); return "value", nil }
	var mu sync.Mutex
	var took []time.Duration
	drive := func(d time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		var wg sync.WaitGroup
		var failed atomic.Pointer[error]
		for i := range 16 {
			wg.Go(func() {
				var mine []time.Duration
				for n := i; ctx.Err() == nil; n += 7 {
					start := time.Now()
					if _, err := of.Get(context.Background(), strconv.Itoa(n%1000), load); err != nil {
						failed.Store(&err)
					}
					mine = append(mine, time.Since(start))
				}
				mu.Lock()
				took = append(took, mine...)
				mu.Unlock()
			})
		}
		wg.Wait()
		if err := failed.Load(); err != nil {
			return *err
		}
		return nil
	}
	if err := drive(time.Second); err != nil { // all is well
		return err
	}
	took = nil
	if err := f.hang(3); err != nil {
		return err
	}
	if err := drive(6 * time.Second); err != nil {
		return err
	}
	ms := func(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }
	s.OutageP99, s.OutageMax, s.OutageCalls = ms(quantile(took, 0.99)), ms(slices.Max(took)), len(took)
	return nil
}

func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func round(f float64) float64 { return float64(int(f*1000+0.5)) / 1000 }

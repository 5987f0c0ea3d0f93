// Command reconcile measures a pass over a farm at rest: all of Farm.Reconcile but the cloud, which answers from memory.
//
//	go run ./internal/bench/reconcile -instances 100000 -json
//
// The last line is a summary: pass_ms is the median of the passes after the first and pass_ms_min the fastest; pass_cpu_ms is
// what a pass computes on all processors, the collection of garbage included, which tells more than the clock where others
// work as well. allocs_per_instance and bytes_per_instance are what a pass allocates, retained_bytes_per_instance what the farm
// keeps between passes, and api_calls how many calls a pass makes. With -names each machine has its names in a zone as well, with
// -owns a volume and an address.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider"
)

func main() {
	n := flag.Int("instances", 100_000, "how many instances the farm has")
	passes := flag.Int("passes", 15, "how many passes to measure")
	names := flag.Bool("names", false, "publish names")
	owns := flag.Bool("owns", false, "give each instance a volume and an address")
	asJSON := flag.Bool("json", false, "print the summary only, as a line of JSON")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the measured passes to this file")
	flag.Parse()
	if *n < 1 || *passes < 1 {
		fmt.Fprintf(os.Stderr, "-instances is %d and -passes is %d, want 1 or more\n", *n, *passes)
		os.Exit(2)
	}
	if err := run(os.Stdout, *n, *passes, *names, *owns, *asJSON, *profile); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(w io.Writer, n, passes int, names, owns, asJSON bool, profile string) error {
	ctx := context.Background()
	c := newCloud(n, owns)
	role := farm.Role{Name: "www", Serves: farm.Web, Image: "web", Min: n, Max: n, Address: owns}
	if owns {
		role.Volume = &farm.Volume{SizeGB: 1}
	}
	spec := farm.Spec{Name: "shop", Roles: []farm.Role{role}}
	config := farm.Config{Pools: []farm.Pool{{Name: "a", Provider: c}}}
	if names {
		spec.Zone, config.DNS = "shop.example.", &dnsreg.Memory{Zones: []string{"shop.example."}}
	}
	f, err := farm.New(spec, config)
	if err != nil {
		return err
	}
	before := heap()
	for range 2 { // the machines serve after the first pass, and their names are there after the second
		if p, err := f.Reconcile(ctx); err != nil || len(p.Steps) > 1 {
			return fmt.Errorf("no farm at rest: %v, %d steps: %.300s", err, len(p.Steps), p)
		}
	}
	retained := heap() - before
	c.calls.Store(0)
	times := make([]time.Duration, passes)
	if profile != "" {
		file, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	startCPU := cpu()
	for i := range times {
		at := time.Now()
		p, err := f.Reconcile(ctx)
		times[i] = time.Since(at)
		if err != nil || !p.Empty() {
			return fmt.Errorf("no farm at rest: %v, %d steps: %.300s", err, len(p.Steps), p)
		}
		if !asJSON {
			fmt.Fprintf(w, "pass %d: %v\n", i+1, times[i].Round(10*time.Microsecond))
		}
	}
	took := cpu() - startCPU
	runtime.ReadMemStats(&end)
	slices.Sort(times)
	each := float64(n) * float64(passes)
	return json.NewEncoder(w).Encode(map[string]any{"summary": true, "instances": n,
		"pass_ms":                     float64(times[passes/2].Microseconds()) / 1000,
		"pass_ms_min":                 float64(times[0].Microseconds()) / 1000,
		"pass_cpu_ms":                 float64(took.Microseconds()) / 1000 / float64(passes),
		"allocs_per_instance":         float64(end.Mallocs-start.Mallocs) / each,
		"bytes_per_instance":          float64(end.TotalAlloc-start.TotalAlloc) / each,
		"retained_bytes_per_instance": float64(retained) / float64(n),
		"api_calls":                   float64(c.calls.Load()) / float64(passes)})
}

// cpu is how long the program has computed so far, on all processors.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// cloud answers from memory, always the same.
type cloud struct {
	instances []provider.Instance
	volumes   []provider.Volume
	addresses []provider.Address
	calls     atomic.Int64
}

func newCloud(n int, owns bool) *cloud {
	c := &cloud{}
	at := time.Now().Add(-time.Hour)
	for i := range n {
		// The order of IDs is not that of indices.
		id := fmt.Sprintf("i-%08x", uint32(i)*2654435761)
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		tags := map[string]string{farm.TagFarm: "shop", farm.TagRole: "www", farm.TagIndex: strconv.Itoa(i + 1),
			farm.TagGeneration: "1", farm.TagPool: "a"}
		c.instances = append(c.instances, provider.Instance{ID: id, Image: "web", State: provider.Running, Launched: at, Private: addr, Tags: tags})
		if owns {
			c.volumes = append(c.volumes, provider.Volume{ID: "v" + id, SizeGB: 1, Ready: true, Instance: id, Created: at, Tags: tags})
			c.addresses = append(c.addresses, provider.Address{ID: "a" + id, Addr: addr, Instance: id, Tags: tags})
		}
	}
	slices.SortFunc(c.instances, func(a, b provider.Instance) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(c.volumes, func(a, b provider.Volume) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(c.addresses, func(a, b provider.Address) int { return cmp.Compare(a.ID, b.ID) })
	return c
}

var (
	_ provider.Provider  = (*cloud)(nil)
	_ provider.Volumes   = (*cloud)(nil)
	_ provider.Addresses = (*cloud)(nil)
)

func (c *cloud) Instances(context.Context, map[string]string) ([]provider.Instance, error) {
	c.calls.Add(1)
	return c.instances, nil
}

func (c *cloud) Volumes(context.Context, map[string]string) ([]provider.Volume, error) {
	c.calls.Add(1)
	return c.volumes, nil
}

func (c *cloud) Addresses(context.Context, map[string]string) ([]provider.Address, error) {
	c.calls.Add(1)
	return c.addresses, nil
}

func (c *cloud) refuse() error {
	c.calls.Add(1)
	return fmt.Errorf("a farm at rest changes nothing: %w", provider.ErrInvalid)
}

func (c *cloud) Launch(context.Context, provider.Launch) (provider.Instance, error) {
	return provider.Instance{}, c.refuse()
}
func (c *cloud) Terminate(context.Context, string) error { return c.refuse() }
func (c *cloud) CreateVolume(context.Context, provider.VolumeSpec) (provider.Volume, error) {
	return provider.Volume{}, c.refuse()
}
func (c *cloud) AttachVolume(context.Context, string, string) error { return c.refuse() }
func (c *cloud) DetachVolume(context.Context, string) error         { return c.refuse() }
func (c *cloud) DeleteVolume(context.Context, string) error         { return c.refuse() }
func (c *cloud) AllocateAddress(context.Context, provider.AddressSpec) (provider.Address, error) {
	return provider.Address{}, c.refuse()
}
func (c *cloud) AssociateAddress(context.Context, string, string) error { return c.refuse() }
func (c *cloud) DisassociateAddress(context.Context, string) error      { return c.refuse() }
func (c *cloud) ReleaseAddress(context.Context, string) error           { return c.refuse() }

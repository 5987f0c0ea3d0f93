package farm

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// faults collects what is wrong, each by field.
type faults []error

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
}

// each adds an error that may hold several, a line each.
func (f *faults) each(field string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		f.add(field, "%s", line)
	}
}

// check reports every fault of the spec and the config at once and makes no calls.
func check(s Spec, c Config) error {
	var f faults
	f.label("spec.name", s.Name, 32)
	if s.Parent != "" {
		f.label("spec.parent", s.Parent, 32)
	}
	if s.Parent == s.Name && s.Name != "" {
		f.add("spec.parent", "%q is the farm's own name, want another one, or none", s.Parent)
	}
	f.zone(s)
	f.seconds("spec.ttl", s.TTL)
	if s.End != nil && s.End.At.IsZero() {
		f.add("spec.end.at", "is missing, want a time; without an end, leave end out")
	}
	if s.End != nil {
		if err := s.End.TerminateOptions.check("spec.end.final_snapshot", &c); err != nil {
			f = append(f, err)
		}
	}
	if s.Hours != nil {
		_, bad := s.Hours.read("spec.hours.open", "spec.hours.close")
		f = append(f, bad...)
		if err := closing().check("spec.hours", &c); err != nil {
			f = append(f, err)
		}
	}
	if len(s.Roles) == 0 {
		f.add("spec.roles", "there are none, want at least one")
	}
	f.config(s, c)
	names, owners := map[string]int{}, map[string]string{}
	for i := range s.Roles {
		r := &s.Roles[i]
		at := fmt.Sprintf("spec.roles[%d]", i)
		if r.Name != "" {
			at = fmt.Sprintf("spec.roles[%d] (%s)", i, r.Name)
		}
		f.label(at+".name", r.Name, 20)
		if first, twice := names[r.Name]; twice {
			f.add(at+".name", "%q is also the name of spec.roles[%d], want each once", r.Name, first)
			continue
		}
		names[r.Name] = i
		f.role(at, r, &s, &c)
		f.published(at, r, &s, owners)
	}
	f.order(s, names)
	return errors.Join(f...)
}

// label checks a name that becomes part of host names (RFC 1123, section 2.1).
func (f *faults) label(field, name string, most int) {
	switch {
	case name == "":
		f.add(field, "is empty, want a DNS label")
	case len(name) > most:
		f.add(field, "%q has %d characters, want at most %d", name, len(name), most)
	case !isLabel(name):
		f.add(field, "%q is no DNS label, want a-z, 0-9 and '-', not at either end", name)
	}
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (f *faults) zone(s Spec) {
	if s.Zone == "" {
		for i, r := range s.Roles {
			if r.Main || len(r.Aliases) > 0 {
				f.add(fmt.Sprintf("spec.roles[%d] (%s)", i, r.Name), "main and aliases need spec.zone, which is empty")
			}
		}
		return
	}
	f.zoneName("spec.zone", s.Zone)
}

func (f *faults) zoneName(field, zone string) {
	name, dot := strings.CutSuffix(zone, ".")
	if !dot {
		f.add(field, "%q is not absolute, want a dot at the end: %q", zone, zone+".")
	}
	// The farm's own labels, the longest of which is "int-<role>", come before it.
	if len(name) > 200 {
		f.add(field, "%q has %d characters, want at most 200", zone, len(name))
	}
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			f.add(field, "%q is no domain name: label %q wants a-z, 0-9 and '-', not at either end", zone, label)
			break
		}
	}
}

func (f *faults) seconds(field string, d time.Duration) {
	if d < 0 || d%time.Second != 0 || d > math.MaxInt32*time.Second {
		f.add(field, "%v is no TTL, want whole seconds, 0 or more", d)
	}
}

func (f *faults) config(s Spec, c Config) {
	if len(c.Pools) == 0 {
		f.add("config.Pools", "there are none, want at least one")
	}
	seen := map[string]int{}
	for i, p := range c.Pools {
		at := fmt.Sprintf("config.Pools[%d]", i)
		f.label(at+".Name", p.Name, 40)
		if first, twice := seen[p.Name]; twice {
			f.add(at+".Name", "%q is also the name of config.Pools[%d], want each once", p.Name, first)
		}
		seen[p.Name] = i
		if isNil(p.Provider) {
			f.add(at+".Provider", "is nil")
		} else if !reflect.ValueOf(p.Provider).Comparable() {
			f.add(at+".Provider", "%T cannot be compared, so that pools that share it could not be told: want a pointer", p.Provider)
		}
	}
	for i, p := range c.Pools {
		if p.Prices != nil {
			p.Prices.each(func(name string, price float64) {
				if !(price >= 0) || math.IsInf(price, 0) {
					f.add(fmt.Sprintf("config.Pools[%d].Prices.%s", i, name), "%v is no price, want 0 or more", price)
				}
			})
		}
	}
	if s.Zone != "" && isNil(c.DNS) {
		f.add("config.DNS", "is nil, but spec.zone is %q", s.Zone)
	}
	if slices.ContainsFunc(c.NameServers, func(ask NameServer) bool { return ask == nil }) {
		f.add("config.NameServers", "has a nil, want functions that ask a name server")
	}
	if !isNil(c.DNS) {
		if least := c.DNS.Capabilities().MinTTL; s.Zone != "" && or(s.TTL, 20*time.Second) < least {
			f.add("spec.ttl", "%v is less than the %v that config.DNS takes", or(s.TTL, 20*time.Second), least)
		}
	}
	for _, figure := range []struct {
		field string
		d     time.Duration
	}{{"Interval", c.Interval}, {"CallTimeout", c.CallTimeout}, {"ListLag", c.ListLag}, {"Grace", c.Grace},
		{"MissingAfter", c.MissingAfter}, {"ShrinkPatience", c.ShrinkPatience}, {"MetricAge", c.MetricAge},
		{"Backoff", c.Backoff}} {
		if figure.d < 0 {
			f.add("config."+figure.field, "%v is negative", figure.d)
		}
	}
	if c.Parallel < 0 {
		f.add("config.Parallel", "%d is negative", c.Parallel)
	}
	if !(c.ShrinkLimit >= 0 && c.ShrinkLimit <= 1) {
		f.add("config.ShrinkLimit", "%v is no share, want 0 to 1", c.ShrinkLimit)
	}
	f.hooks(&s, &c)
	owner := map[*replication.Manager]string{}
	for _, name := range sortedKeys(c.Databases) {
		if m := c.Databases[name]; m != nil && owner[m] != "" {
			f.add(fmt.Sprintf("config.Databases[%q]", name), "is the manager of role %s too, want one for each", owner[m])
		} else {
			owner[m] = name
		}
	}
	for _, m := range []struct {
		field string
		roles []string
		s     Service
	}{{"Databases", sortedKeys(c.Databases), Database}, {"Caches", sortedKeys(c.Caches), Cache}} {
		for _, name := range m.roles {
			i := slices.IndexFunc(s.Roles, func(r Role) bool { return r.Name == name })
			if i < 0 || s.Roles[i].Serves != m.s {
				f.add(fmt.Sprintf("config.%s[%q]", m.field, name), "the spec has no role of that name that serves %q", m.s)
			}
		}
	}
}

func (f *faults) role(at string, r *Role, s *Spec, c *Config) {
	if !slices.Contains([]Service{"", Web, Database, Cache}, r.Serves) {
		f.add(at+".serves", "%q is no service, want web, database, cache or nothing", r.Serves)
	}
	if r.Image == "" {
		f.add(at+".image", "is empty, want the name of an image")
	}
	if r.Min < 0 || r.Max < 1 || r.Min > r.Max {
		f.add(at+".min", "min is %d and max is %d, want 0 ≤ min ≤ max and max at least 1", r.Min, r.Max)
	}
	if r.LaunchTimeout < 0 {
		f.add(at+".launch_timeout", "%v is negative", r.LaunchTimeout)
	}
	if r.StopTimeout < 0 {
		f.add(at+".stop_timeout", "%v is negative", r.StopTimeout)
	}
	if !slices.Contains(orders, r.Shrink) {
		f.add(at+".shrink", "is %q, want one of %q", r.Shrink, orders)
	}
	if r.Shrink == IdlestFirst && len(r.metrics()) == 0 {
		f.add(at+".shrink", "is %q, but the role has no metric that says which machine is idle", r.Shrink)
	}
	if r.Replace < 0 {
		f.add(at+".replace", "%d is negative", r.Replace)
	}
	if r.OnDemand && !r.Spot {
		f.add(at+".on_demand", "is set, but spot is not: machines that are not interruptible are what it has anyhow")
	}
	if r.Port < 0 || r.Port > 65535 {
		f.add(at+".port", "%d is no port, want 1 to 65535", r.Port)
	}
	if r.Serves == Database {
		if c.Databases[r.Name] == nil {
			f.add(at, "it serves a database, but config.Databases[%q] has no replication.Manager", r.Name)
		}
		if r.Health != nil {
			f.add(at+".health", "is set, but the members of a database are judged by their Manager")
		}
		if r.Min < 1 {
			f.add(at+".min", "%d, want at least 1 for a database", r.Min)
		}
	}
	if u := r.Update; u != nil {
		if u.AtOnce < 0 {
			f.add(at+".update.at_once", "%d is negative", u.AtOnce)
		}
		if !(u.Share >= 0 && u.Share <= 1) {
			f.add(at+".update.share", "%v is no share, want 0 to 1", u.Share)
		}
		if u.Before != nil && u.Before.Image == "" {
			f.add(at+".update.before.image", "is empty, want the name of an image")
		}
		if r.Serves == Database && (u.AtOnce > 1 || u.Share > 0 || u.Surge) {
			f.add(at+".update", "wants several at once, but the members of a database are replaced one by one")
		}
	}
	if r.Move != nil && len(r.Pools) == 0 {
		f.add(at+".pools", "is empty, but move is set: want the pools to move to")
	}
	if r.Move != nil && r.Volume != nil && r.Serves != Database {
		f.add(at+".move", "%s", cannotMove)
	}
	if w := r.Warm; w != nil && w.Count < 1 {
		f.add(at+".warm.count", "%d, want at least 1", w.Count)
	}
	if r.Warm != nil && (r.Serves == Database || r.Serves == Cache) {
		f.add(at+".warm", "is set, but the servers of a %s cannot wait beside the others", r.Serves)
	}
	f.scaling(at+".scale", r.Scale, c)
	if h := r.Health; h != nil {
		switch {
		case h.Custom != "" && h.Path != "":
			f.add(at+".health", "has both a path and a custom check, want one")
		case h.Custom != "" && c.Checks[h.Custom] == nil:
			f.add(at+".health.custom", "config.Checks[%q] is missing", h.Custom)
		case h.Custom == "" && r.Port == 0 && r.Serves == "":
			f.add(at+".port", "is missing, but health wants to connect to it")
		case h.Path != "" && h.Path[0] != '/':
			f.add(at+".health.path", "%q, want a path that begins with /", h.Path)
		}
		if h.Timeout < 0 || h.Failures < 0 {
			f.add(at+".health", "timeout %v or failures %d is negative", h.Timeout, h.Failures)
		}
	}
	if v := r.Volume; v != nil && v.SizeGB < 1 {
		f.add(at+".volume.size_gb", "%d, want at least 1", v.SizeGB)
	}
	f.snapshots(at+".volume", r, s, c)
	if b := r.Balancer; b != nil {
		if b.Protocol != "http" && b.Protocol != "tcp" {
			f.add(at+".balancer.protocol", "%q, want http or tcp", b.Protocol)
		}
		if b.Port < 1 || b.Port > 65535 {
			f.add(at+".balancer.port", "%d is no port, want 1 to 65535", b.Port)
		}
		if b.HealthPath != "" && b.HealthPath[0] != '/' {
			f.add(at+".balancer.health_path", "%q, want a path that begins with /", b.HealthPath)
		}
		if b.Drain < 0 {
			f.add(at+".balancer.drain", "%v is negative", b.Drain)
		}
		if r.Serves == Database {
			f.add(at+".balancer", "is set, but a database's clients must find its primary, by name")
		}
	}
	f.pools(at, r, c)
}

// pools checks that every pool that the role may be in exists and has what the role wants.
func (f *faults) pools(at string, r *Role, c *Config) {
	for _, name := range r.Pools {
		if c.pool(name) == nil {
			f.add(at+".pools", "%q is no pool of config.Pools", name)
		}
	}
	for _, p := range c.poolsOf(r) {
		if isNil(p.Provider) {
			continue
		}
		for _, want := range []struct {
			field string
			is    bool
			has   func(provider.Provider) bool
		}{
			{"volume", r.Volume != nil, has[provider.Volumes]},
			{"volume.snapshots", r.schedule() != nil, has[provider.Snapshots]},
			{"volume.from", r.Volume != nil && r.Volume.From != nil, has[provider.Snapshots]},
			{"address", r.Address, has[provider.Addresses]},
			{"balancer", r.Balancer != nil, has[provider.Balancers]},
			{"warm.stopped", r.Warm != nil && r.Warm.Stopped, has[provider.Power]},
		} {
			if want.is && !want.has(p.Provider) {
				f.add(at+"."+want.field, "the provider of pool %q (%T) has no such capability", p.Name, p.Provider)
			}
		}
	}
}

// published checks that no two roles publish the same name.
func (f *faults) published(at string, r *Role, s *Spec, owners map[string]string) {
	claim := func(field, name string) {
		if other, taken := owners[name]; taken && other != r.Name {
			f.add(field, "%q is a name of role %s too, want each once", name, other)
		}
		owners[name] = r.Name
	}
	if r.Main {
		claim(at+".main", "the zone's apex")
	}
	for _, name := range r.labels() {
		claim(at+".name", name)
	}
	for _, other := range s.Roles {
		for _, name := range append([]string{r.Name}, r.Aliases...) {
			index, ok := strings.CutPrefix(name, other.Name+"-")
			if ok && index != "" && strings.Trim(index, "0123456789") == "" {
				f.add(at, "the name %q looks like a machine of role %s", name, other.Name)
			}
		}
	}
	for _, name := range r.Aliases {
		if !isLabel(name) {
			f.add(at+".aliases", "%q is no DNS label, want a-z, 0-9 and '-', not at either end", name)
			continue
		}
		claim(at+".aliases", name)
	}
}

// order checks that the launch order names roles and has no cycle.
func (f *faults) order(s Spec, names map[string]int) {
	for i, r := range s.Roles {
		for _, after := range r.After {
			if _, ok := names[after]; !ok {
				f.add(fmt.Sprintf("spec.roles[%d] (%s).after", i, r.Name), "%q is no role", after)
			}
		}
	}
	state := map[string]int{} // 1 on the path, 2 done
	var visit func(name string, path []string) []string
	visit = func(name string, path []string) []string {
		path = append(path, name)
		if state[name] == 1 {
			return path[slices.Index(path, name):]
		}
		i, ok := names[name]
		if state[name] == 2 || !ok {
			return nil
		}
		state[name] = 1
		defer func() { state[name] = 2 }()
		for _, after := range s.Roles[i].After {
			if cycle := visit(after, path); cycle != nil {
				return cycle
			}
		}
		return nil
	}
	for i, r := range s.Roles {
		if cycle := visit(r.Name, nil); cycle != nil {
			f.add(fmt.Sprintf("spec.roles[%d] (%s).after", i, r.Name), "the launch order has a cycle: %s", strings.Join(cycle, " after "))
		}
	}
}

// poolsOf gives the pools that the role may be in, in order of preference.
func (c *Config) poolsOf(r *Role) []*Pool {
	var pools []*Pool
	if len(r.Pools) == 0 {
		for i := range c.Pools {
			pools = append(pools, &c.Pools[i])
		}
	}
	for _, name := range r.Pools {
		if p := c.pool(name); p != nil {
			pools = append(pools, p)
		}
	}
	return pools
}

func has[T any](p provider.Provider) bool {
	_, ok := provider.As[T](p)
	return ok
}

// isNil reports whether the interface holds nothing, or a nil pointer, which a host program gets wrong easily.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Slice, reflect.Chan:
		return r.IsNil()
	}
	return false
}

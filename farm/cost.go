package farm

import (
	"fmt"
	"math"
	"strings"

	"github.com/scalr-go/scalr/provider"
)

// Prices are what things of a pool cost an hour, in a currency of the caller's. What is not there is not known, but for spot
// machines, which then cost what others do.
type Prices struct {
	Sizes    map[string]float64 // a machine, by the provider's name of its size
	Spot     map[string]float64 // an interruptible machine, likewise
	VolumeGB float64            // a GB of a volume
	Address  float64            // a public address
	Balancer float64            // a balancer, without its traffic
}

// size gives the price of a machine.
func (p *Prices) size(size string, spot bool) (price float64, ok bool) {
	if spot {
		if price, ok = p.Spot[size]; ok {
			return price, true
		}
	}
	price, ok = p.Sizes[size]
	return price, ok
}

// Cost is what a farm costs, as far as the pools' prices tell. Snapshots and traffic are not in it.
type Cost struct {
	Now  Bill `json:"now"`  // with what there is
	Then Bill `json:"then"` // when the plan's steps have been done
	// Whole is with all that the spec wants now, in the first pool of each role: what a farm or a twin is to cost that is
	// not launched yet.
	Whole Bill                `json:"whole"`
	Roles map[string]RoleCost `json:"roles"` // the same by role
}

// RoleCost is what a role costs.
type RoleCost struct {
	Now   Bill `json:"now"`
	Then  Bill `json:"then"`
	Whole Bill `json:"whole"`
}

// Bill is a sum of prices.
type Bill struct {
	Hour     float64 `json:"hour"`
	Unpriced int     `json:"unpriced,omitempty"` // machines whose price is not known, and that are not in Hour
}

// Day is what 24 hours cost.
func (b Bill) Day() float64 { return 24 * b.Hour }

// String gives the bill in a line.
func (b Bill) String() string {
	text := fmt.Sprintf("%.2f an hour, %.2f a day", b.Hour, b.Day())
	if b.Unpriced > 0 {
		text += fmt.Sprintf(", and %d machines without a price", b.Unpriced)
	}
	return text
}

// differs tells bills apart that are not the same sum in another order.
func (b Bill) differs(o Bill) bool {
	return b.Unpriced != o.Unpriced || math.Abs(b.Hour-o.Hour) > 1e-9*math.Max(b.Hour, o.Hour)
}

// String gives the cost as lines for a person: a role each, then all.
func (c Cost) String() string {
	var b strings.Builder
	line := func(name string, c RoleCost) {
		fmt.Fprintf(&b, "%s: %v", name, c.Now)
		if c.Then.differs(c.Now) {
			fmt.Fprintf(&b, "; then %v", c.Then)
		}
		if c.Whole.differs(c.Then) {
			fmt.Fprintf(&b, "; %v in all", c.Whole)
		}
		b.WriteString("\n")
	}
	for _, name := range sortedKeys(c.Roles) {
		line(name, c.Roles[name])
	}
	line("all", RoleCost{c.Now, c.Then, c.Whole})
	return b.String()
}

// each calls f for every price.
func (p *Prices) each(f func(name string, price float64)) {
	for _, size := range sortedKeys(p.Sizes) {
		f(fmt.Sprintf("Sizes[%q]", size), p.Sizes[size])
	}
	for _, size := range sortedKeys(p.Spot) {
		f(fmt.Sprintf("Spot[%q]", size), p.Spot[size])
	}
	f("VolumeGB", p.VolumeGB)
	f("Address", p.Address)
	f("Balancer", p.Balancer)
}

// cost adds up what there is and what the plan makes of it; nil if no pool has prices.
func (d *decision) cost() *Cost {
	priced := false
	for i := range d.config.Pools {
		priced = priced || d.config.Pools[i].Prices != nil
	}
	if !priced {
		return nil
	}
	c := &Cost{Roles: map[string]RoleCost{}}
	var none Prices
	prices := func(pool string) *Prices {
		if p := d.config.pool(pool); p != nil && p.Prices != nil {
			return p.Prices
		}
		return &none
	}
	bill := func(role string, now, then, whole, price float64, known bool) {
		r := c.Roles[role]
		for _, sum := range []struct {
			of    *Bill
			count float64
		}{{&r.Now, now}, {&r.Then, then}, {&r.Whole, whole}, {&c.Now, now}, {&c.Then, then}, {&c.Whole, whole}} {
			if known {
				sum.of.Hour += sum.count * price
			} else {
				sum.of.Unpriced += int(sum.count)
			}
		}
		c.Roles[role] = r
	}
	add := func(role string, now, then, price float64, known bool) { bill(role, now, then, 0, price, known) }
	run := func(pool, role, size string, spot bool, now, then float64) {
		price, ok := prices(pool).size(size, spot)
		add(role, now, then, price, ok)
	}
	byID := map[string]*machine{}
	for _, m := range d.h.machines {
		byID[m.id] = m
		if !dead(m) && m.state != provider.Stopped {
			run(m.pool, m.slot.role, m.size, m.spot, 1, 1)
		}
	}
	for i := range d.o.clouds {
		cloud := &d.o.clouds[i]
		for _, v := range cloud.volumes.items {
			add(v.Tags[TagRole], 1, 1, prices(v.Tags[TagPool]).VolumeGB*float64(v.SizeGB), true)
		}
		for _, a := range cloud.addresses.items {
			add(a.Tags[TagRole], 1, 1, prices(a.Tags[TagPool]).Address, true)
		}
		for _, b := range cloud.balancers.items {
			add(b.Tags[TagRole], 1, 1, prices(b.Tags[TagPool]).Balancer, true)
		}
	}
	for _, s := range d.plan.Steps {
		r := d.roleOf(s.Role)
		switch s.Action {
		case LaunchInstance:
			run(s.Pool, s.Role, s.Size, s.Spot, 0, 1)
		case StartInstance, StopInstance, TerminateInstance:
			m := byID[s.Subject]
			if m == nil || dead(m) {
				continue
			}
			switch running := m.state != provider.Stopped; {
			case s.Action == StartInstance && !running:
				run(m.pool, s.Role, m.size, m.spot, 0, 1)
			case s.Action != StartInstance && running:
				run(m.pool, s.Role, m.size, m.spot, 0, -1)
			}
		case CreateVolume:
			if r != nil && r.Volume != nil {
				add(s.Role, 0, 1, prices(s.Pool).VolumeGB*float64(max(r.Volume.SizeGB, s.SizeGB)), true)
			}
		case DeleteVolume:
			for i := range d.o.clouds {
				for _, v := range d.o.clouds[i].volumes.items {
					if v.ID == s.Subject {
						add(s.Role, 0, -1, prices(v.Tags[TagPool]).VolumeGB*float64(v.SizeGB), true)
					}
				}
			}
		case AllocateAddress:
			add(s.Role, 0, 1, prices(s.Pool).Address, true)
		case ReleaseAddress:
			add(s.Role, 0, -1, prices(s.Pool).Address, true)
		case CreateBalancer:
			add(s.Role, 0, 1, prices(s.Pool).Balancer, true)
		case DeleteBalancer:
			add(s.Role, 0, -1, prices(s.Pool).Balancer, true)
		}
	}
	for i := range d.spec.Roles {
		d.whole(&d.spec.Roles[i], prices, bill)
	}
	return c
}

// whole adds what a role costs that has all that it is to have.
func (d *decision) whole(r *Role, prices func(pool string) *Prices, bill func(role string, now, then, whole, price float64, known bool)) {
	pools := d.config.poolsOf(r)
	if d.end != nil || len(pools) == 0 {
		return
	}
	pool, n := pools[0], float64(d.plan.Desired[r.Name].Count+r.warm())
	p := prices(pool.Name)
	price, known := p.size(or(pool.Sizes[r.Size], r.Size), r.Spot)
	bill(r.Name, 0, 0, n, price, known)
	if r.Volume != nil {
		bill(r.Name, 0, 0, n, p.VolumeGB*float64(r.Volume.SizeGB), true)
	}
	if r.Address {
		bill(r.Name, 0, 0, n, p.Address, true)
	}
	if r.Balancer != nil {
		for _, pool := range pools {
			bill(r.Name, 0, 0, 1, prices(pool.Name).Balancer, true)
		}
	}
}

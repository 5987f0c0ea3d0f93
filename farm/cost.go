package farm

import (
	"fmt"
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

// Cost is what a farm costs, as far as the pools' prices tell.
type Cost struct {
	Now   Bill                `json:"now"`   // with what there is
	Then  Bill                `json:"then"`  // when the plan's steps have been done
	Roles map[string]RoleCost `json:"roles"` // the same by role
}

// RoleCost is what a role costs.
type RoleCost struct {
	Now  Bill `json:"now"`
	Then Bill `json:"then"`
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

// String gives the cost as lines for a person: a role each, then all.
func (c Cost) String() string {
	var b strings.Builder
	line := func(name string, now, then Bill) {
		fmt.Fprintf(&b, "%s: %v", name, now)
		if then != now {
			fmt.Fprintf(&b, "; then %v", then)
		}
		b.WriteString("\n")
	}
	for _, name := range sortedKeys(c.Roles) {
		line(name, c.Roles[name].Now, c.Roles[name].Then)
	}
	line("all", c.Now, c.Then)
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
	add := func(role string, now, then, price float64, known bool) {
		r := c.Roles[role]
		for _, sum := range []struct {
			of    *Bill
			count float64
		}{{&r.Now, now}, {&r.Then, then}, {&c.Now, now}, {&c.Then, then}} {
			if known {
				sum.of.Hour += sum.count * price
			} else {
				sum.of.Unpriced += int(sum.count)
			}
		}
		c.Roles[role] = r
	}
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
		}
	}
	return c
}

package farm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
)

// build is a mark of what the role's machines are made of.
func (r *Role) build() string { return Made{r.Image, r.Size, r.UserData, r.Version}.build() }

func (m Made) build() string {
	data, err := json.Marshal([]string{m.Image, m.Size, m.UserData, m.Version})
	if err != nil {
		panic(err) // these are strings
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}

// surges reports whether successors of outdated machines come first, in slots of their own.
func (d *decision) surges(r *Role) bool { return r.Update != nil && r.Update.Surge && !r.owns() }

// update makes outdated machines leave, some at once, while all others serve.
func (d *decision) update(r *Role, held []*machine) {
	mem := d.h.roles[r.Name]
	defer func() { d.h.roles[r.Name] = mem }()
	build := r.build()
	switch {
	case mem.bad != build:
		mem.bad, mem.told = "", false
	case !mem.told:
		mem.told = true
		d.events = append(d.events, scalr.Event{Time: d.now, Kind: UpdateFailed, Farm: d.spec.Name, Role: r.Name,
			Message: mem.why(build) + ": the role goes on with " + d.back(r)})
	}
	was, serving := mem.outdated, 0
	mem.outdated = 0
	under := 0 // way: machines that do not serve, or that leave
	going := 0 // of these, those that leave
	came := 0  // and those of what is new
	for _, m := range held {
		if m.leaving != "" && d.primary(m) {
			m.leaving, m.updating = "", false // it has become the primary in the meantime
		}
		if m.ready && m.build == build {
			serving++
		}
		if m.build != build {
			mem.outdated++
		}
		switch {
		case m.leaving != "" || !m.draining.IsZero():
			going++
			under++
		case !m.ready && !d.asleep(r, m):
			under++
			if m.build == build {
				came++
			}
		}
	}
	if serving > 0 && mem.proven != build || serving > mem.serving {
		mem.proven, mem.failed = build, 0
	}
	mem.serving = serving
	if was > 0 && mem.outdated == 0 && len(held) > 0 {
		d.event(UpdateDone, held[0], "all %d machines are made of what the role has now", len(held))
	}
	if r.Update == nil || mem.outdated == 0 || d.end != nil {
		return
	}
	switch {
	case mem.bad == build:
		for _, m := range held {
			if m.updating && m.draining.IsZero() && m.build != build { // it has waited for a successor, which would be as it is
				m.updating, m.leaving = false, ""
			}
		}
		d.wait(r.Name, 0, "%d machines are outdated and stay so: %s", mem.outdated, mem.why(build))
		return
	case r.Update.Pause:
		d.wait(r.Name, 0, "%d machines are outdated, and the update is paused", mem.outdated)
		return
	}
	if r.Serves == Database && d.o.sets[r.Name].Primary == "" {
		return
	}
	// Successors that an earlier run has launched, for machines of which nothing shows that they are to leave.
	ahead := 0
	if d.surges(r) {
		ahead = max(min(came, len(held)-going-mem.desired-r.warm()), 0)
	}
	empty := max(mem.desired+r.warm()-len(held), 0) // a slot without a machine is under way as well
	going, under = going+empty, under+empty
	most := r.Update.most(len(held))
	if mem.proven != build {
		most = 1 // until what is new has been seen to serve
	}
	for _, m := range held {
		switch {
		case m.build == build || m.leaving != "" || d.primary(m) || d.distrusted(m) || going >= most:
			continue
		case ahead > 0:
			ahead--
		case !m.ready && m.state != provider.Stopped:
			if !d.lasts(r, m) {
				continue
			}
			// It does not serve anyhow, and to wait for it, or for others that do not, could be for ever.
		case under >= most:
			continue
		default:
			under++
		}
		going++
		m.updating, m.leaving = true, fmt.Sprintf("the role has changed since it was made (%d of %d machines are outdated)", mem.outdated, len(held))
	}
	d.switchOver(r, held, under)
}

// lasts reports whether a machine that does not serve will probably go on like that. Right after this program has begun, nobody
// may have asked it yet.
func (d *decision) lasts(r *Role, m *machine) bool {
	return !m.served() || r.Health != nil && m.failures >= r.Health.Failures || d.now.Sub(m.down) >= d.config.MissingAfter
}

// switchOver lets a replica of the new take over from an outdated primary, when nothing else is outdated and all members serve.
func (d *decision) switchOver(r *Role, held []*machine, under int) {
	if r.Serves != Database || d.h.roles[r.Name].bad != "" || under > 0 || len(held) < 2 {
		return
	}
	build := r.build()
	var primary *machine
	for _, m := range held {
		switch {
		case d.primary(m):
			primary = m
		case m.build != build:
			return
		}
	}
	if primary != nil && primary.build != build {
		d.step(Step{Action: SwitchOver, Role: r.Name, Index: primary.slot.index, Pool: primary.pool,
			Reason: "the primary is the last outdated member: a replica takes over, and it is replaced"})
	}
}

// why says why a build has been given up.
func (r roleMemory) why(build string) string {
	if r.proven == build {
		return fmt.Sprintf("%d machines of what is new, one after another, did not come to serve", r.failed)
	}
	return "the first machine of what is new did not come to serve"
}

// made says what a machine that is launched now is made of: what the role has, or, if that does not come to serve, what it had
// before, as far as that is known.
func (d *decision) made(r *Role) (role *Role, image, build string) {
	build = r.build()
	if d.h.roles[r.Name].bad != build {
		return r, r.Image, build
	}
	old := *r
	if r.Update != nil && r.Update.Before != nil {
		before := *r.Update.Before
		old.Size = before.Size
		return &old, before.Image, before.build()
	}
	for _, m := range d.byRole[r.Name] {
		if m.build != build && m.at.holder == m && m.image != "" {
			old.Size = m.size
			return &old, m.image, d.mixed(r, m)
		}
	}
	return r, r.Image, build
}

// mixed is the mark of a machine with the image and the size of m, and the user data and the version that the role has now: that of m
// itself, if it was made with the same.
func (d *decision) mixed(r *Role, m *machine) string {
	names := func(all map[string]string, is string) []string {
		list := []string{is, ""} // no size is one too
		for name, means := range all {
			if means == is {
				list = append(list, name)
			}
		}
		return list
	}
	pool := d.config.pool(m.pool)
	if pool == nil {
		pool = &Pool{}
	}
	for _, image := range names(pool.Images, m.image) {
		for _, size := range names(pool.Sizes, m.size) {
			if (Made{image, size, r.UserData, r.Version}).build() == m.build {
				return m.build
			}
		}
	}
	return Made{m.image, m.size, r.UserData, r.Version}.build()
}

// back says in words what made goes back to.
func (d *decision) back(r *Role) string {
	if r.Update != nil && r.Update.Before != nil {
		return "what it had"
	}
	for _, m := range d.byRole[r.Name] {
		if m.build != r.build() && m.at.holder == m && m.image != "" && d.mixed(r, m) != m.build {
			return "the image and the size that it had; its user data is the new one, as Update.Before does not say what it was"
		}
	}
	return "what it had"
}

// userData is that of a machine of the build, and the version that Config.UserData is to make.
func (r *Role) userData(build string) (data, version string) {
	if r.Update != nil && r.Update.Before != nil && r.Update.Before.build() == build && build != r.build() {
		return r.Update.Before.UserData, r.Update.Before.Version
	}
	return r.UserData, r.Version
}

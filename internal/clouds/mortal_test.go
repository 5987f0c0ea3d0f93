package clouds

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// mortal is a host program that may be killed at each of its steps, before the step's effect or after: a call that changes
// something at a cloud on this machine, in the zone or at a database. Whatever it begins then comes to nothing.
type mortal struct {
	dies func(step string, after bool) bool
	note *notes
	kill context.CancelFunc

	mu   sync.Mutex
	dead bool
}

func (h *mortal) at(step string, after bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.dead && h.dies != nil && h.dies(step, after) {
		h.dead = true
		h.kill()
	}
	if h.dead {
		return errKilled
	}
	return nil
}

func (h *mortal) step(step string, do func() error) error {
	if err := h.at(step, false); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return h.at(step, true)
}

// notes are what all hosts have done: who takes writes at the database, and what has been launched.
type notes struct {
	mu       sync.Mutex
	changes  int    // begun and ended
	under    int    // are under way
	writable string // the server that was promoted last, and has not been fenced since
	launched map[string]bool
}

// change makes a change of who takes writes.
func (n *notes) change(do func() error, promoted string) error {
	n.mu.Lock()
	n.changes++
	n.under++
	n.writable = ""
	n.mu.Unlock()
	err := do()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes++
	n.under--
	if err == nil {
		n.writable = promoted
	}
	return err
}

// launch notes that there is an instance.
func (n *notes) launch(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.launched == nil {
		n.launched = map[string]bool{}
	}
	n.launched[id] = true
}

// launches gives how many instances there have been.
func (n *notes) launches() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.launched)
}

// see gives what is so now. Calm is false while it changes, and what has been seen between two calls counts if both gave one number.
func (n *notes) see() (writable string, number int, calm bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.writable, n.changes, n.under == 0 && n.writable != ""
}

// cloudOf is a cloud as the host sees it.
type cloudOf struct {
	*local.Cloud
	h *mortal
}

func slotOf(tags map[string]string) string { return tags[farm.TagRole] + "-" + tags[farm.TagIndex] }

// instance names an instance by its slot.
func (c *cloudOf) instance(ctx context.Context, id string) string {
	list, _ := c.Instances(ctx, nil)
	for _, in := range list {
		if in.ID == id {
			return slotOf(in.Tags)
		}
	}
	return "?"
}

func (c *cloudOf) volume(ctx context.Context, id string) string {
	list, _ := c.Volumes(ctx, nil)
	for _, v := range list {
		if v.ID == id {
			return slotOf(v.Tags)
		}
	}
	return "?"
}

func (c *cloudOf) Launch(ctx context.Context, l provider.Launch) (in provider.Instance, err error) {
	err = c.h.step("Launch "+slotOf(l.Tags), func() error {
		if in, err = c.Cloud.Launch(ctx, l); err == nil {
			c.h.note.launch(in.ID)
		}
		return err
	})
	return in, err
}

func (c *cloudOf) Terminate(ctx context.Context, id string) error {
	return c.h.step("Terminate "+c.instance(ctx, id), func() error { return c.Cloud.Terminate(ctx, id) })
}

func (c *cloudOf) Stop(ctx context.Context, id string) error {
	return c.h.step("Stop "+c.instance(ctx, id), func() error { return c.Cloud.Stop(ctx, id) })
}

func (c *cloudOf) CreateVolume(ctx context.Context, s provider.VolumeSpec) (v provider.Volume, err error) {
	err = c.h.step("CreateVolume "+slotOf(s.Tags), func() error { v, err = c.Cloud.CreateVolume(ctx, s); return err })
	return v, err
}

func (c *cloudOf) AttachVolume(ctx context.Context, vol, inst string) error {
	return c.h.step("AttachVolume "+c.volume(ctx, vol), func() error { return c.Cloud.AttachVolume(ctx, vol, inst) })
}

func (c *cloudOf) DetachVolume(ctx context.Context, vol string) error {
	return c.h.step("DetachVolume "+c.volume(ctx, vol), func() error { return c.Cloud.DetachVolume(ctx, vol) })
}

func (c *cloudOf) DeleteVolume(ctx context.Context, vol string) error {
	return c.h.step("DeleteVolume "+c.volume(ctx, vol), func() error { return c.Cloud.DeleteVolume(ctx, vol) })
}

// zoneOf is the zone as the host sees it.
type zoneOf struct {
	*dnsreg.Memory
	h *mortal
}

// Apply is a step by the names that it changes.
func (z zoneOf) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	var names []string
	for _, c := range changes {
		if c.Type == "A" {
			names = append(names, strings.TrimSuffix(c.Name, "."+zone))
		}
	}
	slices.Sort(names)
	return z.h.step("Apply "+strings.Join(names, " "), func() error { return z.Memory.Apply(ctx, zone, changes) })
}

// engineOf is the databases as the host sees them.
type engineOf struct {
	*mysql.Engine
	h *mortal
}

func (e engineOf) Fence(ctx context.Context, m replication.Member) error {
	return e.h.step("Fence "+m.ID, func() error {
		return e.h.note.change(func() error { return e.Engine.Fence(ctx, m) }, "")
	})
}

func (e engineOf) Drain(ctx context.Context, m replication.Member) (at replication.Position, err error) {
	err = e.h.step("Drain "+m.ID, func() error { at, err = e.Engine.Drain(ctx, m); return err })
	return at, err
}

func (e engineOf) Promote(ctx context.Context, m replication.Member, semisync bool) error {
	return e.h.step("Promote "+m.ID, func() error {
		return e.h.note.change(func() error { return e.Engine.Promote(ctx, m, semisync) }, m.Addr)
	})
}

func (e engineOf) SetSemiSync(ctx context.Context, m replication.Member, on bool) error {
	return e.h.step(fmt.Sprintf("SetSemiSync %s %t", m.ID, on), func() error { return e.Engine.SetSemiSync(ctx, m, on) })
}

func (e engineOf) Follow(ctx context.Context, m, primary replication.Member) error {
	return e.h.step("Follow "+m.ID+" "+primary.ID, func() error { return e.Engine.Follow(ctx, m, primary) })
}

func (e engineOf) Seed(ctx context.Context, m, source replication.Member, progress func(replication.Progress)) (at replication.Position, err error) {
	err = e.h.step("Seed "+m.ID, func() error { at, err = e.Engine.Seed(ctx, m, source, progress); return err })
	return at, err
}

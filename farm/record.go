package farm

import (
	"errors"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// What is done is noted in the history by the methods of this file, for the farm and for a [Rehearsal] alike.

// launching notes that a launch is about to be tried, so that whatever becomes of the call the next try is the same one until
// the outcome is known. Again: the outcome of an earlier try is not known.
func (h *history) launching(s *Step, now time.Time) (again bool) {
	at := slot{s.Role, s.Index}
	mem := h.slot(at)
	again = mem.open != nil
	h.lastMade = now
	try := attempt{times: 1, last: now, offer: s.offer(), image: s.Image, build: s.Build}
	if again {
		try.times += mem.open.times
	}
	mem.generation, mem.open = s.Generation, &try
	if len(s.Volumes) > 0 {
		h.use(at) // whatever the answer will be
	}
	return again
}

// launched notes the answer to a launch: a machine that no list shows yet, or nothing if the error says so for sure.
func (h *history) launched(c *Config, s *Step, in provider.Instance, err error, again bool, now time.Time) {
	at := slot{s.Role, s.Index}
	mem := h.slot(at)
	switch {
	case err == nil:
		mem.open = nil
		if in.State.Gone() {
			return
		}
		m := &machine{id: in.ID, slot: at, place: -1, generation: s.Generation, cloud: c.cloud(c.pool(s.Pool)), pool: s.Pool, size: s.Size, spot: s.Spot, image: s.Image, build: s.Build,
			acked: now, state: in.State, private: in.Private, public: in.Public, launched: in.Launched}
		if i, known := h.find(m.cloud, m.id); !known {
			h.machines = slices.Insert(h.machines, i, m)
		}
	case definite(err) && !again:
		// Nothing was launched: the next try may take the same generation with another offer.
		mem.open, mem.generation = nil, s.Generation-1
		refused := errors.Is(err, provider.ErrInvalid) || errors.Is(err, provider.ErrNotFound)
		// A machine that an earlier run has launched, and that no list shows yet, may have the volume.
		taken := len(s.Volumes) > 0 && now.Sub(h.started) < c.ListLag
		if !refused || taken || !h.suspect(s.Role, s.Build) {
			h.avoid(c, s, err, now)
		}
	}
}

// forgiven is how many machines of a build of which some serve may come to nothing, with none in between that serves.
const forgiven = 3

// suspect notes that a machine of a build came to nothing. If the role has machines of another one, and none of this build has ever
// served, or none of the latest few, it is the build that is bad. What is launched instead of a bad one proves nothing by failing too.
func (h *history) suspect(role, build string) (bad bool) {
	r := h.roles[role]
	if r.outdated == 0 || r.bad != "" && r.bad != build {
		return false
	}
	if r.proven == build {
		r.failed++
	}
	if r.proven != build || r.failed >= forgiven {
		r.bad, bad = build, true
	}
	h.roles[role] = r
	return bad
}

// terminated notes that the end of a machine was accepted.
func (h *history) terminated(c *Config, s *Step, now time.Time) {
	if i, known := h.find(c.cloud(c.pool(s.Pool)), s.Subject); known {
		m := *h.machines[i]
		m.ended = now
		h.machines[i] = &m
	}
}

// creating notes that a volume, an address or a balancer is about to be created, and how many tokens have been used up.
func (h *history) creating(key thing, s *Step, now time.Time) (try int, again bool) {
	m := h.made[key]
	again = m.tries > 0
	m.offer, m.at, m.tries = s.offer(), now, m.tries+1
	m.snapshot, m.source, m.sizeGB = s.Snapshot, s.source, s.SizeGB
	h.made[key], h.lastMade = m, now
	return m.try, again
}

// created notes the answer to a creation.
func (h *history) created(c *Config, key thing, s *Step, err error, again bool, now time.Time) {
	m := h.made[key]
	switch {
	case err == nil:
		m.tries = 0
	case definite(err) && !again:
		m.at, m.tries = time.Time{}, 0
		h.avoid(c, s, err, now)
	}
	h.made[key] = m
}

// deleted notes that a thing is gone, and the token that it was created with used up.
func (h *history) deleted(key thing) {
	m := h.made[key]
	m.try++
	h.made[key] = m
}

// fresh notes a volume that no machine has had.
func (h *history) fresh(key thing, id string) {
	m := h.made[key]
	m.fresh = id
	h.made[key] = m
}

// use notes that the slot's volume is not fresh any more.
func (h *history) use(at slot) {
	key := thing{kind: "volume", slot: at}
	if m := h.made[key]; m.fresh != "" {
		m.fresh = ""
		h.made[key] = m
	}
}

// avoid backs off from an offer that was refused.
func (h *history) avoid(c *Config, s *Step, err error, now time.Time) {
	o := s.offer()
	b := h.offers[o]
	if e, ok := errors.AsType[*provider.Error](err); ok && errors.Is(err, provider.ErrThrottled) {
		b.until, b.reason = now.Add(max(e.RetryAfter, time.Second)), "throttled"
	} else {
		b = b.after(now, c.Backoff, reasonOf(err))
	}
	h.offers[o] = b
}

// definite reports whether an error says that nothing was created.
func definite(err error) bool {
	if errors.Is(err, provider.ErrAmbiguous) {
		return false
	}
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

var kinds = []error{provider.ErrCapacity, provider.ErrQuota, provider.ErrThrottled, provider.ErrAuth, provider.ErrInvalid,
	provider.ErrNotFound}

// reasonOf gives an error's kind in words, with what the cloud says where that is for a person to mend; or its text.
func reasonOf(err error) string {
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			continue
		}
		if e, ok := errors.AsType[*provider.Error](err); ok && e.Err != nil && (kind == provider.ErrInvalid || kind == provider.ErrNotFound) {
			return kind.Error() + ": " + e.Err.Error()
		}
		return kind.Error()
	}
	return err.Error()
}

package scale

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// MaxOf is the highest of what several policies want: CPU and a queue's length, or a policy over a [Schedule] as its floor.
// A policy whose metric is missing wants what there is, so that the others can grow the role and not shrink it.
type MaxOf []Policy

// own is what MaxOf remembers of one of its policies.
type own struct {
	since  time.Time // since when past is complete
	past   []Advice
	memory any
}

// Memory is how far back the policies want to see the advice.
func (m MaxOf) Memory() (longest time.Duration) {
	for _, p := range m {
		longest = max(longest, MemoryOf(p))
	}
	return longest
}

// Desired implements [Policy].
func (m MaxOf) Desired(in Input) Decision {
	before, _ := in.Memory.([]own)
	now := make([]own, len(m))
	best, raw := 0, 0
	all := make([]Decision, len(m))
	for i, p := range m {
		mine := in
		mine.Since, mine.Past, mine.Memory = in.Now, nil, nil // what it advised before a restart is not known
		if len(before) == len(m) {
			mine.Since, mine.Past, mine.Memory = before[i].since, before[i].past, before[i].memory
		}
		d := p.Desired(mine)
		all[i], raw = d, max(raw, d.Raw)
		if d.Desired > all[best].Desired {
			best = i
		}
		keep := MemoryOf(p)
		past := slices.DeleteFunc(slices.Clone(mine.Past), func(a Advice) bool { return in.Now.Sub(a.At) > keep })
		now[i] = own{mine.Since, append(past, Advice{in.Now, d.Raw}), d.Memory}
	}
	if len(m) == 0 {
		return in.Hold("no policy: hold at %d", in.Count)
	}
	reason := all[best].Reason
	if len(m) > 1 {
		var others []string
		for i, d := range all {
			if i != best {
				others = append(others, d.Reason)
			}
		}
		reason += " [the others: " + strings.Join(others, "; ") + "]"
	}
	return Decision{Desired: all[best].Desired, Raw: raw, Reason: reason, Memory: now}
}

// Limit holds a policy back: how fast the role may change, and how long a wish must last. The zero Limit holds nothing back.
type Limit struct {
	// Up and Down are the most that the role may grow and shrink within their time.
	Up   Rate `json:"up,omitzero"`
	Down Rate `json:"down,omitzero"`
	// UpFor and DownFor are how long the policy must have wanted more, or fewer, without a break: the role grows to the
	// least that it wanted within UpFor, and shrinks to the most that it wanted within DownFor.
	UpFor   time.Duration `json:"up_for,omitempty"`
	DownFor time.Duration `json:"down_for,omitempty"`
	// AfterUp and AfterDown are cool-downs: how long after it has grown or shrunk the role does not change again.
	AfterUp   time.Duration `json:"after_up,omitempty"`
	AfterDown time.Duration `json:"after_down,omitempty"`
}

// Rate is a number of instances, or a share of those that there were, whichever is more, within a time. The zero Rate is
// no limit.
type Rate struct {
	By    int           `json:"by,omitempty"`
	Share float64       `json:"share,omitempty"`
	Per   time.Duration `json:"per,omitempty"`
}

func (r Rate) check(name string) (errs []error) {
	if r == (Rate{}) {
		return nil
	}
	if r.By < 0 || !(r.Share >= 0) || math.IsInf(r.Share, 0) || r.By == 0 && r.Share == 0 {
		errs = append(errs, fmt.Errorf("%s has by %d and share %v, want one of them greater than 0", name, r.By, r.Share))
	}
	if r.Per <= 0 {
		errs = append(errs, fmt.Errorf("%s.per is %v, want more than 0", name, r.Per))
	}
	return errs
}

// Check reports every fault of the limit's fields.
func (l Limit) Check() error {
	errs := append(l.Up.check("up"), l.Down.check("down")...)
	for name, d := range l.times() {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is %v, want 0 or more", name, d))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (l Limit) times() map[string]time.Duration {
	return map[string]time.Duration{"up_for": l.UpFor, "down_for": l.DownFor, "after_up": l.AfterUp, "after_down": l.AfterDown}
}

// Within is the policy with a limit.
func Within(p Policy, l Limit) Policy { return limited{p, l} }

type limited struct {
	policy Policy
	limit  Limit
}

// counts is what a limit remembers.
type counts struct {
	past   []Advice // how many instances there were
	policy any
}

// Memory is how far back the policy and its limit want to see the advice.
func (l limited) Memory() time.Duration {
	return max(MemoryOf(l.policy), l.limit.UpFor, l.limit.DownFor)
}

// Desired implements [Policy].
func (l limited) Desired(in Input) Decision {
	mem, _ := in.Memory.(counts)
	mine := in
	mine.Memory = mem.policy
	d := l.policy.Desired(mine)
	d.Desired = max(min(d.Desired, in.Max), in.Min) // as the farm would
	keep := max(l.limit.Up.Per, l.limit.Down.Per)
	past := slices.DeleteFunc(slices.Clone(mem.past), func(a Advice) bool { return in.Now.Sub(a.At) >= keep })
	to, why := l.hold(in, d.Desired, past)
	d.Memory = counts{append(past, Advice{in.Now, in.Count}), d.Memory}
	if to != d.Desired {
		d.Desired = to
		d.Reason += fmt.Sprintf(", but %s: %d", why, to)
	}
	return d
}

// hold gives what the limit makes of a wish, and which part of it held back.
func (l limited) hold(in Input, want int, past []Advice) (to int, why string) {
	to = want
	steady := func(window time.Duration, pick func(a, b int) int) int {
		n := want
		for _, a := range in.Past {
			if in.Now.Sub(a.At) <= window {
				n = pick(n, a.Desired)
			}
		}
		if watched := in.Now.Sub(in.Since); !in.Since.IsZero() && watched < window {
			n = pick(n, in.Count)
		}
		return n
	}
	within := func(r Rate, pick func(a, b int) int) int { // how many there were when the time of the rate began
		n := in.Count
		for _, a := range past {
			if in.Now.Sub(a.At) < r.Per {
				n = pick(n, a.Desired)
			}
		}
		return n
	}
	least, most := func(a, b int) int { return min(a, b) }, func(a, b int) int { return max(a, b) }
	switch {
	case want == in.Count:
		return want, ""
	case !in.LastUp.IsZero() && in.Now.Sub(in.LastUp) < l.limit.AfterUp:
		return in.Count, fmt.Sprintf("it grew less than %v ago", l.limit.AfterUp)
	case !in.LastDown.IsZero() && in.Now.Sub(in.LastDown) < l.limit.AfterDown:
		return in.Count, fmt.Sprintf("it shrank less than %v ago", l.limit.AfterDown)
	case want > in.Count:
		if n := max(steady(l.limit.UpFor, least), in.Count); n < to {
			to, why = n, fmt.Sprintf("more must be wanted for %v", l.limit.UpFor)
		}
		if r := l.limit.Up; r != (Rate{}) {
			base := within(r, least)
			if n := max(base+max(r.By, part(r.Share, base)), in.Count); n < to {
				to, why = n, fmt.Sprintf("from %d it may grow by %d within %v", base, max(r.By, part(r.Share, base)), r.Per)
			}
		}
	default:
		if n := min(steady(l.limit.DownFor, most), in.Count); n > to {
			to, why = n, fmt.Sprintf("fewer must be wanted for %v", l.limit.DownFor)
		}
		if r := l.limit.Down; r != (Rate{}) {
			base := within(r, most)
			if n := min(base-max(r.By, part(r.Share, base)), in.Count); n > to {
				to, why = n, fmt.Sprintf("from %d it may shrink by %d within %v", base, max(r.By, part(r.Share, base)), r.Per)
			}
		}
	}
	return to, why
}

package providertest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

func balancerCases() []testCase {
	on := func(f func(*suite, provider.Balancers)) func(*suite) {
		return func(s *suite) { f(s, capability[provider.Balancers](s)) }
	}
	return []testCase{
		{"Balancers/Targets", on(targets)},
		{"Balancers/Refused", on(balancerRefused)},
	}
}

// balancer makes a balancer and waits until it is ready.
func (s *suite) balancer() provider.Balancer {
	s.Helper()
	b := s.Balancer
	b.Token, b.Name, b.Tags, b.Drain = s.token(), "scalr-test", s.with("kind", "balancer"), time.Second
	made, err := as[provider.Balancers](s.Provider).CreateBalancer(s.ctx, b)
	s.ok(err, "a good request for one balancer succeeds")
	made = s.balancerWhen("a balancer gets ready", made.ID, func(b provider.Balancer) bool { return b.Ready })
	s.rule(made.Host != "" && made.Port == b.Port, "a balancer that is ready says where clients connect", "got %+v", made)
	s.rule(len(made.Targets) == 0, "a new balancer has no targets", "got %+v", made)
	return made
}

func (s *suite) balancerWhen(rule, id string, is func(provider.Balancer) bool) (found provider.Balancer) {
	s.Helper()
	s.eventually(rule, func() (bool, string) {
		list, err := as[provider.Balancers](s.Provider).Balancers(s.ctx, s.tags)
		s.ok(err, "balancers can be listed")
		for _, b := range list {
			if b.ID == id {
				found = b
				return is(b), fmt.Sprintf("%+v", b)
			}
		}
		return false, id + " is not listed"
	})
	return found
}

// target finds the state of an instance behind a balancer, "" if it is not there.
func target(b provider.Balancer, instance string) provider.TargetState {
	for _, t := range b.Targets {
		if t.Instance == instance {
			return t.State
		}
	}
	return ""
}

func registered(b provider.Balancer, instance string) bool {
	s := target(b, instance)
	return s == provider.TargetInitial || s == provider.TargetHealthy || s == provider.TargetUnhealthy
}

func targets(s *suite, p provider.Balancers) {
	one, two := s.running(), s.running()
	b := s.balancer()
	if has[provider.Traffic](s.Provider) {
		n, err := as[provider.Traffic](s.Provider).Requests(s.ctx, b.ID)
		s.ok(err, "the requests of a balancer can be counted")
		s.rule(n == 0, "a new balancer has taken no requests", "got %d", n)
	}
	for _, i := range []provider.Instance{one, two, one} {
		s.ok(p.RegisterTarget(s.ctx, b.ID, i.ID), "a running instance can be registered, also again")
	}
	full := s.balancerWhen("registered instances are listed as initial, healthy or unhealthy", b.ID, func(b provider.Balancer) bool {
		return registered(b, one.ID) && registered(b, two.ID)
	})
	s.rule(len(full.Targets) == 2, "a balancer has only what was registered, once each", "got %+v", full.Targets)
	s.rule(slices.IsSortedFunc(full.Targets, func(a, b provider.Target) int { return cmp.Compare(a.Instance, b.Instance) }),
		"targets are sorted by instance", "got %+v", full.Targets)
	full.Targets[0].Instance = "scribbled"
	again := s.balancerWhen("balancers can be listed", b.ID, func(b provider.Balancer) bool { return len(b.Targets) > 0 })
	s.rule(target(again, "scribbled") == "", "the slices in a list belong to the caller", "a change to one was seen in the next list")

	s.ok(p.DeregisterTarget(s.ctx, b.ID, one.ID), "a target can be deregistered")
	s.balancerWhen("a deregistered instance is listed as draining, or no more", b.ID, func(b provider.Balancer) bool { return !registered(b, one.ID) })
	left := s.balancerWhen("a draining instance is listed no more when the drain time has passed", b.ID, func(b provider.Balancer) bool {
		return target(b, one.ID) == ""
	})
	s.rule(registered(left, two.ID), "only what a call names is deregistered", "got %+v", left.Targets)
	s.ok(p.DeregisterTarget(s.ctx, b.ID, one.ID), "deregistering what is not there is no error")
	s.ok(p.RegisterTarget(s.ctx, b.ID, one.ID), "an instance can be registered again")
	s.balancerWhen("an instance can be registered again", b.ID, func(b provider.Balancer) bool { return registered(b, one.ID) })

	s.terminate(two.ID)
	s.balancerWhen("a terminated instance is not healthy", b.ID, func(b provider.Balancer) bool { return target(b, two.ID) != provider.TargetHealthy })
	s.ok(p.DeregisterTarget(s.ctx, b.ID, two.ID), "a terminated instance can be deregistered")
	s.ok(p.DeleteBalancer(s.ctx, b.ID), "a balancer with targets can be deleted")
	s.catchUp(instances, "")
	left2, ok := s.find(one.ID)
	s.rule(ok && left2.State == provider.Running, "deleting a balancer leaves its targets as they are", "got %s", left2)
}

func balancerRefused(s *suite, p provider.Balancers) {
	for field, set := range map[string]func(*provider.BalancerSpec){
		"Protocol":   func(b *provider.BalancerSpec) { b.Protocol = "smtp" },
		"Port":       func(b *provider.BalancerSpec) { b.Port = 0 },
		"TargetPort": func(b *provider.BalancerSpec) { b.TargetPort = 65536 },
		"HealthPath": func(b *provider.BalancerSpec) { b.HealthPath = "health" },
		"Drain":      func(b *provider.BalancerSpec) { b.Drain = -1 },
	} {
		b := s.Balancer
		b.Token, b.Tags = s.token(), s.tags
		set(&b)
		_, err := p.CreateBalancer(s.ctx, b)
		s.refused(err, fmt.Sprintf("a balancer with a bad %s is ErrInvalid", field), provider.ErrInvalid)
	}
	i := s.running()
	gone := s.balancer()
	s.ok(p.DeleteBalancer(s.ctx, gone.ID), "a balancer can be deleted")
	s.eventually("an instance cannot be registered with a balancer that does not exist: ErrNotFound", func() (bool, string) {
		err := p.RegisterTarget(s.ctx, gone.ID, i.ID)
		return is(err, provider.ErrNotFound), fmt.Sprint(err)
	})
	if has[provider.Traffic](s.Provider) {
		s.eventually("the requests of a balancer that does not exist cannot be counted: ErrNotFound", func() (bool, string) {
			n, err := as[provider.Traffic](s.Provider).Requests(s.ctx, gone.ID)
			return is(err, provider.ErrNotFound), fmt.Sprint(n, " ", err)
		})
	}
}

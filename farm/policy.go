package farm

import (
	"fmt"
	"slices"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
)

// policy gives the role's policy; nil for a role of fixed size.
func (r *Role) policy(custom map[string]scale.Policy) scale.Policy {
	if r.Scale == nil {
		return nil
	}
	return r.Scale.policy(custom)
}

func (s *Scale) policy(custom map[string]scale.Policy) (p scale.Policy) {
	switch {
	case s.Target != nil:
		p = s.Target
	case s.Threshold != nil:
		p = s.Threshold
	case s.Step != nil:
		p = s.Step
	case s.Forecast != nil:
		p = s.Forecast
	case s.Schedule != nil:
		p = s.Schedule
	case s.MaxOf != nil:
		all := make(scale.MaxOf, len(s.MaxOf))
		for i := range s.MaxOf {
			all[i] = s.MaxOf[i].policy(custom)
		}
		p = all
	default:
		p = measured{custom[s.Custom], s.Metric}
	}
	if s.Limit != nil {
		p = scale.Within(p, *s.Limit)
	}
	return p
}

// metrics names the sensors that the role's policy wants, each once.
func (r *Role) metrics() []string {
	if r.Scale == nil {
		return nil
	}
	return r.Scale.metrics(nil)
}

func (s *Scale) metrics(names []string) []string {
	name := s.Metric
	switch {
	case s.Target != nil:
		name = s.Target.Metric
	case s.Threshold != nil:
		name = s.Threshold.Metric
	case s.Step != nil:
		name = s.Step.Metric
	case s.Forecast != nil:
		name = s.Forecast.Metric
	}
	if name != "" && !slices.Contains(names, name) {
		names = append(names, name)
	}
	for i := range s.MaxOf {
		names = s.MaxOf[i].metrics(names)
	}
	return names
}

// clone gives a copy that shares nothing with s.
func (s *Scale) clone() *Scale {
	if s == nil {
		return nil
	}
	c := *s
	c.Target, c.Threshold, c.Step, c.Forecast, c.Schedule, c.Limit = copied(s.Target), copied(s.Threshold), copied(s.Step),
		copied(s.Forecast), copied(s.Schedule), copied(s.Limit)
	if c.Step != nil {
		c.Step.Up, c.Step.Down = slices.Clone(c.Step.Up), slices.Clone(c.Step.Down)
	}
	if c.Schedule != nil {
		c.Schedule.Windows = slices.Clone(c.Schedule.Windows)
		for i := range c.Schedule.Windows {
			c.Schedule.Windows[i].Days = slices.Clone(c.Schedule.Windows[i].Days)
		}
	}
	c.MaxOf = slices.Clone(s.MaxOf)
	for i := range c.MaxOf {
		c.MaxOf[i] = *c.MaxOf[i].clone()
	}
	return &c
}

// measured is a custom policy, which is asked only when its metric is there.
type measured struct {
	policy scale.Policy
	metric string
}

// Memory is what the policy says.
func (m measured) Memory() time.Duration { return scale.MemoryOf(m.policy) }

// Desired implements scale.Policy.
func (m measured) Desired(in scale.Input) scale.Decision {
	if m.metric != "" {
		if in = in.Of(m.metric); len(in.Samples) == 0 {
			return in.Hold("%s is missing: hold at %d", m.metric, in.Count)
		}
	}
	return m.policy.Desired(in)
}

// scaling checks the policy of a role.
func (f *faults) scaling(at string, s *Scale, c *Config) {
	if s == nil {
		return
	}
	set := 0
	for _, is := range []bool{s.Target != nil, s.Threshold != nil, s.Step != nil, s.Forecast != nil, s.Schedule != nil, s.MaxOf != nil, s.Custom != ""} {
		if is {
			set++
		}
	}
	if set != 1 {
		f.add(at, "has %d policies, want one of target, threshold, step, forecast, schedule, max_of and custom", set)
		return
	}
	if s.Metric != "" && s.Custom == "" {
		f.add(at+".metric", "is %q, but only a custom policy needs it: the others name their own", s.Metric)
	}
	switch {
	case s.Target != nil:
		f.each(at, s.Target.Check())
	case s.Threshold != nil:
		f.each(at, s.Threshold.Check())
	case s.Step != nil:
		f.each(at, s.Step.Check())
	case s.Forecast != nil:
		f.each(at, s.Forecast.Check())
	case s.Schedule != nil:
		f.each(at, s.Schedule.Check())
	case s.Custom != "" && isNil(c.Policies[s.Custom]):
		f.add(at, "config.Policies[%q] is missing", s.Custom)
	case s.MaxOf != nil && len(s.MaxOf) == 0:
		f.add(at+".max_of", "is empty, want policies")
	}
	for i := range s.MaxOf {
		f.scaling(fmt.Sprintf("%s.max_of[%d]", at, i), &s.MaxOf[i], c)
	}
	if s.Limit != nil {
		f.each(at+".limit", s.Limit.Check())
	}
	if s.MaxOf == nil { // those of its parts have been reported
		for _, metric := range s.metrics(nil) {
			if isNil(c.Sensors[metric]) {
				f.add(at, "config.Sensors[%q] is missing", metric)
			}
		}
	}
}

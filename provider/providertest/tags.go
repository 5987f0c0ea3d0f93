package providertest

import (
	"fmt"
	"maps"

	"github.com/scalr-go/scalr/provider"
)

func tagCases() []testCase {
	return []testCase{
		{"Tagger/Tags", func(s *suite) { tagRunning(s, capability[provider.Tagger](s)) }},
		{"Tagger/Gone", func(s *suite) { tagGone(s, capability[provider.Tagger](s)) }},
	}
}

func tagRunning(s *suite, p provider.Tagger) {
	token := s.token()
	launch := func(l *provider.Launch) { l.Token, l.Tags = token, s.with("scalr-test-stage", "new") }
	i, other := s.running(launch), s.running(func(l *provider.Launch) { l.Tags = s.with("scalr-test-stage", "new") })
	want := maps.Clone(i.Tags)
	want["scalr-test-stage"], want["scalr-test-more"] = "done", ""
	more := map[string]string{"scalr-test-stage": "done", "scalr-test-more": ""}
	s.ok(p.TagInstance(s.ctx, i.ID, more), "a running instance can be tagged")
	shows := func(value, id string) {
		s.eventually("lists go by the tags that an instance has now", func() (bool, string) {
			list, err := s.Provider.Instances(s.ctx, s.with("scalr-test-stage", value))
			s.ok(err, "instances can be listed")
			return len(list) == 1 && list[0].ID == id, fmt.Sprintf("by %q: %v", value, list)
		})
	}
	shows("done", i.ID)
	shows("new", other.ID)
	s.eventually("an instance that was tagged keeps its other tags", func() (bool, string) {
		now, _ := s.find(i.ID)
		return maps.Equal(now.Tags, want), fmt.Sprintf("%v, want %v", now.Tags, want)
	})
	s.ok(p.TagInstance(s.ctx, i.ID, more), "tags that an instance has already are no error")
	again := s.launch(launch)
	s.rule(again.ID == i.ID, "the token of an instance that was tagged meets it", "got %s, want %s", again, i)
}

func tagGone(s *suite, p provider.Tagger) {
	i := s.running()
	s.terminate(i.ID)
	s.refused(p.TagInstance(s.ctx, i.ID, map[string]string{"scalr-test-stage": "done"}), "an instance that is gone cannot be tagged: ErrNotFound", provider.ErrNotFound)
}

package providertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// suite is one case that runs.
type suite struct {
	tb
	Subject
	ctx    context.Context
	mark   string            // begins every token
	tags   map[string]string // on everything that the case makes
	tokens int
}

// token makes a new token.
func (s *suite) token() string {
	s.tokens++
	return fmt.Sprintf("%s-%d", s.mark, s.tokens)
}

// with is the case's tags with one more.
func (s *suite) with(key, value string) map[string]string {
	tags := maps.Clone(s.tags)
	tags[key] = value
	return tags
}

// rule ends the case if the rule is broken.
func (s *suite) rule(kept bool, rule, format string, args ...any) {
	s.Helper()
	if !kept {
		s.Fatalf("broken rule: %s\n\t%s", rule, fmt.Sprintf(format, args...))
	}
}

// ok ends the case if a call fails that has to succeed.
func (s *suite) ok(err error, rule string) {
	s.Helper()
	s.rule(err == nil, rule, "got the error: %v", err)
}

// refused checks the error of a call that has to fail with one of the kinds.
func (s *suite) refused(err error, rule string, kinds ...error) {
	s.Helper()
	s.rule(err != nil, rule, "got no error, want %v", kinds)
	s.rule(is(err, kinds...), rule, "got the error: %v\n\twant one that is %v", err, kinds)
	e, ok := errors.AsType[*provider.Error](err)
	s.rule(ok && e.Op != "", "errors are *provider.Error with the method in Op", "got %T: %v", err, err)
}

// is reports whether an error is one of the kinds.
func is(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(err, k) })
}

// eventually waits until look finds what the rule says. Look gives what it saw instead.
func (s *suite) eventually(rule string, look func() (bool, string)) {
	s.Helper()
	for end := time.Now().Add(s.Wait); ; time.Sleep(s.poll()) {
		ok, saw := look()
		if ok {
			return
		}
		s.rule(time.Now().Before(end) && s.ctx.Err() == nil, rule, "not within %s; saw: %s", s.Wait, saw)
	}
}

// launch launches an instance of the case.
func (s *suite) launch(change ...func(*provider.Launch)) provider.Instance {
	s.Helper()
	l := s.Launch
	l.Token, l.Name, l.Tags = s.token(), "scalr-test", maps.Clone(s.tags)
	for _, f := range change {
		f(&l)
	}
	i, err := s.Provider.Launch(s.ctx, l)
	s.ok(err, "a good launch succeeds")
	return i
}

// find finds an instance of the case in the list.
func (s *suite) find(id string) (provider.Instance, bool) {
	s.Helper()
	list, err := s.Provider.Instances(s.ctx, s.tags)
	s.ok(err, "instances can be listed")
	for _, i := range list {
		if i.ID == id {
			return i, true
		}
	}
	return provider.Instance{}, false
}

// until waits until an instance is listed in a state.
func (s *suite) until(state provider.State, id string) provider.Instance {
	s.Helper()
	var i provider.Instance
	s.eventually(fmt.Sprintf("an instance gets %s", state), func() (ok bool, saw string) {
		i, ok = s.find(id)
		return ok && i.State == state, i.String() + " " + i.Reason
	})
	return i
}

// running launches an instance and waits until it runs.
func (s *suite) running(change ...func(*provider.Launch)) provider.Instance {
	s.Helper()
	return s.until(provider.Running, s.launch(change...).ID)
}

// terminate ends an instance and waits until the list shows it. Since a list may be late with what is new, absence from
// it means something only afterwards.
func (s *suite) terminate(id string) {
	s.Helper()
	s.eventually("what was created is listed under its tags", func() (bool, string) {
		_, ok := s.find(id)
		return ok, id + " is not listed"
	})
	s.ok(s.Provider.Terminate(s.ctx, id), "an instance can be terminated")
	s.untilGone(id)
}

func (s *suite) untilGone(id string) {
	s.Helper()
	s.eventually("a terminated instance gets Terminated, or is listed no more", func() (bool, string) {
		i, ok := s.find(id)
		return !ok || i.State == provider.Terminated, i.String()
	})
}

// dead checks that a machine works no more.
func (s *suite) dead(i provider.Instance, rule string) {
	s.Helper()
	if s.Alive != nil {
		s.rule(!s.Alive(i), rule, "the machine of %s works on", i)
	}
}

// capability finds the capability T, or leaves the case out.
func capability[T any](s *suite) T {
	s.Helper()
	if !has[T](s.Provider) {
		s.Skipf("the provider has no %s", reflect.TypeFor[T]().Name())
	}
	return as[T](s.Provider)
}

// cleanUp ends everything that bears the case's tags. A case that has failed may have left what no list shows yet.
func (s *suite) cleanUp() {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.Wait)
	defer cancel()
	clean := time.Now()
	if s.Failed() {
		clean = clean.Add(s.Wait / 20)
	}
	for {
		left, err := s.end(ctx)
		if left == 0 && err == nil && !time.Now().Before(clean) {
			return
		}
		select {
		case <-ctx.Done():
			s.Errorf("broken rule: everything that was made can be ended\n\t%d things are left: %v", left, err)
			return
		case <-time.After(s.poll()):
		}
	}
}

// poll is the time between two looks.
func (s Subject) poll() time.Duration {
	return min(max(s.Wait/500, 10*time.Millisecond), 2*time.Second)
}

// end tries once to end everything that bears the case's tags, and counts what is left.
func (s *suite) end(ctx context.Context) (left int, err error) {
	var errs []error
	for _, k := range kinds() {
		if !k.has(s.Provider) {
			continue
		}
		list, err := k.list(ctx, s.Provider, s.tags)
		errs = append(errs, err)
		for _, x := range list {
			if !x.gone {
				left++
				errs = append(errs, k.end(ctx, s.Provider, x.id))
			}
		}
	}
	return left, errors.Join(errs...)
}

package providertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/scalr-go/scalr/provider"
)

// kind is one kind of thing that a provider creates, lists and ends, with what all kinds have in common.
type kind struct {
	name, plural string // "volume", "Volumes"
	// has reports whether the provider has this kind.
	has func(p provider.Provider) bool
	// prepare makes what things of the kind are made of: it returns the ID of a volume to take snapshots of.
	prepare func(s *suite) string
	create  func(ctx context.Context, p provider.Provider, s *suite, from string, r request) (item, error)
	list    func(ctx context.Context, p provider.Provider, tags map[string]string) ([]item, error)
	end     func(ctx context.Context, p provider.Provider, id string) error
}

// request is what all create calls take.
type request struct {
	token, name string
	tags        map[string]string
}

// item is what all things have.
type item struct {
	id     string
	tags   map[string]string
	ending bool // it is listed, but will end
	gone   bool // it is listed, but has ended
}

// kinds is all kinds, in the order in which they can be ended.
func kinds() []kind { return []kind{balancers, addresses, instances, images, snapshots, volumes} }

// commonCases are the rules that hold for every kind.
func commonCases(k kind) []testCase {
	plural := k.plural
	on := func(f func(*suite, kind, string)) func(*suite) {
		return func(s *suite) {
			if !k.has(s.Provider) {
				s.Skipf("the provider has no %s", plural)
			}
			from := ""
			if k.prepare != nil {
				from = k.prepare(s)
			}
			f(s, k, from)
		}
	}
	return []testCase{
		{plural + "/SameToken", on(sameToken)},
		{plural + "/SameTokenAtOnce", on(sameTokenAtOnce)},
		{plural + "/OtherParameters", on(otherParameters)},
		{plural + "/BadRequest", on(badRequest)},
		{plural + "/List", on(lists)},
		{plural + "/EndTwice", on(endTwice)},
		{plural + "/ContextEnded", on(contextEnded)},
		{plural + "/LostReply", on(lostReply)},
		{plural + "/AnotherProcess", on(anotherProcess)},
	}
}

func (s *suite) request() request {
	return request{token: s.token(), name: "scalr-test", tags: maps.Clone(s.tags)}
}

// make creates one thing.
func (s *suite) make(k kind, from string) item {
	s.Helper()
	x, err := k.create(s.ctx, s.Provider, s, from, s.request())
	s.ok(err, fmt.Sprintf("a good request for one %s succeeds", k.name))
	return x
}

// catchUp makes one more thing of a kind, and waits until it is listed: a list that is late shows then what was done
// before.
func (s *suite) catchUp(k kind, from string) (last string, all []item) {
	s.Helper()
	last = s.make(k, from).id
	s.eventually("what was created is listed under its tags", func() (bool, string) {
		var err error
		all, err = k.list(s.ctx, s.Provider, s.tags)
		s.ok(err, "a list is complete or an error, and works")
		return slices.ContainsFunc(all, func(x item) bool { return x.id == last }), fmt.Sprint(ids(all))
	})
	return last, all
}

// only checks that of all the case's requests these IDs are what there is, and gives the list.
func (s *suite) only(k kind, from, rule string, want ...string) []item {
	s.Helper()
	last, all := s.catchUp(k, from)
	want = append(slices.Clone(want), last)
	slices.Sort(want)
	got := ids(all)
	slices.Sort(got)
	s.rule(slices.Equal(got, want), rule, "%s are listed, want %s", got, want)
	return all
}

// unlisted waits until a thing that was ended is listed no more.
func (s *suite) unlisted(k kind, id string) {
	s.Helper()
	s.eventually("what was ended is listed no more, or as ended", func() (bool, string) {
		list, err := k.list(s.ctx, s.Provider, s.tags)
		s.ok(err, "a list is complete or an error, and works")
		return !slices.ContainsFunc(list, func(x item) bool { return x.id == id && !x.gone }), fmt.Sprint(ids(list))
	})
}

func ids(list []item) []string {
	var ids []string
	for _, x := range list {
		ids = append(ids, x.id)
	}
	return ids
}

func sameToken(s *suite, k kind, from string) {
	const rule = "the same token with the same parameters meets the same thing"
	r := s.request()
	first, err := k.create(s.ctx, s.Provider, s, from, r)
	s.ok(err, "a good request succeeds")
	s.rule(first.id != "", "what is created has an ID", "the ID is empty")
	s.rule(provider.Matches(first.tags, s.tags), "the reply shows the tags that were asked for", "got %v, want %v", first.tags, s.tags)
	for range 2 {
		r.tags = maps.Clone(s.tags)
		again, err := k.create(s.ctx, s.Provider, s, from, r)
		s.ok(err, rule)
		s.rule(again.id == first.id, rule, "got %s, then %s", first.id, again.id)
	}
	other := s.make(k, from)
	s.rule(other.id != first.id, "another token makes another thing", "got %s for both", first.id)
	s.only(k, from, rule, first.id, other.id)
	again, err := k.create(s.ctx, s.Provider, s, from, r)
	s.ok(err, rule)
	s.rule(again.id == first.id, rule, "got %s, and %s once it was listed", first.id, again.id)
}

func sameTokenAtOnce(s *suite, k kind, from string) {
	const rule = "many calls at once with one token make one thing"
	r := s.request()
	got, errs := make([]item, 8), make([]error, 8)
	var wg sync.WaitGroup
	for n := range got {
		wg.Go(func() {
			r := r
			r.tags = maps.Clone(s.tags)
			got[n], errs[n] = k.create(s.ctx, s.Provider, s, from, r)
		})
	}
	wg.Wait()
	id := ""
	for n, err := range errs {
		// A cloud may refuse a call while the same one is under way: that is an error of no lasting kind.
		for _, lasting := range []error{provider.ErrInvalid, provider.ErrNotFound, provider.ErrAuth, provider.ErrQuota} {
			s.rule(!errors.Is(err, lasting), rule, "one of the calls failed: %v", err)
		}
		if err == nil {
			s.rule(id == "" || id == got[n].id, rule, "got %s and %s", id, got[n].id)
			id = got[n].id
		}
	}
	s.rule(id != "", rule, "all calls failed: %v", errs[0])
	s.only(k, from, rule, id)
}

func otherParameters(s *suite, k kind, from string) {
	r := s.request()
	first, err := k.create(s.ctx, s.Provider, s, from, r)
	s.ok(err, "a good request succeeds")
	r.tags, r.name = maps.Clone(s.tags), "scalr-other"
	_, err = k.create(s.ctx, s.Provider, s, from, r)
	s.refused(err, "the same token with other parameters is ErrInvalid", provider.ErrInvalid)
	s.rule(strings.Contains(err.Error(), "Name"), "the error names the parameter that differs", "got %q, want it to name Name", err)
	s.only(k, from, "a refused call makes nothing", first.id)
}

func badRequest(s *suite, k kind, from string) {
	many := map[string]string{}
	for n := range 41 {
		many[fmt.Sprintf("key-%d", n)] = "x"
	}
	for _, bad := range []struct {
		field string
		r     request
	}{
		{"Token", request{token: "", tags: s.tags}},
		{"Token", request{token: strings.Repeat("x", 65), tags: s.tags}},
		{"Token", request{token: s.mark + " 1", tags: s.tags}},
		{"Token", request{token: s.mark + "-ü", tags: s.tags}},
		{"Tags", request{token: s.token(), tags: s.with("", "x")}},
		{"Tags", request{token: s.token(), tags: s.with(strings.Repeat("k", 129), "x")}},
		{"Tags", request{token: s.token(), tags: s.with("key", strings.Repeat("v", 256))}},
		{"Tags", request{token: s.token(), tags: many}},
	} {
		bad.r.name = "scalr-test"
		_, err := k.create(s.ctx, s.Provider, s, from, bad.r)
		s.refused(err, "a bad request is ErrInvalid", provider.ErrInvalid)
		s.rule(strings.Contains(err.Error(), bad.field), "an ErrInvalid names the field", "got %q, want it to name %s", err, bad.field)
	}
	s.only(k, from, "a refused call makes nothing")
}

func lists(s *suite, k kind, from string) {
	var made []item
	for n := range 4 {
		r := s.request()
		r.tags["number"] = fmt.Sprint(n % 2)
		given := maps.Clone(r.tags)
		x, err := k.create(s.ctx, s.Provider, s, from, r)
		s.ok(err, "a good request succeeds")
		s.rule(maps.Equal(r.tags, given), "a call leaves the maps that it is given as they are", "got %v, want %v", r.tags, given)
		clear(r.tags) // the caller may use its map again
		if x.tags != nil {
			x.tags["scribbled"] = "x"
		}
		made = append(made, x)
	}
	want := ids(made)
	slices.Sort(want)
	look := func(tags map[string]string) []item {
		list, err := k.list(s.ctx, s.Provider, tags)
		s.ok(err, "a list is complete or an error, and works")
		for _, x := range list {
			s.rule(provider.Matches(x.tags, tags), "a list has only what bears all of the tags", "asked for %v, got %s with %v", tags, x.id, x.tags)
		}
		got := ids(list)
		s.rule(slices.IsSorted(got), "lists are sorted by ID", "got %s", got)
		return list
	}
	s.eventually("a list has everything that bears the tags", func() (bool, string) {
		got := ids(look(s.tags))
		return slices.Equal(got, want), fmt.Sprintf("%s, want %s", got, want)
	})
	for n := range 2 {
		var half []string
		for m, x := range made {
			if m%2 == n {
				half = append(half, x.id)
			}
		}
		slices.Sort(half)
		got := ids(look(s.with("number", fmt.Sprint(n))))
		s.rule(slices.Equal(got, half), "a list has everything that bears the tags", "got %s, want %s", got, half)
	}
	none := look(s.with("number", "9"))
	s.rule(len(none) == 0, "a list has only what bears all of the tags", "got %s for tags that nothing bears", ids(none))
	everything, err := k.list(s.ctx, s.Provider, nil)
	s.ok(err, "nil tags list everything")
	for _, id := range want {
		s.rule(slices.Contains(ids(everything), id), "nil tags list everything", "%s is missing", id)
	}
	for _, x := range look(s.tags) {
		number := x.tags["number"]
		s.rule(provider.Matches(x.tags, s.with("number", number)), "what was created bears the tags of its request, whatever "+
			"the caller does with its map then", "%s has %v, want %v", x.id, x.tags, s.with("number", number))
		s.rule(x.tags["scribbled"] == "", "the map in a reply belongs to the caller", "a change to one was seen in a list")
		clear(x.tags)
	}
	for _, x := range look(nil) {
		if slices.Contains(want, x.id) {
			s.rule(x.tags["providertest"] == s.mark, "the maps in a list belong to the caller", "a change to one was seen in the next list")
		}
	}
}

func endTwice(s *suite, k kind, from string) {
	x, other := s.make(k, from), s.make(k, from)
	const gone = "ending what is gone is no error"
	s.eventually("what was created is listed under its tags", func() (bool, string) {
		list, err := k.list(s.ctx, s.Provider, s.tags)
		s.ok(err, "a list is complete or an error, and works")
		return len(list) == 2, fmt.Sprint(ids(list))
	})
	s.eventually("what was made can be ended", func() (bool, string) {
		err := k.end(s.ctx, s.Provider, x.id)
		return err == nil, fmt.Sprint(err)
	})
	s.ok(k.end(s.ctx, s.Provider, x.id), gone)
	s.unlisted(k, x.id)
	s.ok(k.end(s.ctx, s.Provider, x.id), gone)
	list, err := k.list(s.ctx, s.Provider, s.tags)
	s.ok(err, "a list is complete or an error, and works")
	i := slices.IndexFunc(list, func(y item) bool { return y.id == other.id })
	s.rule(i >= 0 && !list[i].gone, "only what a call names is ended", "%s has ended as well", other.id)
}

func contextEnded(s *suite, k kind, from string) {
	const rule = "a call whose context has ended fails with the context's error"
	const noEffect = "a call whose context had ended before has no effect"
	x := s.make(k, from)
	before := s.only(k, from, "one request makes one thing", x.id)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, err := k.create(ctx, s.Provider, s, from, s.request())
	s.rule(errors.Is(err, context.Canceled), rule, "creating a %s: %v", k.name, err)
	_, err = k.list(ctx, s.Provider, s.tags)
	s.rule(errors.Is(err, context.Canceled), rule, "listing %ss: %v", k.name, err)
	err = k.end(ctx, s.Provider, x.id)
	s.rule(errors.Is(err, context.Canceled), rule, "ending a %s: %v", k.name, err)
	for _, y := range s.only(k, from, noEffect, ids(before)...) {
		s.rule(!y.gone && !y.ending, noEffect, "%s has ended", y.id)
	}
}

func lostReply(s *suite, k kind, from string) {
	const rule = "a call that lost its reply meets the same thing when it is made again"
	// Contexts that end sooner and later: whichever of the calls took effect, together they make one thing.
	r := s.request()
	for wait := s.Wait / 100_000; wait < s.Wait/20; wait += wait / 2 {
		ctx, cancel := context.WithTimeout(s.ctx, wait)
		r.tags = maps.Clone(s.tags)
		_, err := k.create(ctx, s.Provider, s, from, r)
		cancel()
		if err == nil {
			break
		}
	}
	x, err := k.create(s.ctx, s.Provider, s, from, r)
	s.ok(err, rule)
	s.only(k, from, rule, x.id)
}

func anotherProcess(s *suite, k kind, from string) {
	if s.Another == nil {
		s.Skipf("Subject.Another is nil")
	}
	const rule = "another process meets, lists and ends the same things"
	r := s.request()
	x, err := k.create(s.ctx, s.Provider, s, from, r)
	s.ok(err, "a good request succeeds")
	another := s.Another()
	again, err := k.create(s.ctx, another, s, from, r)
	s.ok(err, rule)
	s.rule(again.id == x.id, rule, "the same token met %s, then %s", x.id, again.id)
	s.eventually(rule, func() (bool, string) {
		list, err := k.list(s.ctx, another, s.tags)
		s.ok(err, rule)
		return slices.Equal(ids(list), []string{x.id}), fmt.Sprint(ids(list))
	})
	s.eventually(rule, func() (bool, string) {
		err := k.end(s.ctx, another, x.id)
		return err == nil, fmt.Sprint(err)
	})
	s.eventually(rule, func() (bool, string) {
		list, err := k.list(s.ctx, s.Provider, s.tags)
		s.ok(err, rule)
		return len(list) == 0 || list[0].gone, fmt.Sprint(ids(list))
	})
}

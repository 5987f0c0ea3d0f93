package providertest

import (
	"fmt"

	"github.com/scalr-go/scalr/provider"
)

func addressCases() []testCase {
	on := func(f func(*suite, provider.Addresses)) func(*suite) {
		return func(s *suite) { f(s, capability[provider.Addresses](s)) }
	}
	return []testCase{
		{"Addresses/Move", on(addressMoves)},
		{"Addresses/Refused", on(addressRefused)},
	}
}

// address allocates an address.
func (s *suite) address() provider.Address {
	s.Helper()
	a := s.Address
	a.Token, a.Name, a.Tags = s.token(), "scalr-test", s.with("kind", "address")
	got, err := as[provider.Addresses](s.Provider).AllocateAddress(s.ctx, a)
	s.ok(err, "a good request for one address succeeds")
	s.rule(got.Addr.IsValid(), "an allocated address has its address", "got %+v", got)
	s.rule(got.Instance == "", "a new address is free", "got %+v", got)
	return got
}

// points waits until an address is listed with an instance, "" for none.
func (s *suite) points(id, instance, rule string) {
	s.Helper()
	s.eventually(rule, func() (bool, string) {
		list, err := as[provider.Addresses](s.Provider).Addresses(s.ctx, s.tags)
		s.ok(err, "addresses can be listed")
		for _, a := range list {
			if a.ID == id {
				return a.Instance == instance, fmt.Sprintf("%+v", a)
			}
		}
		return false, id + " is not listed"
	})
}

func addressMoves(s *suite, p provider.Addresses) {
	one, two := s.running(), s.running()
	a, b := s.address(), s.address()
	s.rule(a.Addr != b.Addr, "no two addresses are the same", "got %+v and %+v", a, b)
	shows := func(i provider.Instance, is bool, rule string) {
		s.Helper()
		s.eventually(rule, func() (bool, string) {
			i, ok := s.find(i.ID)
			return ok && (i.Public == a.Addr) == is, i.String()
		})
	}
	s.ok(p.DisassociateAddress(s.ctx, a.ID), "disassociating a free address is no error")
	s.ok(p.AssociateAddress(s.ctx, a.ID, one.ID), "a free address can be associated")
	s.points(a.ID, one.ID, "an associated address shows its instance")
	shows(one, true, "an instance shows the address that it has")
	s.ok(p.AssociateAddress(s.ctx, a.ID, one.ID), "associating an address again with the same instance is no error")
	s.points(a.ID, one.ID, "an associated address shows its instance")

	const moves = "an address moves to another instance in one call"
	s.ok(p.AssociateAddress(s.ctx, a.ID, two.ID), moves)
	s.points(a.ID, two.ID, moves)
	shows(two, true, moves)
	shows(one, false, "an instance shows an address no more that another one has")
	s.points(b.ID, "", "only what a call names is changed")

	s.ok(p.DisassociateAddress(s.ctx, a.ID), "an associated address can be disassociated")
	s.points(a.ID, "", "a disassociated address is free")
	shows(two, false, "an instance shows an address no more that it has lost")

	s.ok(p.AssociateAddress(s.ctx, a.ID, two.ID), "a free address can be associated")
	s.terminate(two.ID)
	const kept = "the address of a terminated instance stays, and is free"
	s.points(a.ID, "", kept)
	s.ok(p.AssociateAddress(s.ctx, a.ID, one.ID), kept)
	s.points(a.ID, one.ID, kept)
	s.ok(p.ReleaseAddress(s.ctx, a.ID), "an associated address can be released")
	shows(one, false, "an instance shows an address no more that was released")
	s.ok(p.ReleaseAddress(s.ctx, a.ID), "ending what is gone is no error")
}

func addressRefused(s *suite, p provider.Addresses) {
	i := s.running()
	a, gone := s.address(), s.address()
	s.ok(p.ReleaseAddress(s.ctx, gone.ID), "a free address can be released")
	s.eventually("an address that does not exist cannot be associated: ErrNotFound", func() (bool, string) {
		err := p.AssociateAddress(s.ctx, gone.ID, i.ID)
		return is(err, provider.ErrNotFound), fmt.Sprint(err)
	})
	s.terminate(i.ID)
	err := p.AssociateAddress(s.ctx, a.ID, i.ID)
	s.refused(err, "an address cannot be associated with a terminated instance", provider.ErrNotFound, provider.ErrInvalid)
	s.catchUp(addresses, "")
	s.points(a.ID, "", "a refused call leaves the address as it is")
}

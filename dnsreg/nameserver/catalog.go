package nameserver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
)

// Catalog is a zone that lists the server's zones (RFC 9432). A secondary that follows it serves all of them without being
// told of each in its configuration: BIND (catalog-zones) and Knot (catalog-role: interpret) do. Each zone must have the
// secondary among its own, too.
type Catalog struct {
	// Name is the catalog's name, which is not delegated to anybody: "catalog.invalid.". Required.
	Name string
	// Secondaries are who gets it; it is kept from all others. At least one.
	Secondaries []Secondary
}

// zone gives what a catalog is as a zone.
func (c *Catalog) zone() Zone {
	return Zone{Name: c.Name, NameServers: []string{"invalid."}, Contact: "invalid.", Secondaries: c.Secondaries}
}

// fill puts the list into the catalog's zone.
func (z *zone) fill(zones []Zone) error {
	t := z.snap.Load().begin()
	version, err := dnsreg.Canonical(dnsreg.RRset{Name: "version." + z.name, Type: "TXT", Values: []string{"2"}})
	if err != nil {
		return err
	}
	t.set(string(wire.AppendName(nil, version.Name)), encode(version))
	for _, member := range zones {
		sum := sha256.Sum256([]byte(member.Name)) // the same one after each start, so that secondaries keep their state
		name, err := dnsreg.CanonicalName(hex.EncodeToString(sum[:16]) + ".zones." + z.name)
		if err != nil {
			return err
		}
		data := wire.AppendName(nil, member.Name)
		t.set(string(wire.AppendName(nil, name)), rrset{typ: dns.TypePTR, n: 1, wire: append([]byte{0, byte(dns.TypePTR), 0, dns.ClassINET,
			0, 0, 0, 0, 0, byte(len(data))}, data...)})
	}
	z.snap.Store(&t.snapshot)
	return nil
}

func (c *Catalog) check(zones []Zone) (Zone, error) {
	spec := c.zone()
	if err := spec.defaults("nameserver: Catalog"); err != nil {
		return Zone{}, err
	}
	if len(spec.Secondaries) == 0 {
		return Zone{}, errors.New("nameserver: Catalog.Secondaries is empty, want at least one")
	}
	for _, z := range zones {
		if z.Name == spec.Name {
			return Zone{}, fmt.Errorf("nameserver: Catalog.Name is %s, which is in Zones too", z.Name)
		}
	}
	return spec, nil
}

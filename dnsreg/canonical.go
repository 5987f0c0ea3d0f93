package dnsreg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxTTL is the longest TTL (RFC 2181, section 8).
const maxTTL = (1<<31 - 1) * time.Second

// maxWire bounds an RRset's size in wire format, so that an answer that holds it fits into one DNS message of 65535 bytes
// together with the question and what else belongs there.
const maxWire = 64000

// Canonical checks an RRset and gives its one form: the name and the names in its values in lower case with the trailing
// dot, the TTL in whole seconds, the values in their shortest spelling, sorted and without repetition. Two RRsets mean the
// same if and only if their canonical forms are Equal. The error is an ErrInvalid that names the record, the value and the
// rule.
//
// The rules:
//   - A name has labels of 1 to 63 letters, digits, hyphens and underscores, hyphens not at an end, at most 253 characters
//     in all (RFC 1035, section 2.3.4). The first label may be an asterisk, for a wildcard (RFC 4592). Names in another
//     alphabet are written in their "xn--" form.
//   - The TTL is 0 to 2147483647 whole seconds (RFC 2181, section 8).
//   - There is at least one value, and all of them fit into one DNS message.
//   - A and AAAA: an address in its text form (RFC 5952), without a zone.
//   - CNAME and NS: one absolute name, with the trailing dot. A CNAME has one value and does not point to itself.
//     A wildcard has no NS (RFC 4592, section 4.2).
//   - MX: a preference and an absolute name. SRV: priority, weight, port and an absolute name (RFC 2782). The numbers are
//     0 to 65535; the name "." means "no service".
//   - TXT: any bytes as they are, also none: no quotes around it, no escapes in it. How it is split into strings of 255
//     bytes on its way does not count.
//   - SOA: two names and five numbers (RFC 1035, section 3.3.13). Registrars list it; it is never changed.
func Canonical(r RRset) (RRset, error) {
	name, err := CanonicalName(r.Name)
	if err != nil {
		return RRset{}, err
	}
	fault := func(format string, args ...any) (RRset, error) {
		return RRset{}, fmt.Errorf("%s %s: %w: %w", name, short(r.Type), ErrInvalid, fmt.Errorf(format, args...))
	}
	parse, ok := parsers[r.Type]
	if !ok {
		return fault("the type is not one of A, AAAA, CNAME, TXT, SRV, MX and NS")
	}
	switch {
	case r.TTL < 0 || r.TTL > maxTTL:
		return fault("TTL %v is not 0 to 2147483647 seconds", r.TTL)
	case r.TTL%time.Second != 0:
		return fault("TTL %v is not whole seconds", r.TTL)
	case len(r.Values) == 0:
		return fault("no values, want at least one")
	case r.Type == "NS" && strings.HasPrefix(name, "*."):
		return fault("a wildcard has no NS")
	}
	values := make([]string, len(r.Values))
	for i, v := range r.Values {
		c, _, err := parse(v)
		if err != nil {
			return fault("value %q %w", short(v), err)
		}
		if r.Type == "CNAME" && c == name {
			return fault("value %q is the name itself", short(v))
		}
		values[i] = c
	}
	slices.Sort(values)
	values = slices.Compact(values)
	wire := 0
	if len(values) > 1 || len(values[0]) > 1000 {
		for _, c := range values {
			_, size, _ := parse(c)
			wire += 12 + size
		}
	}
	if len(values) > 1 && (r.Type == "CNAME" || r.Type == "SOA") {
		return fault("%d values, want one", len(values))
	}
	if wire > maxWire {
		return fault("the values are %d bytes in a DNS message, want at most %d", wire, maxWire)
	}
	return RRset{Name: name, Type: r.Type, TTL: r.TTL, Values: values}, nil
}

// CanonicalName checks an absolute domain name by the rules of [Canonical] and gives it in lower case with the trailing
// dot, which may be missing. The error is an ErrInvalid.
func CanonicalName(name string) (string, error) {
	n := strings.ToLower(name)
	if n != "" && !strings.HasSuffix(n, ".") {
		n += "."
	}
	if err := checkName(n, true); err != nil {
		return "", fmt.Errorf("name %q: %w: %w", short(name), ErrInvalid, err)
	}
	return n, nil
}

// checkName reports what is wrong with a name in lower case with the trailing dot, without saying which name.
func checkName(n string, wildcard bool) error {
	switch {
	case n == "":
		return errors.New("is empty")
	case n == ".":
		return nil
	case len(n) > 254:
		return fmt.Errorf("has %d characters, want at most 253", len(n)-1)
	}
	first := true
	for label := range strings.SplitSeq(n[:len(n)-1], ".") {
		switch {
		case label == "":
			return errors.New("has an empty label")
		case len(label) > 63:
			return fmt.Errorf("has a label of %d characters, want at most 63", len(label))
		case label == "*" && first && wildcard:
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("has a label with a hyphen at its end, %q", label)
		default:
			for i := range len(label) {
				if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
					return fmt.Errorf("has a label with %q, want letters, digits, hyphens and underscores", label[i:i+1])
				}
			}
		}
		first = false
	}
	return nil
}

// canonicalZone checks the name of a zone.
func canonicalZone(zone string) (string, error) {
	z, err := CanonicalName(zone)
	switch {
	case err != nil:
		return "", fmt.Errorf("zone: %w", err)
	case z == "." || strings.HasPrefix(z, "*."):
		return "", fmt.Errorf("zone %q: %w: the root and wildcards are no zones", z, ErrInvalid)
	}
	return z, nil
}

// inZone reports whether a canonical name is the zone's or below it.
func inZone(name, zone string) bool {
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// CanonicalChanges checks a change set for a zone and gives it in canonical form, in the same order. Registrars call it
// first. Beyond the rules of [Canonical]: the names are in the zone; each RRset is changed once at most; Old or New is
// there, each of the change's name and type; a new CNAME is not the zone's own name and stands alone among what the set
// creates at its name (RFC 1034, section 3.6.2); the zone's SOA is not changed and its NS not removed.
func CanonicalChanges(zone string, changes []Change) ([]Change, error) {
	zone, err := canonicalZone(zone)
	if err != nil {
		return nil, err
	}
	type key struct{ name, typ string }
	seen := make(map[key]bool, len(changes))
	creates := make(map[string]string, len(changes))
	out := make([]Change, len(changes))
	for i, c := range changes {
		name, err := CanonicalName(c.Name)
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i, err)
		}
		fault := func(rule string) ([]Change, error) {
			return nil, fmt.Errorf("%s %s: %w: %s", name, short(c.Type), ErrInvalid, rule)
		}
		out[i] = Change{Name: name, Type: c.Type}
		for _, side := range []struct {
			what string
			from *RRset
			to   **RRset
		}{{"Old", c.Old, &out[i].Old}, {"New", c.New, &out[i].New}} {
			if side.from == nil {
				continue
			}
			r, err := Canonical(*side.from)
			if err != nil {
				return nil, err
			}
			if r.Name != name || r.Type != c.Type {
				return fault(fmt.Sprintf("%s is %s %s, want the change's name and type", side.what, r.Name, r.Type))
			}
			*side.to = &r
		}
		k := key{name, c.Type}
		switch {
		case c.Old == nil && c.New == nil:
			return fault("neither Old nor New")
		case !inZone(name, zone):
			return fault("the name is not in zone " + zone)
		case c.Type == "SOA":
			return fault("the SOA is the registrar's own")
		case c.Type == "NS" && name == zone && c.New == nil:
			return fault("a zone keeps its NS")
		case c.Type == "CNAME" && name == zone && c.New != nil:
			return fault("a CNAME cannot be at the zone's own name")
		case seen[k]:
			return fault("changed twice in one set")
		}
		seen[k] = true
		if c.New != nil {
			if other := creates[name]; other != "" && (other == "CNAME" || c.Type == "CNAME") {
				return fault("a CNAME stands alone, the set also creates " + other)
			}
			creates[name] = c.Type
		}
	}
	return out, nil
}

// short bounds what an error message quotes.
func short(s string) string {
	if len(s) > 260 {
		return s[:257] + "..."
	}
	return s
}

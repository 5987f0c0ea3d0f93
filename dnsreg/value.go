package dnsreg

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// parsers hold, for each type, what checks one value and gives its canonical text and its size in wire format. Errors
// complete the sentence "value … ".
var parsers = map[string]func(string) (string, int, error){
	"A":     func(v string) (string, int, error) { return address(v, netip.Addr.Is4, 4, "an IPv4 address") },
	"AAAA":  func(v string) (string, int, error) { return address(v, netip.Addr.Is6, 16, "an IPv6 address") },
	"CNAME": func(v string) (string, int, error) { return target(v, false) },
	"NS":    func(v string) (string, int, error) { return target(v, false) },
	"MX":    func(v string) (string, int, error) { return numbersAndTarget(v, "preference") },
	"SRV":   func(v string) (string, int, error) { return numbersAndTarget(v, "priority", "weight", "port") },
	"TXT":   text,
	"SOA":   soa,
}

func address(v string, is func(netip.Addr) bool, size int, what string) (string, int, error) {
	a, err := netip.ParseAddr(v)
	if err != nil || !is(a) || a.Zone() != "" {
		return "", 0, fmt.Errorf("is not %s", what)
	}
	return a.String(), size, nil
}

// target checks a domain name within a value. Without its trailing dot it would be relative to the zone elsewhere, so
// that is an error here.
func target(v string, root bool) (string, int, error) {
	n := strings.ToLower(v)
	switch {
	case n == "." && !root:
		return "", 0, errors.New("is the root, want a name")
	case !strings.HasSuffix(n, "."):
		return "", 0, errors.New("is not absolute, want a name with the trailing dot")
	}
	if err := checkName(n, false); err != nil {
		return "", 0, err
	}
	if n == "." {
		return n, 1, nil
	}
	return n, len(n) + 1, nil
}

func numbersAndTarget(v string, names ...string) (string, int, error) {
	f := strings.Fields(v)
	if len(f) != len(names)+1 {
		return "", 0, fmt.Errorf("has %d fields, want %s and a name", len(f), strings.Join(names, ", "))
	}
	var b strings.Builder
	for i, what := range names {
		n, err := strconv.ParseUint(f[i], 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("has the %s %q, want 0 to 65535", what, short(f[i]))
		}
		b.WriteString(strconv.FormatUint(n, 10))
		b.WriteByte(' ')
	}
	t, size, err := target(f[len(names)], true)
	if err != nil {
		return "", 0, fmt.Errorf("has a name that %w", err)
	}
	return b.String() + t, 2*len(names) + size, nil
}

func text(v string) (string, int, error) { return v, len(v) + max(1, (len(v)+254)/255), nil }

func soa(v string) (string, int, error) {
	f := strings.Fields(v)
	if len(f) != 7 {
		return "", 0, fmt.Errorf("has %d fields, want two names and five numbers", len(f))
	}
	size := 20
	for i := range f {
		if i < 2 {
			t, n, err := target(f[i], true)
			if err != nil {
				return "", 0, fmt.Errorf("has a name that %w", err)
			}
			f[i] = t
			size += n
			continue
		}
		n, err := strconv.ParseUint(f[i], 10, 32)
		if err != nil {
			return "", 0, fmt.Errorf("has the number %q, want 0 to 4294967295", short(f[i]))
		}
		f[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(f, " "), size, nil
}

package dnsreg

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	markLabel    = "_scalr."     // before the name whose values are marked
	markAnyLabel = "_scalr-any." // in place of a wildcard's asterisk
)

// mark says that an owner put one value there, and which TTL it wants for it.
type mark struct {
	owner string
	typ   string
	ttl   time.Duration
	key   string // the value, as valueKey spells it
}

// String gives the mark as the TXT value that the package doc describes.
func (m mark) String() string {
	return "v=scalr1 owner=" + m.owner + " type=" + m.typ + " ttl=" + strconv.FormatInt(int64(m.ttl/time.Second), 10) + " " + m.key
}

const (
	crowded   = 100  // of more addresses than these, marks say several at once
	crowdText = 1000 // how long such a mark is at most
)

// markTexts gives the TXT values that mark an owner's values of one type, sorted and each once.
func markTexts(owner, typ string, ttl time.Duration, values []string) (texts []string) {
	size := addressSize(typ)
	if len(values) <= crowded || size == 0 {
		for _, v := range values {
			texts = append(texts, mark{owner, typ, ttl, valueKey(v)}.String())
		}
		return texts
	}
	addrs := make([]netip.Addr, len(values))
	for i, v := range values {
		addrs[i] = netip.MustParseAddr(v) // they are canonical
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	before := crowdBefore(owner, typ, ttl)
	most := base64.RawURLEncoding.DecodedLen(crowdText-len(before)) / size
	for some := range slices.Chunk(addrs, most) {
		var data []byte
		for _, a := range some {
			data = append(data, a.AsSlice()...)
		}
		texts = append(texts, before+base64.RawURLEncoding.EncodeToString(data))
	}
	return texts
}

// crowdBefore is what a mark of several addresses begins with.
func crowdBefore(owner, typ string, ttl time.Duration) string {
	return "v=scalr2 owner=" + owner + " type=" + typ + " ttl=" + strconv.FormatInt(int64(ttl/time.Second), 10) + " addresses="
}

// addressSize is how many bytes an address of the type has; 0 for other types.
func addressSize(typ string) int {
	switch typ {
	case "A":
		return 4
	case "AAAA":
		return 16
	}
	return 0
}

// parseMarks reads a TXT value; it is a mark, or several in one, only if it is spelled exactly as markTexts spells it.
func parseMarks(text string) []mark {
	first := strings.HasPrefix(text, "v=scalr1 ")
	if !first && !strings.HasPrefix(text, "v=scalr2 ") {
		return nil
	}
	f := strings.SplitN(text, " ", 5)
	if len(f) != 5 {
		return nil
	}
	ttl, err := strconv.ParseUint(strings.TrimPrefix(f[3], "ttl="), 10, 31)
	if err != nil {
		return nil
	}
	m := mark{
		owner: strings.TrimPrefix(f[1], "owner="),
		typ:   strings.TrimPrefix(f[2], "type="),
		ttl:   time.Duration(ttl) * time.Second,
		key:   f[4],
	}
	if first {
		if m.String() != text {
			return nil
		}
		return []mark{m}
	}
	size, before := addressSize(m.typ), crowdBefore(m.owner, m.typ, m.ttl)
	coded, ok := strings.CutPrefix(text, before)
	data, err := base64.RawURLEncoding.Strict().DecodeString(coded)
	if !ok || err != nil || size == 0 || len(data) == 0 || len(data)%size != 0 || strings.ContainsAny(coded, "\r\n") {
		return nil
	}
	var marks []mark
	var last netip.Addr
	for some := range slices.Chunk(data, size) {
		a, _ := netip.AddrFromSlice(some)
		if last.IsValid() && !last.Less(a) {
			return nil
		}
		last, m.key = a, "value="+a.String()
		marks = append(marks, m)
	}
	return marks
}

// isMarkOf reports whether a TXT value is a mark of the owner's.
func isMarkOf(owner, text string) bool {
	marks := parseMarks(text)
	return len(marks) > 0 && marks[0].owner == owner
}

// valueKey names a value within a mark: by itself where it is short and no host alters it, by its hash elsewhere.
func valueKey(v string) string {
	plain := len(v) > 0 && len(v) <= 128 && v[0] != ' ' && v[len(v)-1] != ' '
	for i := 0; plain && i < len(v); i++ {
		plain = v[i] >= ' ' && v[i] <= '~' && !strings.ContainsRune(`"\;`, rune(v[i]))
	}
	if plain {
		return "value=" + v
	}
	sum := sha256.Sum256([]byte(v))
	return "sha256=" + hex.EncodeToString(sum[:])
}

// markName gives the name at which the marks of a name stand.
func markName(name string) string {
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		return markAnyLabel + rest
	}
	return markLabel + name
}

// markedName is the inverse of markName; it reports false for a name at which no marks stand.
func markedName(name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, markAnyLabel); ok {
		return "*." + rest, true
	}
	return strings.CutPrefix(name, markLabel)
}

// checkOwner keeps a mark's fields apart, and the text of one value's under 255 bytes.
func checkOwner(owner string) error {
	if len(owner) == 0 || len(owner) > 63 {
		return fmt.Errorf("owner %q: %w: has %d characters, want 1 to 63", short(owner), ErrInvalid, len(owner))
	}
	for i := range len(owner) {
		c := owner[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_./", c) >= 0) {
			return fmt.Errorf("owner %q: %w: has %q, want letters, digits, '-', '_', '.' and '/'", owner, ErrInvalid, c)
		}
	}
	return nil
}

// checkOwnable reports what is wrong with a canonical name as the name of an owner's values, beyond what is wrong with it
// as a name.
func checkOwnable(name, zone string) error {
	if !inZone(name, zone) {
		return fmt.Errorf("the name is not in zone %s", zone)
	}
	if _, ok := markedName(name); ok {
		return errors.New("the name is kept for marks")
	}
	if n := len(markName(name)) - 1; n > 253 {
		return fmt.Errorf("the name of its marks, %s, has %d characters, want at most 253", short(markName(name)), n)
	}
	return nil
}

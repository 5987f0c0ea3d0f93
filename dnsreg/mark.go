package dnsreg

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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

// parseMark reads a TXT value; it is a mark only if it is spelled exactly as String spells it.
func parseMark(text string) (mark, bool) {
	if !strings.HasPrefix(text, "v=scalr1 ") {
		return mark{}, false
	}
	f := strings.SplitN(text, " ", 5)
	if len(f) != 5 {
		return mark{}, false
	}
	ttl, err := strconv.ParseUint(strings.TrimPrefix(f[3], "ttl="), 10, 31)
	if err != nil {
		return mark{}, false
	}
	m := mark{
		owner: strings.TrimPrefix(f[1], "owner="),
		typ:   strings.TrimPrefix(f[2], "type="),
		ttl:   time.Duration(ttl) * time.Second,
		key:   f[4],
	}
	return m, m.String() == text
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

// checkOwner keeps a mark's fields apart and its text under 255 bytes.
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

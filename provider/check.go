package provider

import (
	"fmt"
	"maps"
	"slices"
)

// CheckToken reports what is wrong with an idempotency token: it must have 1 to 64 letters, digits, '-' or '_'.
func CheckToken(op, token string) error {
	if len(token) == 0 || len(token) > 64 {
		return Errorf(op, token, ErrInvalid, "Token has %d characters, want 1 to 64", len(token))
	}
	for _, c := range []byte(token) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return Errorf(op, token, ErrInvalid, "Token has %q, want letters, digits, '-' and '_'", c)
		}
	}
	return nil
}

// CheckTags reports the first tag, in the order of keys, that no cloud would take.
func CheckTags(op, id string, tags map[string]string) error {
	if len(tags) > 40 {
		return Errorf(op, id, ErrInvalid, "Tags has %d entries, want at most 40", len(tags))
	}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if k == "" || len(k) > 128 {
			return Errorf(op, id, ErrInvalid, "Tags has a key of %d bytes, want 1 to 128", len(k))
		}
		if len(tags[k]) > 255 {
			return Errorf(op, id, ErrInvalid, "Tags[%s] has %d bytes, want at most 255", k, len(tags[k]))
		}
	}
	return nil
}

// Check reports what is wrong with l apart from what only the cloud can know.
func (l Launch) Check() error {
	if err := CheckToken("Launch", l.Token); err != nil {
		return err
	}
	if l.Image == "" {
		return Errorf("Launch", l.Token, ErrInvalid, "Image is empty, want the name of an image")
	}
	return CheckTags("Launch", l.Token, l.Tags)
}

// Matches reports whether tags holds every key and value of want.
func Matches(tags, want map[string]string) bool {
	for k, v := range want {
		if got, ok := tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// String gives the instance for a person: its ID, state and addresses.
func (i Instance) String() string {
	s := fmt.Sprintf("%s %s", i.ID, i.State)
	if i.Private.IsValid() {
		s += " " + i.Private.String()
	}
	if i.Public.IsValid() && i.Public != i.Private {
		s += " " + i.Public.String()
	}
	return s
}

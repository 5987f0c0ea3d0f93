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
		if !(isAlnum(c) || c == '-' || c == '_') {
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

// checkCreate checks what every create call has.
func checkCreate(op, token string, tags map[string]string) error {
	if err := CheckToken(op, token); err != nil {
		return err
	}
	return CheckTags(op, token, tags)
}

// Check reports what is wrong with l apart from what only the cloud can know.
func (l Launch) Check() error {
	const op = "Launch"
	if err := checkCreate(op, l.Token, l.Tags); err != nil {
		return err
	}
	if l.Name != "" && !isLabel(l.Name) {
		return Errorf(op, l.Token, ErrInvalid, "Name is %q, want a DNS label: letters, digits and inner '-', at most 63", l.Name)
	}
	if l.Image == "" {
		return Errorf(op, l.Token, ErrInvalid, "Image is empty, want the name of an image")
	}
	for i, v := range l.Volumes {
		if v == "" || slices.Contains(l.Volumes[:i], v) {
			return Errorf(op, l.Token, ErrInvalid, "Volumes[%d] is %q, want the ID of another volume each", i, v)
		}
	}
	return nil
}

// Check reports what is wrong with s apart from what only the cloud can know.
func (s VolumeSpec) Check() error {
	const op = "CreateVolume"
	if err := checkCreate(op, s.Token, s.Tags); err != nil {
		return err
	}
	if s.SizeGB < 0 || s.SizeGB == 0 && s.Snapshot == "" {
		return Errorf(op, s.Token, ErrInvalid, "SizeGB is %d, want at least 1, or 0 with a Snapshot", s.SizeGB)
	}
	return nil
}

// Check reports what is wrong with s apart from what only the cloud can know.
func (s SnapshotSpec) Check() error {
	const op = "CreateSnapshot"
	if err := checkCreate(op, s.Token, s.Tags); err != nil {
		return err
	}
	if s.Volume == "" {
		return Errorf(op, s.Token, ErrInvalid, "Volume is empty, want the ID of a volume")
	}
	return nil
}

// Check reports what is wrong with s apart from what only the cloud can know.
func (s AddressSpec) Check() error { return checkCreate("AllocateAddress", s.Token, s.Tags) }

// Check reports what is wrong with s apart from what only the cloud can know.
func (s BalancerSpec) Check() error {
	const op = "CreateBalancer"
	if err := checkCreate(op, s.Token, s.Tags); err != nil {
		return err
	}
	switch {
	case s.Protocol != "http" && s.Protocol != "tcp":
		return Errorf(op, s.Token, ErrInvalid, "Protocol is %q, want http or tcp", s.Protocol)
	case s.Port < 1 || s.Port > 65535:
		return Errorf(op, s.Token, ErrInvalid, "Port is %d, want 1 to 65535", s.Port)
	case s.TargetPort < 0 || s.TargetPort > 65535:
		return Errorf(op, s.Token, ErrInvalid, "TargetPort is %d, want 1 to 65535, or 0 for Port", s.TargetPort)
	case s.HealthPath != "" && s.HealthPath[0] != '/':
		return Errorf(op, s.Token, ErrInvalid, "HealthPath is %q, want a path that begins with /", s.HealthPath)
	case s.Drain < 0:
		return Errorf(op, s.Token, ErrInvalid, "Drain is %s, want at least 0", s.Drain)
	}
	return nil
}

// Check reports what is wrong with s apart from what only the cloud can know.
func (s ImageSpec) Check() error {
	const op = "CreateImage"
	if err := checkCreate(op, s.Token, s.Tags); err != nil {
		return err
	}
	if s.Instance == "" {
		return Errorf(op, s.Token, ErrInvalid, "Instance is empty, want the ID of an instance")
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isLabel reports whether s is one label of a host name (RFC 1123, section 2.1).
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !isAlnum(c) && c != '-' {
			return false
		}
	}
	return true
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

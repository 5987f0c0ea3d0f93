package provider

import "fmt"

// Secret is bytes that must not be shown: it prints, logs and marshals as its length only.
type Secret []byte

// String gives the length, never the content.
func (s Secret) String() string { return fmt.Sprintf("[%d bytes]", len(s)) }

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// Format keeps every verb from showing the content.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText is String, for JSON and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

package provider

import "fmt"

// Secret is bytes that must not be shown: it prints, logs and marshals as its length only.
type Secret []byte

// String gives the length, never the content.
func (s Secret) String() string { return fmt.Sprintf("[%d bytes]", len(s)) }

// Format keeps every verb from showing the content.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText is String, for JSON and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String gives the program and its arguments, and of what may be secret only how many variables there are.
func (c Command) String() string {
	return fmt.Sprintf("%q with %d variables", c.Args, len(c.Env))
}

// Format keeps every verb from showing more than String.
func (c Command) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// MarshalText is String, for JSON and slog.
func (c Command) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

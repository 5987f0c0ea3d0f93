package designate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
)

// longest is how many characters Designate takes in one string of a TXT value, escapes included.
const longest = 253

// quote writes a TXT value as one or more quoted strings (RFC 1035, section 5.1). Quotes and backslashes are written by their
// numbers: Designate takes the strings apart without knowing that either may be escaped.
func quote(v string) string {
	var b strings.Builder
	b.WriteByte('"')
	size := 0
	for i := range len(v) {
		c := string(v[i])
		if v[i] < ' ' || v[i] > '~' || v[i] == '"' || v[i] == '\\' {
			c = fmt.Sprintf(`\%03d`, v[i])
		}
		if size+len(c) > longest {
			b.WriteString(`" "`)
			size = 0
		}
		b.WriteString(c)
		size += len(c)
	}
	b.WriteByte('"')
	return b.String()
}

// unquote reads a TXT value in presentation format: its strings, quoted or not, one after another.
func unquote(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted:
		case c != '\\' || i+1 == len(s):
			b.WriteByte(c)
		default:
			if i+3 < len(s) {
				if n, err := strconv.ParseUint(s[i+1:i+4], 10, 8); err == nil {
					b.WriteByte(byte(n))
					i += 3
					continue
				}
			}
			i++
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// statusOf gives the status of Designate's answer, 0 if there was none.
func statusOf(err error) int {
	if e, ok := errors.AsType[gophercloud.ErrUnexpectedResponseCode](err); ok {
		return e.Actual
	}
	if e, ok := errors.AsType[*gophercloud.ErrUnexpectedResponseCode](err); ok {
		return e.Actual
	}
	return 0
}

// clean keeps the SDK's error, which has the answer's headers, out of the chain.
func clean(err error) error {
	if statusOf(err) == 0 {
		return err
	}
	text := err.Error()
	if len(text) > 600 {
		text = text[:600] + "…"
	}
	return errors.New(text)
}

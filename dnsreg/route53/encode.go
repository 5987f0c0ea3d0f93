package route53

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"

	"github.com/scalr-go/scalr/dnsreg"
)

// encode gives the batch of a change set, which is canonical: what goes, goes first, so that a CNAME may take the place of
// other data, or they its place. What is deleted and listed is deleted as it is listed: Route 53 compares a TXT string by
// string, and the same text may be cut into others.
func encode(zone string, changes []dnsreg.Change, listed map[setKey]types.ResourceRecordSet) ([]types.Change, error) {
	var gone, come []types.Change
	records, chars := 0, 0
	add := func(to *[]types.Change, action types.ChangeAction, r *dnsreg.RRset) {
		s := types.ResourceRecordSet{Name: &r.Name, Type: types.RRType(r.Type), TTL: aws.Int64(int64(r.TTL / time.Second))}
		times := 1
		if action == types.ChangeActionUpsert {
			times = 2
		}
		values := make([]string, len(r.Values))
		for i, v := range r.Values {
			if values[i] = v; r.Type == "TXT" {
				values[i] = quote(v)
			}
		}
		if is, ok := listed[setKey{r.Name, r.Type}]; ok && action == types.ChangeActionDelete {
			values = nil
			for _, v := range is.ResourceRecords {
				values = append(values, aws.ToString(v.Value))
			}
		}
		for _, v := range values {
			s.ResourceRecords = append(s.ResourceRecords, types.ResourceRecord{Value: aws.String(v)})
			records += times
			chars += times * len(v)
		}
		*to = append(*to, types.Change{Action: action, ResourceRecordSet: &s})
	}
	for _, c := range changes {
		if c.Name == zone && c.Type == "NS" && c.Old != nil && c.New != nil {
			add(&come, types.ChangeActionUpsert, c.New)
			continue
		}
		if c.Old != nil {
			add(&gone, types.ChangeActionDelete, c.Old)
		}
		if c.New != nil {
			add(&come, types.ChangeActionCreate, c.New)
		}
	}
	for _, l := range []struct {
		what     string
		is, most int
	}{{"changes", len(changes), maxChanges}, {"values", records, maxRecords}, {"characters in values", chars, maxChars}} {
		if l.is > l.most {
			return nil, fmt.Errorf("%d changes of %s: %w: they have %d %s, want at most %d", len(changes), zone, dnsreg.ErrInvalid,
				l.is, l.what, l.most)
		}
	}
	return slices.Concat(gone, come), nil
}

// decode gives a record set as package dnsreg writes it; the values of types that it does not know are as they are.
func decode(s types.ResourceRecordSet) (dnsreg.RRset, error) {
	r := dnsreg.RRset{Name: unescape(aws.ToString(s.Name)), Type: string(s.Type), TTL: time.Duration(aws.ToInt64(s.TTL)) * time.Second}
	for _, v := range s.ResourceRecords {
		text := aws.ToString(v.Value)
		if r.Type == "TXT" {
			var err error
			if text, err = unquote(text); err != nil {
				return dnsreg.RRset{}, fmt.Errorf("%s TXT: %w", r.Name, err)
			}
		}
		if pointsTo(r.Type) && !strings.HasSuffix(text, ".") {
			text += "." // with the dot or without, it is the same to Route 53
		}
		r.Values = append(r.Values, text)
	}
	if c, err := dnsreg.Canonical(r); err == nil {
		return c, nil
	}
	slices.Sort(r.Values)
	return r, nil
}

// pointsTo reports whether the values of a type end with a name.
func pointsTo(typ string) bool { return typ == "CNAME" || typ == "NS" || typ == "MX" || typ == "SRV" }

// quote writes a text as strings of up to 255 bytes in quotes, with octal codes for what is not printable ASCII (Route 53
// Developer Guide, "TXT record type").
func quote(v string) string {
	var b strings.Builder
	for {
		part := v[:min(255, len(v))]
		v = v[len(part):]
		b.WriteByte('"')
		for i := range len(part) {
			switch c := part[i]; {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c > '~':
				fmt.Fprintf(&b, `\%03o`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
		if v == "" {
			return b.String()
		}
		b.WriteByte(' ')
	}
}

// unquote is the inverse of quote, for any number of strings.
func unquote(v string) (string, error) {
	var b strings.Builder
	for rest := strings.TrimSpace(v); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		if rest[0] != '"' {
			return "", fmt.Errorf("value %q is not in quotes", v)
		}
		end := 1
		for ; end < len(rest) && rest[end] != '"'; end++ {
			if rest[end] == '\\' {
				end++
			}
		}
		if end >= len(rest) {
			return "", fmt.Errorf("value %q has a quote that does not end", v)
		}
		b.WriteString(unescape(rest[1:end]))
		rest = rest[end+1:]
	}
	return b.String(), nil
}

// unescape takes a backslash before another character away, and gives the byte for the octal code of one.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	octal := func(i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '7' }
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && octal(i+1) && octal(i+2) && octal(i+3):
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
		case s[i] == '\\' && i+1 < len(s):
			i++
			b = append(b, s[i])
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}

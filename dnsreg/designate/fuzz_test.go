package designate

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever Designate lists is an error, or is listed so that it means the same when it is written back.
func FuzzDecode(f *testing.F) {
	for _, s := range [][3]string{{"*.example.com.", "TXT", `"a \"b\" \\ \228" "c"`}, {"a.example.com.", "MX", "10 mail.example.com."},
		{"a.example.com.", "SRV", "1 2 3 b."}, {"a.example.com.", "A", "192.0.2.1"}, {"a.example.com.", "TXT", `"\`}, {"a.example.com.", "TXT", `a  "b`},
		{"a.example.com.", "TXT", `"\+12"`}} {
		f.Add(s[0], s[1], s[2])
	}
	z := zone{Name: "example.com.", TTL: 3600}
	f.Fuzz(func(t *testing.T, name, typ, value string) {
		r, err := set{Name: name, Type: typ, Records: []string{value}}.rrset(z)
		if err != nil {
			return
		}
		again, err := set{Name: r.Name, Type: r.Type, TTL: seconds(r.TTL), Records: values(&r)}.rrset(z)
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

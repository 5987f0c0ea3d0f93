package route53

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// Whatever Route 53 lists is an error, or is listed so that deleting it by what was listed means the same record again.
func FuzzDecode(f *testing.F) {
	for _, s := range [][3]string{{`\052.example.com.`, "TXT", `"a \"b\" \\ \344" "c"`}, {"a.example.com", "MX", "10 mail.example.com"},
		{"a.example.com.", "SRV", "1 2 3 b."}, {"a.example.com.", "CAA", `0 issue "ca.example.net"`}, {"a.example.com.", "A", "192.0.2.1"},
		{"a.example.com.", "TXT", `"\1"`}, {"a.example.com.", "TXT", `"\`}, {"a.example.com.", "CNAME", "B.example.com"}} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, name, typ, value string) {
		set := types.ResourceRecordSet{Name: &name, Type: types.RRType(typ), TTL: aws.Int64(60), ResourceRecords: []types.ResourceRecord{{Value: &value}}}
		r, err := decode(set)
		if err != nil {
			return
		}
		c, err := dnsreg.Canonical(r)
		if err != nil {
			return // a type or a name that package dnsreg does not know: nobody changes it
		}
		require.Equal(t, c, r)
		batch, err := encode("example.com.", []dnsreg.Change{{Name: r.Name, Type: r.Type, Old: &r}}, nil)
		if err != nil {
			require.ErrorIs(t, err, dnsreg.ErrInvalid)
			return
		}
		again, err := decode(*batch[0].ResourceRecordSet)
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

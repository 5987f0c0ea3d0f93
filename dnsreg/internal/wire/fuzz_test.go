package wire

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// Whatever record comes over the wire, its value is an error, or is no value that package dnsreg knows, or means the same
// data again.
func FuzzValue(f *testing.F) {
	for _, text := range []string{"a. 1 A 192.0.2.1", "a. 1 AAAA ::ffff:192.0.2.1", `a. 1 TXT "x y" "" "\000\255\"\\"`, "a. 1 MX 1 B.example.",
		"a. 1 SRV 1 2 3 .", "a. 1 SOA ns. john\\.doe.example. 1 2 3 4 5", `a. 1 CNAME b\.c.example.`, `a. 1 NS \032x.example.`, `a. 1 CAA 0 issue "x"`} {
		rr, err := dns.NewRR(text)
		require.NoError(f, err)
		buf := make([]byte, 600)
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		require.NoError(f, err)
		f.Add(buf[:n])
	}
	f.Add([]byte("\x00\x00!000000\x00\x000"))             // a SRV without its data
	f.Add([]byte("\x00\x00!000000\x00\x06000000"))        // and one without its name
	f.Add([]byte("\x00\x00\x0f000000\x00\x0200"))         // a MX without its name
	f.Add([]byte("\x00\x00\x06\x00\x010000\x00\x01\x00")) // a SOA of one name
	f.Fuzz(func(t *testing.T, msg []byte) {
		rr, end, err := dns.UnpackRR(msg, 0)
		if err != nil {
			return
		}
		start := end - int(rr.Header().Rdlength)
		v, err := Value(rr)
		if err != nil {
			return
		}
		typ := rr.Header().Rrtype
		c, err := dnsreg.Canonical(dnsreg.RRset{Name: "any.", Type: dns.Type(typ).String(), Values: []string{v}})
		if err != nil {
			return
		}
		data := AppendData(nil, typ, c.Values[0])
		require.Equal(t, c.Values[0], DataText(typ, data))
		// How a text is cut does not count, and names may have been compressed.
		if typ != dns.TypeTXT && end-start == len(data) {
			require.Equal(t, bytes.ToLower(msg[start:end]), bytes.ToLower(data), "%s", v)
		}
	})
}

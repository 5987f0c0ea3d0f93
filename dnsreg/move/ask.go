package move

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
)

// Ask asks the name server at host:port, over TCP. Its answer must be authoritative: a resolver's is not.
func Ask(addr string) Lookup {
	return func(ctx context.Context, name, typ string) (dnsreg.RRset, error) {
		c := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
		m, _, err := c.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.StringToType[typ]), addr)
		if err != nil {
			return dnsreg.RRset{}, err
		}
		if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError || !m.Authoritative {
			return dnsreg.RRset{}, fmt.Errorf("%s says %s, authoritative: %v", addr, dns.RcodeToString[m.Rcode], m.Authoritative)
		}
		r := dnsreg.RRset{Name: name, Type: typ}
		for _, rr := range m.Answer {
			h := rr.Header()
			if strings.EqualFold(h.Name, name) && h.Rrtype == dns.StringToType[typ] {
				v, err := wire.Value(rr)
				if err != nil {
					return dnsreg.RRset{}, err
				}
				r.TTL, r.Values = time.Duration(h.Ttl)*time.Second, append(r.Values, v)
			}
		}
		return r, nil
	}
}

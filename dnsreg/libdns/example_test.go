package libdns_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	upstream "github.com/libdns/libdns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/libdns"
)

// memory is a provider in memory, in place of one of a DNS host.
type memory struct{ records []upstream.Record }

func (m *memory) GetRecords(context.Context, string) ([]upstream.Record, error) {
	return slices.Clone(m.records), nil
}

func (m *memory) SetRecords(_ context.Context, _ string, records []upstream.Record) ([]upstream.Record, error) {
	m.records = slices.DeleteFunc(m.records, func(r upstream.Record) bool {
		return r.RR().Name == records[0].RR().Name && r.RR().Type == records[0].RR().Type
	})
	m.records = append(m.records, records...)
	return records, nil
}

func (m *memory) DeleteRecords(_ context.Context, _ string, records []upstream.Record) ([]upstream.Record, error) {
	m.records = slices.DeleteFunc(m.records, func(r upstream.Record) bool {
		return slices.ContainsFunc(records, func(d upstream.Record) bool { return d.RR() == r.RR() })
	})
	return records, nil
}

func Example() {
	host := &memory{}
	registrar, err := libdns.New(libdns.Options{Provider: host, Zones: []string{"example.com"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = dnsreg.Sync(context.Background(), registrar, "example.com", "shop", []dnsreg.RRset{
		{Name: "www.example.com.", Type: "A", TTL: 20 * time.Second, Values: []string{"192.0.2.1"}},
	})
	fmt.Println(err)
	for _, r := range host.records {
		fmt.Println(r.RR().Name, r.RR().Type, r.RR().Data)
	}
	// Output:
	// <nil>
	// _scalr.www TXT v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1
	// www A 192.0.2.1
}

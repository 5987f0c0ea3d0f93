package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/internal/testenv"
)

// propagation runs a secondary behind our server and gives how long each change took until the secondary answered with it.
func propagation(t testing.TB, program string, changes int) ([]time.Duration, error) {
	key := tsig.Key{Name: "transfer.", Secret: make([]byte, 32)}
	_, _ = rand.Read(key.Secret)
	port := testenv.FreePort(t)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: zone, Secondaries: []nameserver.Secondary{{Addr: addr, Key: key}}}}})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = s.Run(ctx) })
	t.Cleanup(func() {
		stop()
		wg.Wait()
		if failed != nil {
			t.Errorf("our server: %v", failed)
		}
	})
	testenv.NameServer(t, program, testenv.DNS{Zone: strings.TrimSuffix(zone, "."), Key: key, Primary: s.Addr().String(), Port: port})
	name := "www." + zone
	var old *dnsreg.RRset
	var took []time.Duration
	for i := range changes + 1 {
		new := &dnsreg.RRset{Name: name, Type: "A", TTL: time.Second, Values: []string{fmt.Sprintf("192.0.2.%d", i%250+1)}}
		begin := time.Now()
		if err := s.Apply(ctx, zone, []dnsreg.Change{{Name: name, Type: "A", Old: old, New: new}}); err != nil {
			return nil, err
		}
		if err := until(ctx, addr, name, new.Values[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", program, err)
		}
		if i > 0 { // the first one waits for the whole zone
			took = append(took, time.Since(begin))
		}
		old = new
	}
	return took, nil
}

// until asks until the answer is this address.
func until(ctx context.Context, addr, name, want string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client := &dns.Client{Timeout: time.Second}
	for {
		m, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), addr)
		if err == nil && len(m.Answer) == 1 && m.Answer[0].(*dns.A).A.String() == want {
			return nil
		}
		select {
		case <-time.After(200 * time.Microsecond):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it never answered %s for %s", want, name), err)
		}
	}
}

package nameserver

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg/tsig"
)

const (
	// notifyReply is how long a secondary may take to confirm that it was told.
	notifyReply = 200 * time.Millisecond
	// notifyMax is the longest pause before it is told again.
	notifyMax = 30 * time.Second
)

// notify tells a secondary of the zone's serial, now and after each change, until the context ends.
func (s *Server) notify(ctx context.Context, z *zone, to Secondary, wake <-chan struct{}) {
	for pause := notifyReply; ; {
		var retry <-chan time.Time
		if !s.tell(ctx, z.snap.Load(), to) {
			retry = time.After(pause)
			pause = min(2*pause, notifyMax)
		}
		select {
		case <-retry:
		case <-wake:
			pause = notifyReply
		case <-ctx.Done():
			return
		}
	}
}

// tell sends one NOTIFY (RFC 1996) and reports whether the secondary has confirmed it.
func (s *Server) tell(ctx context.Context, snap *snapshot, to Secondary) bool {
	ctx, cancel := context.WithTimeout(ctx, notifyReply)
	defer cancel()
	var d net.Dialer
	if !s.any { // so that it comes from where the secondary expects it
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.addr.Addr(), 0))
	}
	conn, err := d.DialContext(ctx, "udp", to.Addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	id := uint16(rand.Uint32())
	soa := snap.apex.get(dns.TypeSOA)
	msg := binary.BigEndian.AppendUint16(nil, id)
	msg = append(msg, dns.OpcodeNotify<<3|0x04, 0, 0, 1, 0, 1, 0, 0, 0, 0)
	msg = append(msg, snap.origin...)
	msg = append(msg, 0, byte(dns.TypeSOA), 0, dns.ClassINET, 0xc0, headerLen)
	msg = append(msg, soa.wire...)
	x := tsig.Exchange{Key: to.Key}
	if _, err := conn.Write(x.Sign(msg, time.Now())); err != nil {
		return false
	}
	reply := make([]byte, dns.MaxMsgSize)
	for {
		n, err := conn.Read(reply)
		if err != nil {
			return false
		}
		r := reply[:n]
		if n < headerLen || binary.BigEndian.Uint16(r) != id || r[2]&0xf8 != 0x80|dns.OpcodeNotify<<3 {
			continue
		}
		if _, err := x.Verify(r, time.Now()); err == nil {
			return r[3]&15 == dns.RcodeSuccess
		}
	}
}

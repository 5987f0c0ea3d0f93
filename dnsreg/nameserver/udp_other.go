//go:build !linux || mips || mipsle || mips64 || mips64le

package nameserver

import (
	"errors"
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

func newUDPSocket(conn *net.UDPConn, any bool) (udpSocket, error) { return newOneByOne(conn, any), nil }

// oneByOne is a socket without means to handle several messages at once.
type oneByOne struct {
	*net.UDPConn
	any bool // it listens on all addresses
	in  []byte
}

func newOneByOne(conn *net.UDPConn, any bool) *oneByOne {
	return &oneByOne{UDPConn: conn, any: any, in: make([]byte, dns.MaxMsgSize)}
}

func (c *oneByOne) exchange(answer func([]byte, netip.Addr) []byte) error {
	if c.any {
		// The answer must come from the address that the query went to.
		n, session, err := dns.ReadFromSessionUDP(c.UDPConn, c.in)
		if err != nil {
			return err
		}
		if out := answer(c.in[:n], session.RemoteAddr().(*net.UDPAddr).AddrPort().Addr()); out != nil {
			_, err = dns.WriteToSessionUDP(c.UDPConn, out, session)
		}
		return closedOnly(err)
	}
	n, from, err := c.ReadFromUDPAddrPort(c.in)
	if err != nil {
		return err
	}
	if out := answer(c.in[:n], from.Addr()); out != nil {
		_, err = c.WriteToUDPAddrPort(out, from)
	}
	return closedOnly(err)
}

// closedOnly drops what went wrong in sending one answer.
func closedOnly(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

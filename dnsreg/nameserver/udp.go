package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// udpSocket is a socket that the server reads and answers.
type udpSocket interface {
	// exchange waits for messages and sends what answer gives for each and its sender, which is valid until the next call of
	// answer; nil is nothing. Not to be able to send an answer is no error: its client asks again. It fails with net.ErrClosed once Close
	// was called. One goroutine calls it.
	exchange(answer func(msg []byte, from netip.Addr) []byte) error
	// Close makes exchange end, and closes the socket.
	Close() error
}

// readUDP answers what comes in at one socket until it is closed. A socket that only fails is an error.
func (s *Server) readUDP(ctx context.Context, socket udpSocket) error {
	r := s.responder()
	answer := func(msg []byte, from netip.Addr) []byte {
		r.from = from
		return r.respond(msg, false)
	}
	var err error
	for failures := 0; failures < 100; {
		err = socket.exchange(answer)
		switch {
		case err == nil:
			failures = 0
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			failures++
			if !pause(ctx) {
				return nil
			}
		}
	}
	return fmt.Errorf("nameserver: reading UDP: %w", err)
}

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

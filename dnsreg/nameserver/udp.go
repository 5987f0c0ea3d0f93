package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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

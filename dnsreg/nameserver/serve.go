package nameserver

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Run serves until the context ends, then closes the sockets and the connections and waits for what is under way. It
// returns nil when it was ended by the context or by Close, and an error if a socket failed. It runs once.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	switch {
	case s.started:
		s.mu.Unlock()
		return errors.New("nameserver: Run was called before")
	case s.closed:
		s.mu.Unlock()
		return errors.New("nameserver: the server is closed")
	}
	s.started = true
	s.mu.Unlock()

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	failed := make([]error, len(s.udp))
	for i, socket := range s.udp {
		wg.Go(func() {
			failed[i] = s.readUDP(ctx, socket)
			stop()
		})
	}
	wg.Go(func() {
		s.accept(ctx)
		stop()
	})
	for _, z := range s.zones {
		for i, secondary := range z.secondaries {
			wg.Go(func() { s.notify(ctx, z, secondary, z.wake[i]) })
		}
	}
	<-ctx.Done()
	s.Close()
	wg.Wait()
	return errors.Join(failed...)
}

// Close closes the sockets and the connections; a Run that is under way ends. What Records and Apply do stays as it is. It
// is for servers that are never run; the context ends the others.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for conn := range s.conns {
		conn.Close()
	}
	return s.closeSockets()
}

func (s *Server) closeSockets() error {
	var errs []error
	for _, socket := range s.udp {
		errs = append(errs, socket.Close())
	}
	if s.tcp != nil {
		errs = append(errs, s.tcp.Close())
	}
	return errors.Join(errs...)
}

// listen opens the sockets. TCP comes first: its port cannot be shared, so that a second server on it is an error.
func (s *Server) listen() error {
	for try := 1; ; try++ {
		err := s.tryListen()
		if err == nil {
			return nil
		}
		s.closeSockets()
		s.udp, s.tcp = nil, nil
		if try == 16 || !strings.HasSuffix(s.opts.Listen, ":0") { // a port that is free for TCP may be taken for UDP
			return fmt.Errorf("nameserver: Listen %q: %w", s.opts.Listen, err)
		}
	}
}

func (s *Server) tryListen() error {
	l, err := net.Listen("tcp", s.opts.Listen)
	if err != nil {
		return err
	}
	s.tcp = l.(*net.TCPListener)
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	s.addr = netip.AddrPortFrom(s.addr.Addr().Unmap(), s.addr.Port())
	s.any = s.addr.Addr().IsUnspecified()
	config := net.ListenConfig{}
	n := 1
	if reusePort != nil {
		config.Control = reusePort
		n = s.opts.Readers
	}
	for range n {
		c, err := config.ListenPacket(context.Background(), "udp", s.addr.String())
		if err != nil {
			return err
		}
		conn := c.(*net.UDPConn)
		_ = conn.SetReadBuffer(4 << 20) // as far as the system lets it: a burst that finds no room is lost
		if s.any {
			err = receiveDestination(conn)
		}
		var socket udpSocket
		if err == nil {
			socket, err = newUDPSocket(conn, s.any)
		}
		if err != nil {
			conn.Close()
			return err
		}
		s.udp = append(s.udp, socket)
	}
	return nil
}

// pause keeps a loop from spinning on an error that passes. It reports false when the context has ended.
func pause(ctx context.Context) bool {
	wait := time.NewTimer(10 * time.Millisecond)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// accept takes TCP connections, so many at once, until the listener is closed.
func (s *Server) accept(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	free := make(chan struct{}, s.opts.MaxTCP)
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := s.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files, a client that is gone already
			<-free
			if !pause(ctx) {
				return
			}
			continue
		}
		wg.Go(func() {
			defer func() { <-free }()
			if s.hold(conn) {
				s.serveTCP(conn)
			}
			s.release(conn)
		})
	}
}

// hold keeps a connection for Close to close, unless that has been already.
func (s *Server) hold(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = true
	return !s.closed
}

func (s *Server) release(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	conn.Close()
}

// serveTCP answers what comes over a connection, in order, until the client ends it, is too slow, or sends what is no query.
func (s *Server) serveTCP(conn net.Conn) {
	r := s.responder()
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		r.from = a.AddrPort().Addr()
	}
	in := bufio.NewReaderSize(conn, 4096)
	msg := make([]byte, 512)
	out := make([]byte, 0, 512)
	for {
		if conn.SetDeadline(time.Now().Add(s.opts.TCPTimeout)) != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n > len(msg) {
			msg = make([]byte, n)
		}
		if _, err := io.ReadFull(in, msg[:n]); err != nil {
			return
		}
		send := func(answer []byte) error {
			if err := conn.SetDeadline(time.Now().Add(s.opts.TCPTimeout)); err != nil {
				return err
			}
			out = append(binary.BigEndian.AppendUint16(out[:0], uint16(len(answer))), answer...)
			_, err := conn.Write(out)
			return err
		}
		answer := r.respond(msg[:n], true)
		if r.transfer != nil {
			if r.sendTransfer(send) != nil {
				return
			}
			continue
		}
		if answer == nil || send(answer) != nil {
			return
		}
	}
}

package faultproxy

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Line stands between clients and a TCP server, and can be cut, also in one direction only. What is sent into a cut is held and
// not lost: it comes when the line is mended, though the client may have given up and closed its connection long ago. So does a
// network that is partitioned, and what comes late is what hurts.
type Line struct {
	target   string
	listener net.Listener
	requests gate
	answers  gate
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
}

// NewLine starts a line to host:port, on a loopback address. It ends with the test.
func NewLine(t testing.TB, target string) *Line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Line{target: target, listener: listener, conns: map[net.Conn]bool{}}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.mu.Lock()
		l.ended = true
		for conn := range l.conns {
			conn.Close()
		}
		l.mu.Unlock()
		l.Mend()
		l.wg.Wait()
	})
	return l
}

// Addr is where the server is reached through the line.
func (l *Line) Addr() string { return l.listener.Addr().String() }

// Cut holds what clients send, or what the server answers, or both. Connections are taken all the same.
func (l *Line) Cut(requests, answers bool) {
	l.requests.set(requests)
	l.answers.set(answers)
}

// Mend delivers what was held, and ends the cut.
func (l *Line) Mend() { l.Cut(false, false) }

func (l *Line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.carry(client) })
	}
}

func (l *Line) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer server.Close()
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	l.conns[client], l.conns[server] = true, true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, client)
		delete(l.conns, server)
		l.mu.Unlock()
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		l.requests.copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	wg.Go(func() {
		l.answers.copy(client, server)
		_ = client.Close()
	})
	wg.Wait()
}

// gate lets one direction pass, or holds it.
type gate struct {
	mu     sync.Mutex
	closed chan struct{} // nil where it is open
}

func (g *gate) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if closed == (g.closed != nil) {
		return
	}
	if closed {
		g.closed = make(chan struct{})
		return
	}
	close(g.closed)
	g.closed = nil
}

func (g *gate) wait() {
	for {
		g.mu.Lock()
		closed := g.closed
		g.mu.Unlock()
		if closed == nil {
			return
		}
		<-closed
	}
}

// copy copies until from ends, and takes all that it sends though nobody may read it any more.
func (g *gate) copy(to io.Writer, from io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		g.wait()
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

//go:build linux && !mips && !mipsle && !mips64 && !mips64le

package nameserver

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	// batch is how many messages go through one system call (recvmmsg(2), sendmmsg(2)).
	batch = 32
	// controlLen is room for the addresses that a message came to, of IPv4 and IPv6.
	controlLen = 128
	// maxAnswer is the longest answer over UDP, with its signature.
	maxAnswer = maxUDP + maxSignature
)

// batches is a socket that reads and answers several messages at once. Under load, where many wait, that leaves one pair of
// system calls for all of them.
//
// It is a blocking socket, on whose reader a thread waits in the kernel: a reader that waited in Go's poller would cost a
// wake-up of the poller and one of the thread for each batch, which is as much as an answer costs. So the socket must not be
// known to the poller either, as that of an os.File would be: it would be woken by each message.
type batches struct {
	fd     int
	closed atomic.Bool
	mu     sync.Mutex // held to close the file or to wake who reads it
	gone   bool       // the file is closed

	in, out  [batch]mmsghdr
	inVecs   [batch]unix.Iovec
	outVecs  [batch]unix.Iovec
	names    [batch]unix.RawSockaddrAny
	controls [batch][controlLen]byte
	inBuf    []byte // batch messages of any length; the system gives memory only to those parts that are written to
	outBuf   []byte
	reading  atomic.Bool
}

// mmsghdr is the system's, see recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// newUDPSocket takes the socket over.
func newUDPSocket(conn *net.UDPConn, any bool) (udpSocket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &batches{inBuf: make([]byte, batch*dns.MaxMsgSize), outBuf: make([]byte, batch*maxAnswer)}
	var failed error
	err = raw.Control(func(fd uintptr) { s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	conn.Close() // which takes it out of the poller
	if err = unix.SetNonblock(s.fd, false); err == nil {
		err = unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	}
	if err != nil {
		unix.Close(s.fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	for i := range batch {
		s.inVecs[i].Base = &s.inBuf[i*dns.MaxMsgSize]
		s.inVecs[i].SetLen(dns.MaxMsgSize)
		s.in[i].Iov, s.in[i].Name = &s.inVecs[i], (*byte)(unsafe.Pointer(&s.names[i]))
		s.in[i].SetIovlen(1)
		s.in[i].Namelen = unix.SizeofSockaddrAny
		if any {
			s.in[i].Control = &s.controls[i][0]
			s.in[i].SetControllen(controlLen)
		}
		s.outVecs[i].Base = &s.outBuf[i*maxAnswer]
		s.out[i].Iov = &s.outVecs[i]
		s.out[i].SetIovlen(1)
	}
	return s, nil
}

// Close makes exchange end. It is the reader that closes the file then, or Close if nobody has ever read.
func (s *batches) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if !s.reading.Load() {
		return s.release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gone {
		// This wakes the reader; the system says ENOTCONN all the same. Where it did not wake, its time-out does.
		_ = unix.Shutdown(s.fd, unix.SHUT_RD)
	}
	return nil
}

func (s *batches) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	}
	s.gone = true
	return os.NewSyscallError("close", unix.Close(s.fd))
}

func (s *batches) exchange(answer func([]byte, netip.Addr) []byte) error {
	s.reading.Store(true)
	if s.closed.Load() {
		_ = s.release()
		return net.ErrClosed
	}
	n, errno := s.call(unix.SYS_RECVMMSG, s.in[:], unix.MSG_DONTWAIT)
	if errno == unix.EAGAIN {
		n, errno = s.call(unix.SYS_RECVMMSG, s.in[:], unix.MSG_WAITFORONE)
	}
	switch {
	case s.closed.Load():
		_ = s.release()
		return net.ErrClosed
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return nil
	case errno != 0:
		return os.NewSyscallError("recvmmsg", errno)
	}
	count := 0
	for i := range n {
		in, out := &s.in[i], &s.out[count]
		reply := answer(s.inBuf[i*dns.MaxMsgSize:][:in.n], addr(&s.names[i]))
		if len(reply) > 0 && len(reply) <= maxAnswer {
			out.Iov.SetLen(copy(s.outBuf[count*maxAnswer:][:maxAnswer], reply))
			out.Name, out.Namelen = in.Name, in.Namelen
			if in.Control != nil {
				out.Control = in.Control
				out.SetControllen(source(s.controls[i][:in.Controllen]))
			}
			count++
		}
	}
	for sent := 0; sent < count; {
		n, errno := s.call(unix.SYS_SENDMMSG, s.out[sent:count], unix.MSG_DONTWAIT)
		if errno != 0 && errno != unix.EINTR {
			n = 1 // the first one cannot be sent, the others are tried
		}
		sent += n
	}
	for i := range n { // what the system has written there
		s.in[i].Namelen = unix.SizeofSockaddrAny
		if s.in[i].Control != nil {
			s.in[i].SetControllen(controlLen)
		}
	}
	return nil
}

// addr gives the address out of the system's form.
func addr(a *unix.RawSockaddrAny) netip.Addr {
	switch a.Addr.Family {
	case unix.AF_INET:
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(a)).Addr)
	case unix.AF_INET6:
		return netip.AddrFrom16((*unix.RawSockaddrInet6)(unsafe.Pointer(a)).Addr)
	}
	return netip.Addr{}
}

// call makes the system call, raw where it does not wait: the scheduler need not know then, and takes no processor away.
func (s *batches) call(number uintptr, msgs []mmsghdr, flags uintptr) (int, unix.Errno) {
	var n uintptr
	var errno unix.Errno
	if flags&unix.MSG_DONTWAIT != 0 {
		n, _, errno = unix.RawSyscall6(number, uintptr(s.fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), flags, 0, 0)
	} else {
		n, _, errno = unix.Syscall6(number, uintptr(s.fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), flags, 0, 0)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// source makes of the addresses that a message came to the one that its answer comes from, through whatever interface leads
// to the client, and gives the length.
func source(control []byte) int {
	for rest := control; len(rest) > 0; {
		header, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return 0
		}
		switch {
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO:
			clear(data[:4])
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO:
			clear(data[16:20])
		}
		rest = next
	}
	return len(control)
}

//go:build linux && !mips && !mipsle && !mips64 && !mips64le

package nameserver

import (
	"errors"
	"net"
	"syscall"
)

// soReusePort is SO_REUSEPORT on all architectures of Linux but MIPS; package syscall does not have it on some of them.
const soReusePort = 0xf

// reusePort lets several sockets share a UDP port, among which the kernel spreads the clients.
var reusePort = func(_, _ string, c syscall.RawConn) error {
	return control(c, func(fd int) error { return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1) })
}

// receiveDestination makes a socket that listens on all addresses say which one a packet came to.
func receiveDestination(conn *net.UDPConn) error {
	c, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return control(c, func(fd int) error {
		err4 := syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		err6 := syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
		if err4 != nil && err6 != nil {
			return errors.Join(err4, err6)
		}
		return nil
	})
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

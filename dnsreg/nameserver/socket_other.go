//go:build !linux || mips || mipsle || mips64 || mips64le

package nameserver

import (
	"net"
	"syscall"
)

// reusePort is nil where several sockets cannot share a UDP port.
var reusePort func(string, string, syscall.RawConn) error

// receiveDestination does nothing: the system chooses which address an answer comes from.
func receiveDestination(*net.UDPConn) error { return nil }

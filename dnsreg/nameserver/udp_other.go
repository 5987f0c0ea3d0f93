//go:build !linux || mips || mipsle || mips64 || mips64le

package nameserver

import "net"

func newUDPSocket(conn *net.UDPConn, any bool) (udpSocket, error) { return newOneByOne(conn, any), nil }

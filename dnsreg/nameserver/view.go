package nameserver

import (
	"net/netip"
	"slices"
)

// Prefixes of the names that hold what clients inside and outside get.
const (
	insidePrefix  = "int-"
	outsidePrefix = "ext-"
)

// view gives the node that stands for a name in the client's view, or nil if there is none.
func (z *zone) view(s *snapshot, name []byte, client netip.Addr) *node {
	if len(z.inside) == 0 || name[0] == 0 || name[0] == 1 && name[1] == '*' {
		return nil
	}
	prefix := outsidePrefix
	if client = client.Unmap(); slices.ContainsFunc(z.inside, func(p netip.Prefix) bool { return p.Contains(client) }) {
		prefix = insidePrefix
	}
	if int(name[0])+len(prefix) > 63 || len(name)+len(prefix) > 255 || len(name) == len(s.origin) {
		return nil
	}
	var buf [256]byte
	other := append(append(buf[:0], name[0]+byte(len(prefix))), prefix...)
	return s.find(append(other, name[1:]...))
}

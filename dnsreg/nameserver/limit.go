package nameserver

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync/atomic"
)

// limiter bounds how many equal answers a network gets over UDP in a second, so that nobody whose address others forge is
// flooded with them. Of those above the bound every second one says "ask over TCP", which a forged client does not do and a
// real one does; the others are not sent.
//
// What is counted is the answers about one name, or of one zone where there is nothing at the name, or the refusals, to the
// clients of one /24 of IPv4 or /56 of IPv6. The counts stand in a table of fixed size: two that meet in one place start
// anew in turn, so that at worst somebody gets too many. Clients on this machine are not bounded.
type limiter struct {
	perSecond uint64
	seed      maphash.Seed
	counts    [1 << 16]atomic.Uint64 // 24 bits that tell whose it is, 20 of the second, 20 of the count
}

func newLimiter(perSecond int) *limiter {
	return &limiter{perSecond: uint64(min(perSecond, maxPerSecond)), seed: maphash.MakeSeed()}
}

const (
	countBits    = 20
	maxPerSecond = 1<<countBits - 3
)

// verdict is what becomes of an answer.
type verdict int

const (
	send verdict = iota
	sendTruncated
	drop
)

// take counts an answer about a name to a client.
func (l *limiter) take(client netip.Addr, about string, second int64) verdict {
	client = client.Unmap()
	if !client.IsValid() || client.IsLoopback() {
		return send
	}
	network := client.As16()
	if client.Is4() {
		network[15] = 0
	} else {
		clear(network[7:])
	}
	h := maphash.Bytes(l.seed, network[:]) ^ bits.RotateLeft64(maphash.String(l.seed, about), 32)
	place := &l.counts[h%uint64(len(l.counts))]
	whose := h>>40<<(2*countBits) | uint64(second)&(1<<countBits-1)<<countBits
	for {
		old := place.Load()
		count := uint64(1)
		if old>>countBits == whose>>countBits {
			count = old&(1<<countBits-1) + 1
		}
		if count > l.perSecond+2 {
			count = l.perSecond + 1 // above the bound it goes up and down between these two
		}
		if !place.CompareAndSwap(old, whose|count) {
			continue
		}
		switch {
		case count <= l.perSecond:
			return send
		case count == l.perSecond+1:
			return sendTruncated
		}
		return drop
	}
}

package rfc2136_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/rfc2136"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		o    rfc2136.Options
		want string
	}{
		{rfc2136.Options{Key: key}, `rfc2136: Server is "", want host:port`},
		{rfc2136.Options{Server: "127.0.0.1", Key: key}, `rfc2136: Server is "127.0.0.1", want host:port`},
		{rfc2136.Options{Server: "127.0.0.1:53"}, `rfc2136: Key: key: name "": invalid: is empty`},
		{rfc2136.Options{Server: "127.0.0.1:53", Key: key, Timeout: -1}, "rfc2136: Timeout is -1ns, want more than 0, or 0 for the default"},
	} {
		_, err := rfc2136.New(c.o)
		require.EqualError(t, err, c.want)
	}
}

// server answers one exchange after the other by a function that gets the request and may send what it likes.
func server(t *testing.T, timeout time.Duration, answer func(x *tsig.Exchange, q *dns.Msg, send func([]byte))) *rfc2136.Registrar {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			_, _ = io.ReadFull(c, size[:])
			msg := make([]byte, binary.BigEndian.Uint16(size[:]))
			_, _ = io.ReadFull(c, msg)
			x, body, err := tsig.Receive([]tsig.Key{key}, msg, time.Now())
			q := new(dns.Msg)
			if err == nil && q.Unpack(body) == nil {
				answer(x, q, func(b []byte) { _, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)) })
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	r, err := rfc2136.New(rfc2136.Options{Server: l.Addr().String(), Key: key, Timeout: timeout})
	require.NoError(t, err)
	return r
}

func reply(q *dns.Msg, records ...string) []byte {
	m := new(dns.Msg).SetReply(q)
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

const soa, otherSOA = "farm.example. 1 SOA ns. h. 1 2 3 4 5", "farm.example. 1 SOA ns. h. 2 2 3 4 5"

// What is no whole, signed transfer is an error, never a shorter list.
func TestTransfersThatAreCutOrForgedAreErrors(t *testing.T) {
	for name, c := range map[string]struct {
		want   string // empty: it is fine
		answer func(x *tsig.Exchange, q *dns.Msg, send func([]byte))
	}{
		"one message": {"", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa, "a.farm.example. 1 A 192.0.2.1", soa), time.Now()))
		}},
		"several messages": {"", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa), time.Now()))
			send(x.Sign(reply(q, "a.farm.example. 1 A 192.0.2.1"), time.Now()))
			send(x.Sign(reply(q, soa), time.Now()))
		}},
		"an unsigned message in the middle": {"", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa), time.Now()))
			middle := reply(q, "a.farm.example. 1 A 192.0.2.1")
			_, _ = x.Verify(middle, time.Now())
			send(middle)
			send(x.Sign(reply(q, soa), time.Now()))
		}},
		"an unsigned message that is not the server's": {"BADSIG", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa), time.Now()))
			send(reply(q, "a.farm.example. 1 A 192.0.2.66"))
			send(x.Sign(reply(q, soa), time.Now()))
		}},
		"the last message unsigned": {"not signed", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa, "a.farm.example. 1 A 192.0.2.1"), time.Now()))
			send(reply(q, soa))
		}},
		"nothing signed": {"not signed", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(reply(q, soa, "a.farm.example. 1 A 192.0.2.1", soa))
		}},
		"cut": {"EOF", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa, "a.farm.example. 1 A 192.0.2.1"), time.Now()))
		}},
		"another SOA at the end": {"another SOA", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa, "a.farm.example. 1 A 192.0.2.1", otherSOA), time.Now()))
		}},
		"no SOA at the beginning": {"does not begin", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, "a.farm.example. 1 A 192.0.2.1", soa), time.Now()))
		}},
		"records after the end": {"goes on", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q, soa, soa, "a.farm.example. 1 A 192.0.2.1"), time.Now()))
		}},
		"no records": {"no records", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			send(x.Sign(reply(q), time.Now()))
		}},
		"another ID": {"not to what was asked", func(x *tsig.Exchange, q *dns.Msg, send func([]byte)) {
			q.Id++
			send(x.Sign(reply(q, soa, soa), time.Now()))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := server(t, 0, c.answer).Records(t.Context(), zone)
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				require.Nil(t, list)
				return
			}
			require.NoError(t, err)
			require.Len(t, list, 2)
		})
	}
}

// After a lost reply nobody knows, and the error says so.
func TestALostReplyIsUnknown(t *testing.T) {
	changes := create(set("a.", "A", "192.0.2.1"))
	for name, answer := range map[string]func(x *tsig.Exchange, q *dns.Msg, send func([]byte)){
		"closed": func(*tsig.Exchange, *dns.Msg, func([]byte)) {},
		"slow":   func(*tsig.Exchange, *dns.Msg, func([]byte)) { time.Sleep(200 * time.Millisecond) },
		"forged": func(_ *tsig.Exchange, q *dns.Msg, send func([]byte)) { send(reply(q)) },
	} {
		t.Run(name, func(t *testing.T) {
			err := server(t, 100*time.Millisecond, answer).Apply(t.Context(), zone, changes)
			partial, ok := errors.AsType[*dnsreg.PartialError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, changes, partial.Unknown)
			require.Empty(t, partial.Done)
			require.Empty(t, partial.Failed)
			if name == "slow" {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
		})
	}
	r, err := rfc2136.New(rfc2136.Options{Server: "127.0.0.1:1", Key: key})
	require.NoError(t, err)
	err = r.Apply(t.Context(), zone, changes)
	require.Error(t, err)
	_, ok := errors.AsType[*dnsreg.PartialError](err)
	require.False(t, ok, "nothing was sent, so nothing is unknown")
}

package tsig

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// exchanged gives a signed request and the messages of a signed answer, one of them without a signature of its own, and
// what was signed.
func exchanged(t testing.TB) (request []byte, answers, bodies [][]byte) {
	q := new(dns.Msg).SetAxfr("example.com.")
	q.Id = 7
	body, err := q.Pack()
	require.NoError(t, err)
	client := Exchange{Key: testKey}
	request = client.Sign(body, now)
	server, _, err := Receive([]Key{testKey}, request, now)
	require.NoError(t, err)
	for i, text := range []string{"a.example.com. 1 A 192.0.2.1", "b.example.com. 1 TXT x", "c.example.com. 1 MX 1 a.example.com."} {
		rr, err := dns.NewRR(text)
		require.NoError(t, err)
		m := new(dns.Msg).SetReply(q)
		m.Answer = append(m.Answer, rr)
		body, err := m.Pack()
		require.NoError(t, err)
		bodies = append(bodies, body)
		if i == 1 {
			_, err := server.Verify(body, now) // the next signature covers it
			require.NoError(t, err)
			answers = append(answers, body)
		} else {
			answers = append(answers, server.Sign(body, now))
		}
	}
	return request, answers, append(bodies, body)
}

// Whatever comes in, only what the key's holder has signed is taken for signed, and is then as it was before.
func FuzzReceive(f *testing.F) {
	request, answers, bodies := exchanged(f)
	f.Add(request)
	f.Add(bodies[3])
	f.Add(request[:len(request)-1])
	for _, a := range answers {
		f.Add(a)
	}
	for _, name := range []string{"\x05other\x00", "\x05a b.c\x00", "\x02-x\x00", "\x01*\x00", "\x00"} {
		r := record{key: []byte(name), algorithm: algorithm, mac: make([]byte, 32)}
		signed := r.append(slices.Clone(bodies[3]))
		signed[11]++
		f.Add(signed)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		before := slices.Clone(msg)
		x, body, err := Receive([]Key{testKey}, msg, now)
		require.Equal(t, before, msg, "it changes what it reads")
		if err == nil {
			require.Equal(t, bodies[3], body, "it was never signed")
		} else {
			require.Nil(t, body)
		}
		if x != nil { // the answer that says so can be read
			m := new(dns.Msg)
			require.NoError(t, m.Unpack(x.Sign(bodies[3], now)))
			require.NotNil(t, m.IsTsig())
		}
	})
}

// A stream of answers is what the server has sent, whole and in its order, or an error.
func FuzzVerify(f *testing.F) {
	request, answers, bodies := exchanged(f)
	stream := func(list ...[]byte) (all []byte) {
		for _, m := range list {
			all = append(binary.BigEndian.AppendUint16(all, uint16(len(m))), m...)
		}
		return all
	}
	f.Add(stream(answers...))
	f.Add(stream(answers[0], answers[2]))
	f.Add(stream(answers[0], answers[0]))
	f.Add(stream(answers[1], answers[2]))
	f.Add(stream(answers[:2]...))
	f.Fuzz(func(t *testing.T, all []byte) {
		x := Exchange{Key: testKey}
		require.Equal(t, request, x.Sign(bodies[3], now))
		var got [][]byte
		for len(all) >= 2 {
			end := min(2+int(binary.BigEndian.Uint16(all)), len(all))
			body, err := x.Verify(all[2:end], now)
			if err != nil {
				return
			}
			got, all = append(got, body), all[end:]
		}
		if x.Complete() == nil {
			require.True(t, len(got) == 1 && bytes.Equal(got[0], bodies[0]) || slices.EqualFunc(got, bodies[:3], bytes.Equal), "%x was never signed", got)
		}
	})
}

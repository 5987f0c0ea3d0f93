package tsig

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

var (
	testKey = Key{Name: "Farm", Secret: []byte("0123456789abcdef0123456789abcdef")}
	now     = time.Unix(1_800_000_000, 0)
)

func packed(t *testing.T, m *dns.Msg) []byte {
	b, err := m.Pack()
	require.NoError(t, err)
	return b
}

func request(t *testing.T) []byte {
	return packed(t, new(dns.Msg).SetQuestion("example.com.", dns.TypeSOA))
}

func TestSecretsDoNotShow(t *testing.T) {
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		require.Equal(t, "tsig.Key(Farm)", fmt.Sprintf(format, testKey))
		require.NotContains(t, fmt.Sprintf(format, struct{ K Key }{testKey}), "0123")
	}
	data, err := json.Marshal(testKey)
	require.NoError(t, err)
	require.Equal(t, `{"Name":"Farm"}`, string(data))
}

func TestKeysAreChecked(t *testing.T) {
	require.NoError(t, testKey.Check())
	require.ErrorIs(t, Key{Name: "a b", Secret: testKey.Secret}.Check(), dnsreg.ErrInvalid)
	require.ErrorIs(t, Key{Name: ".", Secret: testKey.Secret}.Check(), dnsreg.ErrInvalid)
	require.EqualError(t, Key{Name: "farm.", Secret: []byte("short")}.Check(), "key farm.: invalid: the secret has 5 bytes, want at least 16")
}

// What we sign, an independent implementation verifies, and the other way round, in requests, answers and streams.
func TestAgreesWithAnotherImplementation(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString(testKey.Secret)
	real := time.Now()
	x := Exchange{Key: testKey}
	signed := x.Sign(request(t), real)
	require.NoError(t, dns.TsigVerify(signed, secret, "", false))

	m := new(dns.Msg).SetQuestion("example.com.", dns.TypeAXFR)
	m.SetTsig("farm.", dns.HmacSHA256, 300, real.Unix())
	theirs, mac, err := dns.TsigGenerate(m, secret, "", false)
	require.NoError(t, err)
	server, body, err := Receive([]Key{{Name: "other", Secret: testKey.Secret}, testKey}, theirs, real)
	require.NoError(t, err)
	require.NoError(t, new(dns.Msg).Unpack(body))

	// three answers of ours
	for i := range 3 {
		answer := server.Sign(packed(t, new(dns.Msg).SetReply(m)), real)
		require.NoError(t, dns.TsigVerify(slices.Clone(answer), secret, mac, i > 0))
		a := new(dns.Msg)
		require.NoError(t, a.Unpack(answer))
		mac = a.IsTsig().MAC
	}
	// three answers of theirs
	client := Exchange{Key: testKey}
	q := new(dns.Msg)
	require.NoError(t, q.Unpack(client.Sign(request(t), real)))
	mac = q.IsTsig().MAC
	for i := range 3 {
		a := new(dns.Msg).SetReply(q)
		a.SetTsig("farm.", dns.HmacSHA256, 300, real.Unix())
		var answer []byte
		answer, mac, err = dns.TsigGenerate(a, secret, mac, i > 0)
		require.NoError(t, err)
		_, err = client.Verify(answer, real)
		require.NoError(t, err)
		require.NoError(t, client.Complete())
	}
}

// exchange gives both sides after a request.
func exchange(t *testing.T) (client, server *Exchange) {
	client = &Exchange{Key: testKey}
	server, _, err := Receive([]Key{testKey}, client.Sign(request(t), now), now)
	require.NoError(t, err)
	return client, server
}

func TestEveryBitIsCovered(t *testing.T) {
	signed := (&Exchange{Key: testKey}).Sign(request(t), now)
	for bit := range 8 * len(signed) {
		bad := append([]byte(nil), signed...)
		bad[bit/8] ^= 1 << (bit % 8)
		if bit/8 < 2 { // the ID is not: forwarders change it, and the signature holds the original one
			continue
		}
		if _, body, err := Receive([]Key{testKey}, bad, now); err == nil {
			// the case of the key's and algorithm's names does not count, nor does the record's TTL, which is not read
			require.Equal(t, request(t)[2:], body[2:], "bit %d", bit)
		}
	}
	short := append([]byte(nil), signed...)
	for n := range len(short) {
		_, _, err := Receive([]Key{testKey}, short[:n], now)
		require.Error(t, err)
	}
}

func TestAMessageMayGoUnsignedInTheMiddleOnly(t *testing.T) {
	plain := request(t)
	client, server := exchange(t)
	_, err := client.Verify(plain, now)
	require.ErrorIs(t, err, ErrUnsigned, "the first answer")
	_, err = client.Verify(server.Sign(plain, now), now)
	require.NoError(t, err)
	require.NoError(t, client.Complete())

	for range 2 { // the sender's digest goes over them too
		_, err = server.Verify(plain, now)
		require.NoError(t, err)
		_, err = client.Verify(plain, now)
		require.NoError(t, err)
		require.ErrorIs(t, client.Complete(), ErrUnsigned)
	}
	_, err = client.Verify(server.Sign(plain, now), now)
	require.NoError(t, err)
	require.NoError(t, client.Complete())
	server.unsigned, server.since = 0, nil

	// a forged one in the middle is found by the next signature
	_, err = client.Verify(plain, now)
	require.NoError(t, err)
	_, err = client.Verify(server.Sign(plain, now), now)
	require.ErrorIs(t, err, ErrSignature)

	client, server = exchange(t)
	_, err = client.Verify(server.Sign(plain, now), now)
	require.NoError(t, err)
	for range maxUnsigned {
		_, err = client.Verify(plain, now)
		require.NoError(t, err)
	}
	_, err = client.Verify(plain, now)
	require.ErrorIs(t, err, ErrUnsigned, "more than may be")
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	other := Key{Name: "farm.", Secret: []byte("another secret of 32 bytes......")}
	for _, c := range []struct {
		name string
		key  Key
		at   time.Time
		err  error
	}{
		{"another secret", other, now, ErrSignature},
		{"another key", Key{Name: "x.", Secret: testKey.Secret}, now, ErrKey},
		{"too late", testKey, now.Add(-Fudge - time.Second), ErrTime},
		{"too early", testKey, now.Add(Fudge + time.Second), ErrTime},
		{"in time", testKey, now.Add(-Fudge), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := Exchange{Key: c.key}
			server, _, err := Receive([]Key{testKey}, client.Sign(request(t), c.at), now)
			require.ErrorIs(t, err, c.err)
			_, err = client.Verify(server.Sign(request(t), now), now)
			require.ErrorIs(t, err, c.err, "the other side is not told")
		})
	}
	_, _, err := Receive([]Key{testKey}, request(t), now)
	require.ErrorIs(t, err, ErrUnsigned)
}

// Package tsig signs and verifies DNS messages with a shared secret, by HMAC-SHA256 (RFC 8945). It works on messages in
// wire format and does no I/O.
//
// An [Exchange] is a request and its answers. The client signs the request and verifies what comes back:
//
//	x := tsig.Exchange{Key: key}
//	request = x.Sign(request, time.Now())
//	answer, err := x.Verify(answer, time.Now())
//
// and the server receives the request and signs what it answers:
//
//	x, request, err := tsig.Receive(keys, request, time.Now())
//	answer = x.Sign(answer, time.Now())
package tsig

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
)

// Algorithm is the one algorithm, as configurations of name servers call it.
const Algorithm = "hmac-sha256"

// Fudge is how far the clocks of both sides may be apart (RFC 8945, section 10).
const Fudge = 300 * time.Second

// Key is a secret that two sides share. However it is printed or encoded, its secret does not show.
type Key struct {
	// Name is what both sides call it: "farm." The trailing dot may be missing, the case does not matter.
	Name string
	// Secret is shared with the other side, where it stands in base64. 16 bytes or more; 32 are best.
	Secret []byte `json:"-"`
}

// Format prints the key's name in place of the key.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "tsig.Key(%s)", k.Name) }

// Check reports what is wrong with the key; the error is a dnsreg.ErrInvalid.
func (k Key) Check() error {
	name, err := dnsreg.CanonicalName(k.Name)
	switch {
	case err != nil:
		return fmt.Errorf("key: %w", err)
	case name == "." || strings.HasPrefix(name, "*."):
		return fmt.Errorf("key %s: %w: the root and wildcards are no names of keys", name, dnsreg.ErrInvalid)
	case len(k.Secret) < 16:
		return fmt.Errorf("key %s: %w: the secret has %d bytes, want at least 16", name, dnsreg.ErrInvalid, len(k.Secret))
	}
	return nil
}

// wireName gives the key's name in wire format. It is empty for a key that Check does not pass.
func (k Key) wireName() []byte {
	name, err := dnsreg.CanonicalName(k.Name)
	if err != nil {
		return nil
	}
	return wire.AppendName(nil, name)
}

// What is wrong with a message's signature.
var (
	// ErrUnsigned: there is no signature.
	ErrUnsigned = errors.New("the message is not signed")
	// ErrFormat: what should be a signature is none.
	ErrFormat = errors.New("the signature is malformed")
	// ErrKey: it is made with another key or algorithm.
	ErrKey = errors.New("the key or algorithm is unknown (BADKEY)")
	// ErrSignature: it does not fit the message.
	ErrSignature = errors.New("the signature is wrong (BADSIG)")
	// ErrTime: the clocks are too far apart, or somebody plays back an old message.
	ErrTime = errors.New("the time of the signature is too far away (BADTIME)")
)

// Codes of errors (RFC 8945, section 3).
const (
	badSig  = 16
	badKey  = 17
	badTime = 18
)

// maxUnsigned bounds the messages of a long answer that bear no signature of their own (RFC 8945, section 5.3.1).
const maxUnsigned = 99

// Exchange is a request and the answers to it, of one side. It is not safe for concurrent use.
type Exchange struct {
	Key Key

	stranger []byte    // the name of a key that is not known, in wire format: it may be one that no key here has
	n        int       // how many messages were signed or verified
	mac      []byte    // of the last of them
	since    hash.Hash // over the unsigned messages since then; nil if there are none
	unsigned int
	fault    uint16 // what the request's signature was refused for
	time     uint64 // the request's
}

// Sign gives the message with its signature, which comes last in it. The first message that an exchange signs is the
// request, or the answer if the exchange was received.
func (x *Exchange) Sign(msg []byte, now time.Time) []byte {
	name := x.stranger
	if name == nil {
		name = x.Key.wireName()
	}
	r := record{key: name, algorithm: algorithm, time: uint64(now.Unix()), fudge: uint16(Fudge / time.Second),
		id: binary.BigEndian.Uint16(msg), code: x.fault}
	if x.fault == badTime {
		r.other = binary.BigEndian.AppendUint64(nil, r.time)[2:]
		r.time = x.time
	}
	if x.fault == 0 || x.fault == badTime {
		r.mac = x.sum(msg, &r)
		x.mac = r.mac
	}
	x.n++
	out := r.append(slices.Clone(msg))
	binary.BigEndian.PutUint16(out[10:], binary.BigEndian.Uint16(out[10:])+1)
	return out
}

// Verify checks a message of the other side and gives it without its signature. Of several answers, which are verified in
// their order, the first is signed and not all others need to be (RFC 8945, section 5.3.1): after the last, [Exchange.Complete]
// says whether the signatures cover all of them.
func (x *Exchange) Verify(msg []byte, now time.Time) ([]byte, error) {
	r, err := find(msg)
	if err != nil {
		return nil, err
	}
	if r == nil {
		if x.n < 2 || x.unsigned == maxUnsigned {
			return nil, ErrUnsigned
		}
		if x.since == nil {
			x.since = x.begin()
		}
		x.since.Write(msg)
		x.unsigned++
		return msg, nil
	}
	body := r.strip(msg)
	if !slices.Equal(r.key, x.Key.wireName()) || !slices.Equal(r.algorithm, algorithm) || r.code == badKey {
		return nil, ErrKey
	}
	if len(r.mac) == 0 && r.code == badSig {
		return nil, fmt.Errorf("the other side says: %w", ErrSignature)
	}
	if !hmac.Equal(r.mac, x.sum(body, r)) {
		return nil, ErrSignature
	}
	if r.code == badTime {
		return nil, fmt.Errorf("the other side says: %w", ErrTime)
	}
	if r.code != 0 {
		return nil, fmt.Errorf("the other side refuses the signature with code %d", r.code)
	}
	if away(r, now) {
		return nil, ErrTime
	}
	x.n++
	x.mac, x.since, x.unsigned = r.mac, nil, 0
	return body, nil
}

// Complete reports an error if the last message had no signature.
func (x *Exchange) Complete() error {
	if x.unsigned > 0 || x.n < 2 {
		return fmt.Errorf("the last message: %w", ErrUnsigned)
	}
	return nil
}

// Receive checks a request by the one of the keys that it names, and gives it without its signature. With the errors
// ErrKey, ErrSignature and ErrTime there is an exchange too: what it signs tells the other side what was wrong, and its code
// shall be NOTAUTH. With ErrUnsigned and ErrFormat there is none.
func Receive(keys []Key, msg []byte, now time.Time) (*Exchange, []byte, error) {
	r, err := find(msg)
	if err != nil {
		return nil, nil, err
	}
	if r == nil {
		return nil, nil, ErrUnsigned
	}
	x := &Exchange{time: r.time}
	i := slices.IndexFunc(keys, func(k Key) bool { return slices.Equal(k.wireName(), r.key) })
	if i < 0 || !slices.Equal(r.algorithm, algorithm) {
		x.Key, x.stranger, x.fault = Key{Name: wire.NameText(r.key)}, r.key, badKey
		return x, nil, ErrKey
	}
	x.Key = keys[i]
	body := r.strip(msg)
	if !hmac.Equal(r.mac, x.sum(body, r)) {
		x.fault = badSig
		return x, nil, ErrSignature
	}
	x.n, x.mac = 1, r.mac
	if away(r, now) {
		x.fault = badTime
		return x, nil, ErrTime
	}
	return x, body, nil
}

func away(r *record, now time.Time) bool {
	d := int64(r.time) - now.Unix()
	return max(d, -d) > int64(min(r.fudge, uint16(Fudge/time.Second)))
}

// begin starts the digest of a message with what went before it.
func (x *Exchange) begin() hash.Hash {
	h := hmac.New(sha256.New, x.Key.Secret)
	if x.n > 0 {
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(x.mac))))
		h.Write(x.mac)
	}
	return h
}

// sum is the digest of a message (RFC 8945, section 4.3).
func (x *Exchange) sum(body []byte, r *record) []byte {
	h := x.since
	if h == nil {
		h = x.begin()
	}
	h.Write(binary.BigEndian.AppendUint16(nil, r.id))
	h.Write(body[2:])
	var v []byte
	if x.n < 2 {
		v = append(v, r.key...)
		v = append(v, 0, 255, 0, 0, 0, 0) // class ANY, TTL 0
		v = append(v, r.algorithm...)
	}
	v = r.appendTime(v)
	if x.n < 2 {
		v = binary.BigEndian.AppendUint16(v, r.code)
		v = binary.BigEndian.AppendUint16(v, uint16(len(r.other)))
		v = append(v, r.other...)
	}
	h.Write(v)
	return h.Sum(nil)
}

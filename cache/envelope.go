package cache

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
)

// envelope is what Of stores around an encoded value.
//
//	1  format, 1
//	1  bits: 1 there is no value, 2 compressed, 4 load has failed
//	4  hash of the codec, of Of.Version, and of what the type of values looks like
//	8  until when the value is fresh, in milliseconds of Unix time
//	8  until when somebody renews it, or 0
//	8  who
//	1  number of tags, then 8 for the generation of each
//	   the encoded value, or what load has failed with
//
// Numbers are big-endian.
type envelope struct {
	bits     byte
	schema   uint32
	fresh    time.Time
	renewing time.Time
	renewer  uint64
	gens     []uint64
	payload  []byte
}

const (
	envelopeFormat = 1
	bitAbsent      = 1
	bitCompressed  = 2
	bitFailed      = 4
	maxFailure     = 1 << 10 // bytes of an error
	envelopeHead   = 31
	maxTags        = 255
	maxPayload     = 64 << 20 // after decompression
)

func (e *envelope) append(b []byte) []byte {
	b = append(b, envelopeFormat, e.bits)
	b = binary.BigEndian.AppendUint32(b, e.schema)
	b = binary.BigEndian.AppendUint64(b, uint64(e.fresh.UnixMilli()))
	renewing := int64(0)
	if !e.renewing.IsZero() {
		renewing = e.renewing.UnixMilli()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(renewing))
	b = binary.BigEndian.AppendUint64(b, e.renewer)
	b = append(b, byte(len(e.gens)))
	for _, g := range e.gens {
		b = binary.BigEndian.AppendUint64(b, g)
	}
	return append(b, e.payload...)
}

// open takes an envelope apart. The payload is part of b.
func open(b []byte) (e envelope, ok bool) {
	if len(b) < envelopeHead || b[0] != envelopeFormat || b[1]&^(bitAbsent|bitCompressed|bitFailed) != 0 || len(b) < envelopeHead+8*int(b[30]) {
		return e, false
	}
	e.bits = b[1]
	e.schema = binary.BigEndian.Uint32(b[2:])
	e.fresh = time.UnixMilli(int64(binary.BigEndian.Uint64(b[6:])))
	if ms := int64(binary.BigEndian.Uint64(b[14:])); ms != 0 {
		e.renewing = time.UnixMilli(ms)
	}
	e.renewer = binary.BigEndian.Uint64(b[22:])
	for i := range int(b[30]) {
		e.gens = append(e.gens, binary.BigEndian.Uint64(b[envelopeHead+8*i:]))
	}
	e.payload = b[envelopeHead+8*int(b[30]):]
	return e, true
}

// schema tells what different codecs, versions and types have stored apart.
func (o *Of[V]) schema() uint32 {
	o.schemaOnce.Do(func() {
		kind, _, _ := strings.Cut(fmt.Sprintf("%T", o.codec()), "[") // without the name of the type of values, which may change
		h := fnv.New32a()
		_, _ = fmt.Fprintf(h, "%s %d ", kind, o.Version)
		writeShape(h, reflect.TypeFor[V](), nil)
		o.schemaHash = h.Sum32()
	})
	return o.schemaHash
}

func (o *Of[V]) codec() Codec[V] {
	if o.Codec == nil {
		return JSON[V]{}
	}
	return o.Codec
}

// failure is what a load has failed with that brought no value, as Get returns it.
func (e *envelope) failure() error {
	switch {
	case e.bits&bitAbsent != 0:
		return ErrNotFound
	case e.bits&bitFailed != 0:
		return fmt.Errorf("%w: %s", ErrLoadFailed, e.payload)
	}
	return nil
}

// seal encodes as of now what a load brought: a value, or a failure. It gives nothing where that is not to be stored.
func (o *Of[V]) seal(v V, failure error, gens []uint64) (stored []byte, ttl time.Duration, err error) {
	e := envelope{schema: o.schema(), gens: gens}
	switch {
	case failure == nil:
		ttl = o.ttl()
		if e.payload, err = o.codec().Encode(v); err != nil {
			return nil, 0, err
		}
	case errors.Is(failure, ErrNotFound):
		e.bits, ttl = bitAbsent, o.NegativeTTL
	default:
		text := failure.Error()
		e.bits, ttl, e.payload = bitFailed, o.ErrorTTL, []byte(text[:min(len(text), maxFailure)])
	}
	if ttl == 0 {
		return nil, 0, nil
	}
	if failure == nil && o.Compress > 0 && len(e.payload) > o.Compress {
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, flate.BestSpeed)
		if _, err := w.Write(e.payload); err == nil && w.Close() == nil && b.Len() < len(e.payload) {
			e.payload, e.bits = b.Bytes(), e.bits|bitCompressed
		}
	}
	e.fresh = time.Now().Add(ttl)
	if failure == nil {
		ttl += o.Stale
	}
	return e.append(make([]byte, 0, envelopeHead+8*len(gens)+len(e.payload))), ttl, nil
}

// unseal gives the value that is stored in an item, if it is one that this cache may return.
func (o *Of[V]) unseal(item Item, gens []uint64) (v V, e envelope, ok bool) {
	if item.Flags != flagValue {
		return v, e, false
	}
	e, ok = open(item.Value)
	if !ok || e.schema != o.schema() || !slices.Equal(e.gens, gens) {
		return v, e, false
	}
	end, lacks := e.fresh, e.bits&(bitAbsent|bitFailed) != 0
	if !lacks {
		end = end.Add(o.Stale)
	}
	if !time.Now().Before(end) {
		return v, e, false // the store keeps time in whole seconds
	}
	if lacks {
		return v, e, true
	}
	payload := e.payload
	if e.bits&bitCompressed != 0 {
		var err error
		if payload, err = inflate(payload); err != nil {
			return v, e, false
		}
	}
	v, err := o.codec().Decode(payload)
	return v, e, err == nil
}

var errInflated = errors.New("too large when decompressed")

func inflate(b []byte) ([]byte, error) {
	r := flate.NewReader(bytes.NewReader(b))
	out, err := io.ReadAll(io.LimitReader(r, maxPayload+1))
	if err == nil && len(out) > maxPayload {
		err = errInflated
	}
	return out, err
}

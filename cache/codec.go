package cache

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
)

// Codec turns values into bytes and back. Decode must fail for what Encode did not make. One for protocol buffers:
//
//	type codec struct{}
//
//	func (codec) Encode(p *pb.Page) ([]byte, error) { return proto.Marshal(p) }
//	func (codec) Decode(b []byte) (*pb.Page, error) { p := new(pb.Page); return p, proto.Unmarshal(b, p) }
type Codec[V any] interface {
	Encode(V) ([]byte, error)
	// Decode may keep b.
	Decode(b []byte) (V, error)
}

// JSON encodes with encoding/json. It is the default.
type JSON[V any] struct{}

// Encode implements Codec.
func (JSON[V]) Encode(v V) ([]byte, error) { return json.Marshal(v) }

// Decode implements Codec.
func (JSON[V]) Decode(b []byte) (v V, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// Gob encodes with encoding/gob, which keeps what JSON does not: other types of map keys, interfaces, NaN.
type Gob[V any] struct{}

// Encode implements Codec.
func (Gob[V]) Encode(v V) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(&v)
	return b.Bytes(), err
}

// Decode implements Codec.
func (Gob[V]) Decode(b []byte) (v V, err error) {
	err = gob.NewDecoder(bytes.NewReader(b)).Decode(&v)
	return v, err
}

// Raw stores bytes as they are.
type Raw struct{}

// Encode implements Codec.
func (Raw) Encode(v []byte) ([]byte, error) { return v, nil }

// Decode implements Codec.
func (Raw) Decode(b []byte) ([]byte, error) { return b, nil }

package tsig

import (
	"encoding/binary"
)

var algorithm = []byte("\x0bhmac-sha256\x00")

const (
	headerLen = 12
	typeTSIG  = 250
	classANY  = 255
)

// record is the record that holds a signature (RFC 8945, section 4.2).
type record struct {
	start     int    // where it begins in the message
	key       []byte // its name, in wire format and lower case, as is the algorithm's
	algorithm []byte
	time      uint64
	fudge     uint16
	mac       []byte
	id        uint16
	code      uint16
	other     []byte
}

func (r *record) appendTime(b []byte) []byte {
	b = append(b, binary.BigEndian.AppendUint64(nil, r.time)[2:]...)
	return binary.BigEndian.AppendUint16(b, r.fudge)
}

// append appends the record to a message.
func (r *record) append(b []byte) []byte {
	b = append(b, r.key...)
	b = append(b, 0, typeTSIG, 0, classANY, 0, 0, 0, 0, 0, 0)
	start := len(b)
	b = append(b, r.algorithm...)
	b = r.appendTime(b)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.mac)))
	b = append(b, r.mac...)
	b = binary.BigEndian.AppendUint16(b, r.id)
	b = binary.BigEndian.AppendUint16(b, r.code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.other)))
	b = append(b, r.other...)
	binary.BigEndian.PutUint16(b[start-2:], uint16(len(b)-start))
	return b
}

// strip gives a copy of the message that the record was found in as it was before it was signed.
func (r *record) strip(msg []byte) []byte {
	body := append([]byte(nil), msg[:r.start]...)
	binary.BigEndian.PutUint16(body[10:], binary.BigEndian.Uint16(body[10:])-1)
	binary.BigEndian.PutUint16(body, r.id)
	return body
}

// find gives the signature of a message, or nil if there is none. It must be the last record of all (RFC 8945, section 5.1).
func find(msg []byte) (*record, error) {
	if len(msg) < headerLen {
		return nil, ErrFormat
	}
	count := func(i int) int { return int(binary.BigEndian.Uint16(msg[i:])) }
	i := headerLen
	for range count(4) {
		if i = skipName(msg, i); i < 0 || i+4 > len(msg) {
			return nil, ErrFormat
		}
		i += 4
	}
	before := count(6) + count(8)
	total := before + count(10)
	for n := range total {
		start := i
		if i = skipName(msg, i); i < 0 || i+10 > len(msg) {
			return nil, ErrFormat
		}
		typ, class := binary.BigEndian.Uint16(msg[i:]), binary.BigEndian.Uint16(msg[i+2:])
		data := i + 10
		if i = data + int(binary.BigEndian.Uint16(msg[i+8:])); i > len(msg) {
			return nil, ErrFormat
		}
		if typ != typeTSIG {
			continue
		}
		if n < before || n != total-1 || i != len(msg) || class != classANY {
			return nil, ErrFormat
		}
		return parse(msg, start, data)
	}
	return nil, nil
}

// parse reads the record that begins at start and whose data begin at data. It ends where the message does.
func parse(msg []byte, start, data int) (*record, error) {
	r := &record{start: start}
	var i int
	if r.key, i = readName(msg, start); i < 0 {
		return nil, ErrFormat
	}
	if r.algorithm, i = readName(msg, data); i < 0 || i+10 > len(msg) {
		return nil, ErrFormat
	}
	u16 := func(i int) int { return int(binary.BigEndian.Uint16(msg[i:])) }
	r.time = uint64(u16(i))<<32 | uint64(u16(i+2))<<16 | uint64(u16(i+4))
	r.fudge = uint16(u16(i + 6))
	size := u16(i + 8)
	i += 10
	if i+size+6 > len(msg) {
		return nil, ErrFormat
	}
	r.mac = append([]byte(nil), msg[i:i+size]...)
	i += size
	r.id, r.code = uint16(u16(i)), uint16(u16(i+2))
	size = u16(i + 4)
	if i+6+size != len(msg) {
		return nil, ErrFormat
	}
	r.other = append([]byte(nil), msg[i+6:]...)
	return r, nil
}

// skipName gives where the name at i ends, or -1.
func skipName(msg []byte, i int) int {
	for i < len(msg) {
		switch c := int(msg[i]); {
		case c == 0:
			return i + 1
		case c >= 0xc0:
			return min(i+2, len(msg)+1)
		case c > 63:
			return -1
		default:
			i += 1 + c
		}
	}
	return -1
}

// readName gives the name at i in lower case, without pointers, and where it ends, or -1.
func readName(msg []byte, i int) (name []byte, end int) {
	end = skipName(msg, i)
	if end < 0 || end > len(msg) {
		return nil, -1
	}
	for limit := i; ; {
		if i >= len(msg) {
			return nil, -1
		}
		switch c := int(msg[i]); {
		case c >= 0xc0:
			if i+1 >= len(msg) {
				return nil, -1
			}
			i = c&0x3f<<8 | int(msg[i+1])
			if i >= limit { // pointers go back, so that they end
				return nil, -1
			}
			limit = i
		case c > 63 || i+1+c > len(msg) || len(name)+1+c > 255:
			return nil, -1
		default:
			name = append(name, byte(c))
			for _, b := range msg[i+1 : i+1+c] {
				if b >= 'A' && b <= 'Z' {
					b += 'a' - 'A'
				}
				name = append(name, b)
			}
			if c == 0 {
				return name, end
			}
			i += 1 + c
		}
	}
}

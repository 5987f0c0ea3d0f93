package memcached

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/scalr-go/scalr/cache"
)

// errProtocol: a server answered what it was not asked, or nothing that memcached says. The connection is unusable.
var errProtocol = errors.New("unexpected answer")

const (
	bufferSize = 16 << 10
	maxLine    = 2048      // an answer's line has a key and a few numbers
	sharedSize = 16 << 10  // the values of several keys share allocations of up to this size
	smallValue = 512       // if they are no larger than this
	maxAnswer  = 128 << 20 // bytes of one answer about several keys
)

// reader takes answers apart. Where reading fails, it keeps what it has of an answer, so that reading may go on later.
type reader struct {
	src  io.Reader
	buf  []byte
	r, w int // what is read of buf and not used

	item    cache.Item // whose value is being read
	cas     uint64
	at      hit // the same as one of several
	inValue bool
	have    int // bytes of the value
	total   int // bytes of values of this answer
	next    int // index of the first key that may come
	usual   int // bytes of a value in the latest answer about several keys
}

// buffered reports whether there are bytes that were not used.
func (r *reader) buffered() bool { return r.r < r.w }

func (r *reader) fill() error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if r.w == len(r.buf) {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	n, err := r.read(r.buf[r.w:])
	r.w += n
	return err
}

// read reads at least one byte, or fails.
func (r *reader) read(b []byte) (int, error) {
	for range 100 {
		if n, err := r.src.Read(b); n > 0 {
			return n, nil
		} else if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// line gives the next line, which is valid until the next read.
func (r *reader) line() ([]byte, error) {
	for {
		have := r.buf[r.r:r.w]
		if i := bytes.IndexByte(have, '\n'); i >= 0 {
			if i == 0 || have[i-1] != '\r' {
				return nil, fmt.Errorf("%w: a line without its end: %.40q", errProtocol, have[:i])
			}
			r.r += i + 1
			return have[:i-1], nil
		}
		if len(have) > maxLine {
			return nil, fmt.Errorf("%w: a line of more than %d bytes: %.40q", errProtocol, maxLine, have)
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// value reads the value of the item, and the end of line after it.
func (r *reader) value() error {
	v := r.item.Value
	for r.have < len(v) {
		if r.buffered() {
			n := copy(v[r.have:], r.buf[r.r:r.w])
			r.r += n
			r.have += n
			continue
		}
		if len(v)-r.have < len(r.buf) {
			if err := r.fill(); err != nil {
				return err
			}
			continue
		}
		n, err := r.read(v[r.have:])
		r.have += n
		if err != nil {
			return err
		}
	}
	for r.w-r.r < 2 {
		if err := r.fill(); err != nil {
			return err
		}
	}
	if r.buf[r.r] != '\r' || r.buf[r.r+1] != '\n' {
		return fmt.Errorf("%w: a value that does not end where it should", errProtocol)
	}
	r.r += 2
	return nil
}

// answer reads the answer to a call. An error is that of the connection, or errProtocol: either way nothing more can be read,
// unless reading was interrupted and answer is called again.
func (r *reader) answer(c *call, from *conn) error {
	for {
		if r.inValue {
			if err := r.value(); err != nil {
				return err
			}
			r.inValue, r.have = false, 0
			if c.kind != multi {
				r.item.Version = &casOf{from, r.cas, c.at}
				c.found = append(c.found, r.item)
				r.item = cache.Item{}
				return nil
			}
			r.at.key, r.at.flags, r.at.cas = r.next-1, r.item.Flags, r.cas
			c.hits = append(c.hits, r.at)
			c.from, r.item = from, cache.Item{}
		}
		if c.kind == multi {
			r.quick(c, from)
		}
		line, err := r.line()
		if err != nil {
			return err
		}
		complete, err := r.takeLine(c, line)
		if complete || err != nil {
			if len(c.hits) > 0 {
				r.usual = r.total / len(c.hits)
			}
			r.next, r.total = 0, 0
			return err
		}
	}
}

// takeLine takes a line of an answer and reports whether it completes it.
func (r *reader) takeLine(c *call, line []byte) (complete bool, err error) {
	word, rest := cut(line)
	switch string(word) {
	case "SERVER_ERROR":
		if bytes.HasPrefix(rest, []byte("object too large for cache")) {
			c.err = fmt.Errorf("%w: server says %.200q", cache.ErrTooLarge, line)
			return true, nil
		}
		return true, fmt.Errorf("%w: server says %.200q", errProtocol, line)
	case "END":
		if c.kind == multi {
			return true, nil
		}
	case "VALUE":
		if c.kind == multi {
			return false, r.takeValue(c, rest)
		}
	case "VA":
		if c.kind == get || c.kind == lease {
			size, flags := cut(rest)
			if err := r.takeFlags(c, flags); err != nil {
				return true, err
			}
			r.item.Key = c.key
			return false, r.begin(c, size)
		}
	case "EN", "HD", "NF", "NS", "EX":
		if err := r.takeFlags(c, rest); err != nil {
			return true, err
		}
		var ok bool
		c.err, ok = status(c.kind, string(word))
		if ok {
			return true, nil
		}
	}
	return true, fmt.Errorf("%w: %.200q", errProtocol, line)
}

// status is what a code of the meta protocol says to a call of a kind; not ok if it says nothing.
func status(k kind, code string) (err error, ok bool) {
	reads := k == get || k == lease
	switch {
	case code == "EN" && reads:
		return cache.ErrMiss, true
	case code == "HD" && !reads:
		return nil, true
	case code == "NF" && (k == swap || k == remove):
		return cache.ErrMiss, true
	case code == "NS" && k == add, code == "EX" && k == swap:
		return cache.ErrNotStored, true
	}
	return nil, false
}

// takeFlags takes the flags of an answer in the meta protocol. That which was sent to tell answers apart must be there.
func (r *reader) takeFlags(c *call, rest []byte) error {
	same := false
	for len(rest) > 0 {
		var flag []byte
		flag, rest = cut(rest)
		if len(flag) == 0 {
			continue
		}
		n, ok := number(flag[1:])
		switch flag[0] {
		case 'f':
			if !ok || n > 1<<32-1 {
				return fmt.Errorf("%w: flags %.20q", errProtocol, flag)
			}
			r.item.Flags = uint32(n)
		case 'c':
			if !ok {
				return fmt.Errorf("%w: CAS ID %.40q", errProtocol, flag)
			}
			r.cas = n
		case 'W':
			c.won = c.kind == lease
		case 'O':
			same = ok && n == uint64(c.opaque)
		}
	}
	if !same {
		return fmt.Errorf("%w: it is for another request", errProtocol)
	}
	return nil
}

// takeValue takes "key flags size cas", the head of one of several items.
func (r *reader) takeValue(c *call, rest []byte) error {
	i := r.next
	for ; i < len(c.keys); i++ {
		if key := c.keys[i]; len(rest) > len(key) && rest[len(key)] == ' ' && string(rest[:len(key)]) == key {
			break
		}
	}
	if i == len(c.keys) {
		key, _ := cut(rest)
		return fmt.Errorf("%w: it is about the key %.260q, which was not asked for", errProtocol, key)
	}
	flags, rest := cut(rest[len(c.keys[i])+1:])
	size, cas := cut(rest)
	f, ok1 := number(flags)
	id, ok2 := number(cas)
	if !ok1 || !ok2 || f > 1<<32-1 {
		return fmt.Errorf("%w: flags %.20q, CAS ID %.40q", errProtocol, flags, cas)
	}
	r.item.Flags, r.cas = uint32(f), id
	r.next = i + 1
	return r.begin(c, size)
}

// begin makes room for a value.
func (r *reader) begin(c *call, size []byte) error {
	n, ok := number(size)
	if !ok || n > cache.MaxValue {
		return fmt.Errorf("%w: a value of %.20q bytes, want at most %d", errProtocol, size, cache.MaxValue)
	}
	if r.total += int(n); r.total > maxAnswer {
		return fmt.Errorf("%w: more than %d bytes at once", errProtocol, maxAnswer)
	}
	if c.kind == multi {
		r.item.Value, r.at.room, r.at.at = c.room(int(n))
		r.at.size = int(n)
	} else {
		r.item.Value = make([]byte, n)
	}
	r.inValue, r.have = true, 0
	return nil
}

// quick takes the items that are here as a whole, are small, and come in the order of the keys, with none missing. It leaves
// everything else where it is.
func (r *reader) quick(c *call, from *conn) {
	const head = len("VALUE ")
	for ; r.next < len(c.keys); r.next++ {
		b, key := r.buf[r.r:r.w], c.keys[r.next]
		at := head + len(key)
		if len(b) <= at || string(b[:head]) != "VALUE " || string(b[head:at]) != key {
			return
		}
		var flags, size, cas uint64
		var ok1, ok2, ok3 bool
		flags, at, ok1 = digits(b, at)
		size, at, ok2 = digits(b, at)
		cas, at, ok3 = digits(b, at)
		if !ok1 || !ok2 || !ok3 || flags > 1<<32-1 || size > smallValue {
			return
		}
		at += len("\r\n")
		end := at + int(size)
		if len(b) < end+len("\r\n") || string(b[at-2:at]) != "\r\n" || string(b[end:end+2]) != "\r\n" {
			return
		}
		value, room, begin := c.room(int(size))
		copy(value, b[at:end])
		c.hits = append(c.hits, hit{r.next, uint32(flags), cas, room, begin, int(size)})
		c.from = from
		r.total += int(size)
		r.r += end + len("\r\n")
	}
}

// digits takes a space and up to 18 digits, and gives the index after them.
func digits(b []byte, at int) (n uint64, end int, ok bool) {
	if at >= len(b) || b[at] != ' ' {
		return 0, at, false
	}
	end = at + 1
	for ; end < len(b); end++ {
		d := b[end] - '0'
		if d > 9 {
			break
		}
		n = n*10 + uint64(d)
	}
	return n, end, end > at+1 && end <= at+1+18
}

// cut gives what is before the first space, and what is after it.
func cut(b []byte) (word, rest []byte) {
	for i, c := range b { // words are short
		if c == ' ' {
			return b[:i], b[i+1:]
		}
	}
	return b, nil
}

// number takes a decimal number that fits 64 bits.
func number(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for _, c := range b[:min(len(b), 19)] { // as many digits always fit
		d := c - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + uint64(d)
	}
	if len(b) == 20 {
		d := uint64(b[19] - '0')
		if d > 9 || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

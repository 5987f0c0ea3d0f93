package mysql_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
)

// The server's side of MySQL's protocol, as far as it takes to log in by caching_sha2_password and to ask questions. See
// https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html.

const (
	comQuit, comQuery, comPing = 1, 3, 14

	// LONG_PASSWORD, FOUND_ROWS, LONG_FLAG, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION,
	// MULTI_STATEMENTS, MULTI_RESULTS, PLUGIN_AUTH. Without DEPRECATE_EOF.
	capabilities = 1 | 2 | 4 | 8 | 0x200 | 0x2000 | 0x8000 | 0x10000 | 0x20000 | 0x80000

	autocommitStatus, moreResults = 2, 8
)

// sqlError is an ERR packet.
type sqlError struct {
	number int
	text   string
}

func (e *sqlError) Error() string { return fmt.Sprintf("%d: %s", e.number, e.text) }

func sqlErrorf(number int, format string, args ...any) *sqlError {
	return &sqlError{number, fmt.Sprintf(format, args...)}
}

// resultSet is what a statement gives; without columns it is an OK packet. A nil value is NULL.
type resultSet struct {
	columns []string
	rows    [][]any
}

// wire is one connection, as the server sees it.
type wire struct {
	net.Conn
	r   *bufio.Reader
	seq byte
}

func (w *wire) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return nil, err
	}
	w.seq = head[3] + 1
	body := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(w.r, body)
	return body, err
}

func (w *wire) write(body []byte) error {
	n := len(body)
	_, err := w.Conn.Write(append([]byte{byte(n), byte(n >> 8), byte(n >> 16), w.seq}, body...))
	w.seq++
	return err
}

func lenenc(s string) []byte {
	switch n := len(s); {
	case n < 251:
		return append([]byte{byte(n)}, s...)
	case n < 1<<16:
		return append([]byte{0xfc, byte(n), byte(n >> 8)}, s...)
	default:
		return append([]byte{0xfd, byte(n), byte(n >> 8), byte(n >> 16)}, s...)
	}
}

// login greets, and gives the user's name and whether the password is the one that the server has for it.
func (w *wire) login(version string, id uint32, password func(user string) (string, bool)) (user string, ok bool, err error) {
	nonce := []byte(rand.Text())[:20]
	var b bytes.Buffer
	b.WriteByte(10)
	b.WriteString(version + "\x00")
	binary.Write(&b, binary.LittleEndian, id)
	b.Write(nonce[:8])
	b.WriteByte(0)
	binary.Write(&b, binary.LittleEndian, uint16(capabilities&0xffff))
	b.WriteByte(255) // utf8mb4
	binary.Write(&b, binary.LittleEndian, uint16(autocommitStatus))
	binary.Write(&b, binary.LittleEndian, uint16(capabilities>>16))
	b.WriteByte(21)
	b.Write(make([]byte, 10))
	b.Write(append(nonce[8:], 0))
	b.WriteString("caching_sha2_password\x00")
	if err := w.write(b.Bytes()); err != nil {
		return "", false, err
	}
	answer, err := w.read()
	if err != nil || len(answer) < 33 {
		return "", false, io.ErrUnexpectedEOF
	}
	name, rest, found := bytes.Cut(answer[32:], []byte{0})
	if !found || len(rest) < 1 || len(rest) < 1+int(rest[0]) {
		return "", false, io.ErrUnexpectedEOF
	}
	scramble := rest[1 : 1+int(rest[0])]
	want, known := password(string(name))
	return string(name), known && bytes.Equal(scramble, scrambled(want, nonce)), nil
}

// welcome ends a login by the fast path of caching_sha2_password.
func (w *wire) welcome() error {
	if err := w.write([]byte{1, 3}); err != nil {
		return err
	}
	return w.ok(false)
}

// scrambled is XOR(SHA256(password), SHA256(SHA256(SHA256(password)), nonce)).
func scrambled(password string, nonce []byte) []byte {
	one := sha256.Sum256([]byte(password))
	two := sha256.Sum256(one[:])
	three := sha256.Sum256(append(two[:], nonce...))
	for i := range one {
		one[i] ^= three[i]
	}
	return one[:]
}

func status(more bool) []byte {
	if more {
		return []byte{autocommitStatus | moreResults, 0}
	}
	return []byte{autocommitStatus, 0}
}

func (w *wire) ok(more bool) error {
	return w.write(append(append([]byte{0, 0, 0}, status(more)...), 0, 0))
}

func (w *wire) err(e *sqlError) error {
	return w.write(append([]byte{0xff, byte(e.number), byte(e.number >> 8)}, "#HY000"+e.text...))
}

func (w *wire) result(r resultSet, more bool) error {
	if len(r.columns) == 0 {
		return w.ok(more)
	}
	eof := append([]byte{0xfe, 0, 0}, status(more)...)
	packets := [][]byte{{byte(len(r.columns))}}
	for _, c := range r.columns {
		var b bytes.Buffer
		for _, s := range []string{"def", "", "", "", c, c} {
			b.Write(lenenc(s))
		}
		b.Write([]byte{12, 255, 0, 0, 0, 0, 1, 0xfd, 0, 0, 0, 0, 0})
		packets = append(packets, b.Bytes())
	}
	packets = append(packets, append([]byte{0xfe, 0, 0}, status(false)...))
	for _, values := range r.rows {
		var b bytes.Buffer
		for _, v := range values {
			if v == nil {
				b.WriteByte(0xfb)
				continue
			}
			b.Write(lenenc(fmt.Sprint(v)))
		}
		packets = append(packets, b.Bytes())
	}
	for _, p := range append(packets, eof) {
		if err := w.write(p); err != nil {
			return err
		}
	}
	return nil
}

// splitStatements splits at semicolons outside of quotes.
func splitStatements(text string) []string {
	return splitOutside(text, ';')
}

func splitOutside(text string, at byte) (list []string) {
	var quote byte
	start := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote != 0 && c == '\\' && quote != '`':
			i++
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"' || c == '`'):
			quote = c
		case quote == 0 && c == at:
			list = append(list, strings.TrimSpace(text[start:i]))
			start = i + 1
		}
	}
	if rest := strings.TrimSpace(text[start:]); rest != "" || len(list) == 0 {
		list = append(list, rest)
	}
	return list
}

package mysql

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strings"
)

// A stream of mbstream is a sequence of chunks, each a piece of a file or the end of one: a magic word, flags, a kind, the length
// of the path and the path; of a piece also its length, its offset in the file, a CRC-32 and the bytes.
const (
	chunkMagic = "XBSTCK01"
	chunkPiece = 'P'
	chunkEnd   = 'E'
	// chunkPath and chunkLimit are what no path and no piece is longer than: mariadb-backup's have 10 MiB.
	chunkPath  = 4096
	chunkLimit = 1 << 26
)

// chunk is a chunk without its bytes, which follow it.
type chunk struct {
	kind byte
	path string
	size int64
	head []byte // all that comes before the bytes
}

// readChunk reads what comes before the bytes of a chunk; io.EOF says that there is none.
func readChunk(r *bufio.Reader) (c chunk, err error) {
	more := func(n int) []byte {
		at := len(c.head)
		c.head = append(c.head, make([]byte, n)...)
		if err == nil {
			if _, err = io.ReadFull(r, c.head[at:]); errors.Is(err, io.EOF) && at > 0 {
				err = io.ErrUnexpectedEOF
			}
		}
		return c.head[at:]
	}
	start := more(len(chunkMagic) + 6)
	if err != nil {
		return c, err
	}
	n := binary.LittleEndian.Uint32(start[len(chunkMagic)+2:])
	if string(start[:len(chunkMagic)]) != chunkMagic || n == 0 || n > chunkPath {
		return c, errors.New("it is no stream of mbstream's")
	}
	c.kind, c.path = start[len(chunkMagic)+1], string(more(int(n)))
	switch c.kind {
	case chunkEnd:
	case chunkPiece:
		size := binary.LittleEndian.Uint64(more(20))
		if err == nil && size > chunkLimit {
			return c, errors.New("it is no stream of mbstream's: a piece is too long")
		}
		c.size = int64(size)
	default: // a file that was renamed or removed
		if err == nil {
			err = errChanged
		}
	}
	if err == nil && (path.Clean(c.path) != strings.TrimPrefix(c.path, "./") || path.IsAbs(c.path) || strings.HasPrefix(c.path, "..")) {
		err = fmt.Errorf("it has a file %q", c.path)
	}
	return c, err
}

// to writes the chunk, with the bytes that follow it in r, to w.
func (c chunk) to(w io.Writer, r io.Reader) error {
	if _, err := w.Write(c.head); err != nil {
		return err
	}
	_, err := io.CopyN(w, r, c.size) // io.EOF if there are less
	return err
}

// writeFile writes a whole file.
func writeFile(w io.Writer, name, text string) error {
	head := func(kind byte) []byte {
		b := append([]byte(chunkMagic), 0, kind)
		return append(binary.LittleEndian.AppendUint32(b, uint32(len(name))), name...)
	}
	for at := 0; at < len(text); {
		piece := []byte(text[at:min(len(text), at+1<<20)])
		b := binary.LittleEndian.AppendUint64(head(chunkPiece), uint64(len(piece)))
		b = binary.LittleEndian.AppendUint64(b, uint64(at))
		b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(piece))
		if _, err := w.Write(append(b, piece...)); err != nil {
			return err
		}
		at += len(piece)
	}
	_, err := w.Write(head(chunkEnd))
	return err
}

// readFile reads a file that is whole and alone in what comes next.
func readFile(r *bufio.Reader, name string) (string, error) {
	c, err := readChunk(r)
	if err != nil {
		return "", err
	}
	return c.file(r, name)
}

// file reads the file, which begins with the chunk.
func (c chunk) file(r *bufio.Reader, name string) (text string, err error) {
	var b strings.Builder
	for ; err == nil; c, err = readChunk(r) {
		switch {
		case c.path != name:
			return "", fmt.Errorf("%w: it has a file %q where %s should be", errNoBackup, c.path, name)
		case c.kind == chunkEnd:
			return b.String(), nil
		case int64(b.Len())+c.size > frameLimit:
			return "", fmt.Errorf("%w: its %s is too long", errNoBackup, name)
		}
		if _, err := io.CopyN(&b, r, c.size); err != nil {
			return "", err
		}
	}
	return "", err
}

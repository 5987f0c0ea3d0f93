package journal

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/scalr-go/scalr"
)

// File is a journal in a file, a JSON object a line. Several programs may append to one file of a local file system.
//
// A program that dies while it writes may leave the last line torn. It stays as it is, the next event begins a line of its
// own, and Read shows an event of kind [Gap] in its place.
type File struct {
	// Path is the file. It is created with mode 0600.
	Path string
	// Sync waits at each Append until the disk has it.
	Sync bool
}

var _ Journal = (*File)(nil)

// Append implements Journal.
func (f *File) Append(ctx context.Context, events ...scalr.Event) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	file, err := os.OpenFile(f.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var b bytes.Buffer
	if torn, err := isTorn(file); err != nil {
		return fmt.Errorf("journal: %w", err)
	} else if torn {
		b.WriteByte('\n')
	}
	for _, e := range events {
		if err := json.NewEncoder(&b).Encode(e); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	// One write, so that lines of several programs do not mix.
	if _, err := file.Write(b.Bytes()); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if f.Sync {
		if err := file.Sync(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

// isTorn reports whether the file ends within a line.
func isTorn(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return last[0] != '\n', err
}

// Read implements Journal. A file that does not exist has no events.
func (f *File) Read(ctx context.Context, q Query) ([]scalr.Event, error) {
	file, err := os.Open(f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return []scalr.Event{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer file.Close()
	var events []scalr.Event
	last := time.Time{} // a torn line happened then, as far as is known
	r := bufio.NewReader(file)
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		line, err := r.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("journal: %w", err)
		}
		var e scalr.Event
		switch {
		case len(line) == 0:
		case err != nil || json.Unmarshal(line, &e) != nil:
			events = append(events, scalr.Event{Time: last, Kind: Gap, Message: fmt.Sprintf("line %d of %s is torn", n, f.Path)})
		default:
			last = e.Time
			if q.Match(e) {
				events = append(events, e)
			}
		}
		if err != nil {
			return q.pick(events), nil
		}
	}
}

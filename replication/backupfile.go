package replication

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Backup is what a backup file says of itself.
//
// The file is two members of gzip, one after the other: what [Backuper.Backup] wrote, and one line with this, as JSON. So
// "zcat FILE" gives all of it, and "zcat FILE | tail -n 1" ends with what it is.
type Backup struct {
	File     string    `json:"-"`        // its path
	Set      string    `json:"set"`      // Config.Name
	Taken    time.Time `json:"taken"`    // when it was begun
	Member   string    `json:"member"`   // the ID of the member that it was read from
	Position Position  `json:"position"` // how far its data goes
	Bytes    int64     `json:"bytes"`    // how much data there is, uncompressed
	// SHA256 is that of the data and of the fields above but File.
	SHA256 string `json:"sha256"`
}

// The name of a backup file is the set's, the time, and an ending.
const (
	backupTime   = "20060102T150405.000000000Z"
	backupEnding = ".backup.gz"
)

func backupName(set string, taken time.Time) string {
	return url.PathEscape(set) + "-" + taken.UTC().Format(backupTime) + backupEnding
}

// backupTaken reads the time off the name of a file of the set's.
func backupTaken(set, name string) (taken time.Time, ok bool) {
	name, ok = strings.CutSuffix(name, backupEnding)
	if ok {
		name, ok = strings.CutPrefix(name, url.PathEscape(set)+"-")
	}
	taken, err := time.Parse(backupTime, name)
	return taken, ok && err == nil
}

// listBackups gives when the complete backups of a set were taken, the oldest first, and the names of what is left of
// those that broke off.
func listBackups(dir, set string) (taken []time.Time, parts []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name, part := strings.CutSuffix(e.Name(), partEnding)
		at, ok := backupTaken(set, name)
		switch {
		case !ok || !e.Type().IsRegular():
		case part:
			parts = append(parts, e.Name())
		default:
			taken = append(taken, at)
		}
	}
	slices.SortFunc(taken, time.Time.Compare)
	return taken, parts, nil
}

// LatestBackup gives the path of the newest complete backup of a set, which is named as in Config.Name.
func LatestBackup(dir, set string) (path string, err error) {
	taken, _, err := listBackups(dir, set)
	if err != nil {
		return "", err
	}
	if len(taken) == 0 {
		return "", fmt.Errorf("%s has no backup of the set %q", dir, set)
	}
	return filepath.Join(dir, backupName(set, taken[len(taken)-1])), nil
}

// sum is the checksum of a backup whose data has gone into h.
func (b Backup) sum(h hash.Hash) string {
	b.SHA256 = ""
	text, _ := json.Marshal(b) // it has nothing that cannot be
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil))
}

// writeBackup writes a backup file: what data writes, and what it is.
func writeBackup(w io.Writer, b Backup, data func(io.Writer) (Position, error)) (Backup, error) {
	buffered := bufio.NewWriterSize(w, 1<<18)
	z, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return b, err
	}
	h := sha256.New()
	n := &counter{w: io.MultiWriter(z, h)}
	if b.Position, err = data(n); err != nil {
		return b, err
	}
	b.Bytes = n.n
	b.SHA256 = b.sum(h)
	if err := z.Close(); err != nil {
		return b, err
	}
	text, err := json.Marshal(b)
	if err != nil {
		return b, err
	}
	z.Reset(buffered)
	if _, err := z.Write(append(text, '\n')); err != nil {
		return b, err
	}
	return b, errors.Join(z.Close(), buffered.Flush())
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// backupReader gives the data of a backup file, and an error instead of its end where the file is not as it was written.
type backupReader struct {
	ctx  context.Context
	file *bufio.Reader
	data *gzip.Reader
	hash hash.Hash
	info Backup
	n    int64
	err  error
}

func newBackupReader(ctx context.Context, file io.Reader) (*backupReader, error) {
	r := &backupReader{ctx: ctx, file: bufio.NewReaderSize(file, 1<<18), hash: sha256.New()}
	var err error
	if r.data, err = gzip.NewReader(r.file); err != nil {
		return nil, notWhole(err)
	}
	r.data.Multistream(false)
	return r, nil
}

func notWhole(err error) error { return fmt.Errorf("it is no whole backup: %w", err) }

func (r *backupReader) Read(p []byte) (n int, err error) {
	if r.err == nil {
		r.err = context.Cause(r.ctx)
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err = r.data.Read(p)
	r.n += int64(n)
	r.hash.Write(p[:n])
	switch {
	case errors.Is(err, io.EOF):
		r.err = io.EOF
		if err := r.end(); err != nil {
			r.err = notWhole(err)
		}
	case err != nil:
		r.err = notWhole(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// end reads what the file says of itself, and holds it to that.
func (r *backupReader) end() error {
	if err := r.data.Reset(r.file); err != nil {
		return fmt.Errorf("what it says of itself is missing: %w", err)
	}
	r.data.Multistream(false)
	const limit = 1 << 20
	text, err := io.ReadAll(io.LimitReader(r.data, limit+1))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &r.info); err != nil || len(text) > limit {
		return fmt.Errorf("what it says of itself cannot be read")
	}
	if _, err := r.file.ReadByte(); err != io.EOF {
		return fmt.Errorf("something follows its end")
	}
	if sum := r.info.sum(r.hash); sum != r.info.SHA256 || r.n != r.info.Bytes {
		return fmt.Errorf("it has %d bytes with the checksum %s, and says that it has %d with %s", r.n, sum, r.info.Bytes, r.info.SHA256)
	}
	return nil
}

// CheckBackup reads a backup file from its beginning to its end, and gives what it says of itself. One that is torn or was
// altered is an error.
func CheckBackup(ctx context.Context, path string) (Backup, error) {
	f, err := os.Open(path)
	if err != nil {
		return Backup{}, err
	}
	defer f.Close()
	r, err := newBackupReader(ctx, f)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		return Backup{}, fmt.Errorf("the backup %s: %w", path, err)
	}
	r.info.File = path
	return r.info, nil
}

// RestoreBackup fills a server from a backup file, by the rules of [Backuper.Restore]; a file that is torn or was altered is
// refused before. Scrub and progress may be nil.
//
// It is how a backup is tested: restore it into a server that is there for nothing else, and look whether that has what it
// should. (An engine compares by itself what it has restored with what it had read: see its doc.)
func RestoreBackup(ctx context.Context, e Backuper, m Member, path string, scrub func(context.Context, Member) error,
	progress func(Progress)) (Backup, error) {
	b, err := CheckBackup(ctx, path)
	if err != nil {
		return Backup{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Backup{}, err
	}
	defer f.Close()
	r, err := newBackupReader(ctx, f)
	if err != nil {
		return Backup{}, fmt.Errorf("the backup %s: %w", path, err)
	}
	if _, err := e.Restore(ctx, m, r, scrub, progress); err != nil {
		return Backup{}, fmt.Errorf("the backup %s: %w", path, err)
	}
	return b, nil
}

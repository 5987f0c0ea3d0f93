package mysql

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// A backup is a text that the client mariadb takes: statements, each after a comment that says to Restore what it is, and
// how long, so that nobody has to find its end. No statement has the delimiter outside of a string.
const (
	delimiter   = "//scalr//"
	backupMagic = "DELIMITER " + delimiter + "\n"
	framePrefix = "-- "
	// backupFormat is the number of this format: one that a reader does not know is not read.
	backupFormat = 1
	// frameLimit bounds one statement: max_allowed_packet is at most 1 GiB.
	frameLimit = 1 << 30
)

// frame is one comment and its statement.
type frame struct {
	Kind string `json:"kind"`
	Size int64  `json:"size,omitempty"` // of the statement, in bytes; 0 if there is none

	// frameHead
	Format   int               `json:"format,omitempty"`
	Position string            `json:"position,omitempty"`
	Version  string            `json:"version,omitempty"` // of the server
	Schemas  map[string]string `json:"schemas,omitempty"` // collation by name
	// frameHead: an estimate for the whole; frameRows and frameSum: as many there are
	Rows int64 `json:"rows,omitempty"`
	// frameHead of a backup of files: what a server must agree in, and how large they are
	Files map[string]string `json:"files,omitempty"`

	// frameAccount
	User   string   `json:"user,omitempty"`
	Host   string   `json:"host,omitempty"`
	Role   bool     `json:"role,omitempty"`
	Grants []string `json:"grants,omitempty"`

	// frameObject, frameTable
	Schema string `json:"schema,omitempty"`
	Name   string `json:"name,omitempty"`
	// frameObject
	Object      string `json:"object,omitempty"`
	SQLMode     string `json:"sql_mode,omitempty"`
	Client      string `json:"client,omitempty"`
	Collation   string `json:"collation,omitempty"`
	DBCollation string `json:"db_collation,omitempty"`
	TimeZone    string `json:"time_zone,omitempty"`
	// frameTable
	Engine    string `json:"engine,omitempty"`
	Versioned bool   `json:"versioned,omitempty"`
	// frameSum
	Checksum string `json:"checksum,omitempty"`

	statement string
}

// The kinds of frames, in the order in which they come.
const (
	frameHead    = "head"
	frameAccount = "account"
	frameObject  = "object" // what the rows need; after the rows, the rest
	frameTable   = "table"  // for each table: this, its rows, and their sum
	frameRows    = "rows"
	frameSum     = "sum"
	frameEnd     = "end"
	frameSet     = "set" // anywhere: settings for the client mariadb, which Restore does not need
)

func objectFrame(o object) frame {
	return frame{Kind: frameObject, Object: o.kind, Schema: o.schema, Name: o.name, statement: o.create,
		SQLMode: o.sqlMode, Client: o.client, Collation: o.collation, DBCollation: o.dbCollation, TimeZone: o.timeZone}
}

func (f frame) object() object {
	return object{kind: f.Object, schema: f.Schema, name: f.Name, create: f.statement,
		sqlMode: f.SQLMode, client: f.Client, collation: f.Collation, dbCollation: f.DBCollation, timeZone: f.TimeZone}
}

// frameWriter writes frames, and keeps the first error.
type frameWriter struct {
	w   *bufio.Writer
	err error
}

func newFrameWriter(w io.Writer) *frameWriter {
	f := &frameWriter{w: bufio.NewWriterSize(w, 1<<16)}
	f.text(backupMagic)
	return f
}

func (w *frameWriter) text(s string) {
	if w.err == nil {
		_, w.err = w.w.WriteString(s)
	}
}

func (w *frameWriter) write(f frame) {
	f.Size = int64(len(f.statement))
	head, err := json.Marshal(f)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.text(framePrefix + string(head) + "\n")
	if f.Size > 0 {
		w.text(f.statement)
		w.text("\n" + delimiter + "\n")
	}
}

// set writes settings for the client mariadb.
func (w *frameWriter) set(statements ...string) {
	for _, s := range statements {
		w.write(frame{Kind: frameSet, statement: s})
	}
}

// accounts writes the accounts as another set gets them.
func (w *frameWriter) accounts(all *catalog) {
	for _, a := range locked(all.accounts) {
		w.write(frame{Kind: frameAccount, User: a.user, Host: a.host, Role: a.role, Grants: a.grants})
	}
}

// session writes the settings that everything is restored under.
func (w *frameWriter) session() {
	w.set("SET NAMES utf8mb4", "SET time_zone = '+00:00'")
	for _, variable := range slices.Sorted(maps.Keys(takesAnything)) {
		w.set("SET " + variable + " = " + takesAnything[variable])
	}
}

func (w *frameWriter) flush() error {
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}

// frameReader reads frames.
type frameReader struct{ r *bufio.Reader }

// errNoBackup is for what Backup has not written.
var errNoBackup = errors.New("it is no backup of this engine, or a part of one")

func newFrameReader(r io.Reader) (*frameReader, error) {
	f := &frameReader{bufio.NewReaderSize(r, 1<<16)}
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(f.r, magic); err != nil {
		return nil, torn(err)
	}
	if string(magic) != backupMagic {
		return nil, fmt.Errorf("%w: it begins with %q", errNoBackup, magic)
	}
	return f, nil
}

// torn is the error of a text that has no end.
func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it breaks off", errNoBackup)
	}
	return err
}

// next gives the next frame, but for settings.
func (r *frameReader) next() (frame, error) {
	for {
		line, err := r.r.ReadBytes('\n')
		if err != nil {
			return frame{}, torn(err)
		}
		var f frame
		text, ok := bytes.CutPrefix(line, []byte(framePrefix))
		if !ok || json.Unmarshal(text, &f) != nil || f.Size < 0 || f.Size > frameLimit {
			return frame{}, fmt.Errorf("%w: where a statement is to be announced there is something else", errNoBackup) // perhaps data of users
		}
		if f.Size > 0 {
			if f.statement, err = r.statement(f.Size); err != nil {
				return frame{}, err
			}
		}
		if f.Kind != frameSet {
			return f, nil
		}
	}
}

func (r *frameReader) statement(size int64) (string, error) {
	var b strings.Builder
	if _, err := io.CopyN(&b, r.r, size); err != nil {
		return "", torn(err)
	}
	const after = "\n" + delimiter + "\n"
	end := make([]byte, len(after))
	if _, err := io.ReadFull(r.r, end); err != nil {
		return "", torn(err)
	}
	if string(end) != after {
		return "", fmt.Errorf("%w: a statement has not the length that it is said to have", errNoBackup)
	}
	return b.String(), nil
}

// end makes sure that nothing follows.
func (r *frameReader) end() error {
	switch _, err := r.r.ReadByte(); {
	case err == nil:
		return fmt.Errorf("%w: something follows its end", errNoBackup)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

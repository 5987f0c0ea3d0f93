package mysql

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

// The files that a backup of files has besides: the first one and the last one.
const (
	fileDefinitions = "scalr_backup.sql" // frames, without rows
	fileEnd         = "scalr_backup_end" // the position: whoever finds it has found all
)

const (
	ariaControl = "aria_log_control"
	ariaLog     = "aria_log.00000001"
)

// kept reports whether a file of a server's becomes a part of a backup. Left out are the system tables of Aria, which is where
// passwords are, and Aria's log, which has them for long: a server that is restored has its own. A log without anything stands in for
// it, since mariadb-backup --prepare wants one.
func kept(file string) bool {
	dir, name := path.Split(path.Clean(file))
	switch dir {
	case "":
		return name != ariaControl && !strings.HasPrefix(name, "aria_log.") && name != "xtrabackup_info" && name != "mariadb_backup_info"
	case "mysql/":
		return slices.Contains([]string{".ibd", ".frm", ".opt"}, path.Ext(name))
	case "sys/", "performance_schema/":
		return false
	}
	return true
}

// ariaScript writes a log of Aria without anything, and how long the first of its two files is.
const ariaScript = `PATH=$PATH:/usr/sbin; export PATH
d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT
mariadbd --no-defaults --bootstrap --user="$(id -un)" --datadir="$d" --skip-innodb --default-storage-engine=Aria --skip-log-bin </dev/null >"$d/out" 2>&1 ||
	{ cat "$d/out"; exit 1; }
wc -c <"$d/aria_log_control" && cat "$d/aria_log_control" "$d/aria_log.00000001"`

// emptyAria gives a log of Aria without anything, by the names of its files.
func (f *filing) emptyAria(ctx context.Context) ([][2]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, shortCommand, errors.New("it takes too long"))
	defer cancel()
	var b strings.Builder
	if said, err := f.machines.on(ctx, f.from, nil, &b, "/bin/sh", "-c", ariaScript); err != nil {
		return nil, fmt.Errorf("mariadbd --bootstrap on the machine of %s: %w: %s", f.from.ID, err, lastWords(said+b.String()))
	}
	size, rest, _ := strings.Cut(b.String(), "\n")
	n := int(number(strings.TrimSpace(size)))
	if n <= 0 || n >= len(rest) {
		return nil, fmt.Errorf("mariadbd --bootstrap on the machine of %s makes no log of Aria", f.from.ID)
	}
	return [][2]string{{ariaControl, rest[:n]}, {ariaLog, rest[n:]}}, nil
}

// strangeQuery counts what cannot be told apart by kept, or be restored elsewhere.
const strangeQuery = `SELECT
	(SELECT COUNT(*) FROM information_schema.tables WHERE engine = 'InnoDB' AND (table_schema = 'sys' OR table_schema = 'mysql' AND
		table_name NOT IN ('innodb_index_stats','innodb_table_stats','transaction_registry') AND table_name NOT LIKE 'gtid\_slave\_pos%' AND
		table_name NOT LIKE 'scalr\_%')) AS tables,
	(SELECT COUNT(*) FROM information_schema.innodb_sys_tablespaces WHERE filename NOT LIKE './%' AND name <> 'innodb_system') AS outside,
	(SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_type = 'ENCRYPTION' AND plugin_status = 'ACTIVE') AS encryption`

// ordinary refuses a server with anything that is strange.
func (s *server) ordinary(ctx context.Context) error {
	rows, err := s.rows(ctx, strangeQuery)
	switch {
	case err != nil:
		return err
	case rows[0]["tables"] != "0":
		return fmt.Errorf("%s of its system tables are of InnoDB that are not so by default", rows[0]["tables"])
	case rows[0]["outside"] != "0":
		return fmt.Errorf("%s of its tables have a DATA DIRECTORY", rows[0]["outside"])
	case rows[0]["encryption"] != "0":
		return errors.New("it encrypts its files")
	}
	return nil
}

// backupFiles writes a backup of files. It fails with *notByFiles, and has written nothing, where one over SQL may do better.
func (s *server) backupFiles(ctx context.Context, m replication.Member, w io.Writer, progress func(replication.Progress)) (position, error) {
	if why := s.notFiles.Swap(nil); why != nil {
		return nil, &notByFiles{*why}
	}
	f := &filing{copying: copying{source: s, progress: progress}, machines: s.engine.config.Machines, from: m}
	out := &meter{w: w, report: func(int64) {}}
	at, err := f.backup(ctx, out)
	switch {
	case err == nil || ctx.Err() != nil || errors.Is(err, errChanged) || out.err != nil:
	case out.n == 0:
		return nil, &notByFiles{err}
	default: // the next one goes another way
		s.notFiles.Store(&err)
	}
	return at, err
}

func (f *filing) backup(ctx context.Context, w io.Writer) (position, error) {
	l, err := f.readable(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.appliesAlone(); err != nil {
		return nil, err
	}
	s, err := f.source.facts(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.source.ordinary(ctx); err != nil {
		return nil, err
	}
	f.reads(s)
	if f.state, err = parsePosition(s["state"]); err != nil {
		return nil, err
	}
	if err := f.tools(ctx, f.from, s["version"], ""); err != nil {
		return nil, err
	}
	first, err := f.emptyAria(ctx)
	if err != nil {
		return nil, err
	}
	ctx, stop := watch(ctx, f.source)
	defer stop()
	leave, err := f.openSource(ctx)
	defer leave()
	if err != nil {
		return nil, err
	}
	all, err := readCatalog(ctx, f.defs, f.source.engine.config)
	if err != nil {
		return nil, err
	}
	for _, t := range all.tables {
		if !strings.EqualFold(t.engine, "InnoDB") {
			return nil, fmt.Errorf("table %s is of the engine %s, want InnoDB", t, t.engine)
		}
	}
	head := frame{Kind: frameHead, Format: backupFormat, Version: l.vars["version"], Schemas: all.schemas, Rows: all.rows, Files: map[string]string{"size": s["size"]}}
	for _, v := range alike {
		head.Files[v] = s[v]
	}
	var definitions bytes.Buffer
	out := newFrameWriter(&definitions)
	out.write(head)
	out.accounts(all)
	out.session()
	out.objects(all, false)
	out.objects(all, true)
	out.write(frame{Kind: frameEnd})
	if err := out.flush(); err != nil {
		return nil, err
	}
	first = append([][2]string{{fileDefinitions, definitions.String()}}, first...)
	var info string
	if err := f.stream(ctx, func(_ context.Context, r io.Reader) (err error) {
		info, err = keepFiles(w, bufio.NewReaderSize(r, 1<<16), first)
		return err
	}); err != nil {
		return nil, err
	}
	at, err := f.position(info)
	if err != nil {
		return nil, err
	}
	f.report("comparing")
	if err := f.unchanged(ctx, all, f.source.engine.config); err != nil {
		return nil, err
	}
	if err := writeFile(w, fileEnd, string(at.public())+"\n"); err != nil {
		return nil, err
	}
	return at, context.Cause(ctx)
}

// keepFiles writes the first files, and what is kept of a stream. It gives what that says of its position.
func keepFiles(w io.Writer, r *bufio.Reader, first [][2]string) (info string, err error) {
	for begun := false; ; {
		c, err := readChunk(r)
		if errors.Is(err, io.EOF) && begun {
			return info, nil
		}
		if err != nil {
			return "", fmt.Errorf("what mariadb-backup writes: %w", err)
		}
		if !begun { // mariadb-backup has found what it needs
			begun = true
			for _, file := range first {
				if err := writeFile(w, file[0], file[1]); err != nil {
					return "", err
				}
			}
		}
		to := w
		var text strings.Builder
		switch {
		case strings.HasSuffix(c.path, "_binlog_info") && path.Dir(path.Clean(c.path)) == ".":
			to = io.MultiWriter(w, &text)
		case !kept(c.path):
			to = io.Discard
		}
		if err := c.to(to, r); errors.Is(err, io.EOF) {
			return "", io.ErrUnexpectedEOF
		} else if err != nil {
			return "", err
		}
		if text.Len() > 0 {
			info += text.String()[len(c.head):]
		}
	}
}

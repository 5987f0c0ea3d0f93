package mysql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

// restoreFiles is the restore of a backup of files. Until the copy is there, ready and beside it, the target keeps its data, which
// nobody can use any more; and until it has been found whole the server can go back to that.
func (c *copying) restoreFiles(ctx context.Context, m replication.Member, in *bufio.Reader, scrub func(context.Context, replication.Member) error) (position, error) {
	f := &filing{copying: *c, machines: c.target.engine.config.Machines, m: m}
	text, err := readFile(in, fileDefinitions)
	if err != nil {
		return nil, torn(err)
	}
	frames, err := newFrameReader(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	head, all, err := f.definitions(frames)
	if err != nil {
		return nil, err
	}
	if f.machines.Run == nil {
		return nil, fmt.Errorf("it holds files of MariaDB %s, which are restored on the machine: set Config.Machines", head.Version)
	}
	if err := f.fitsBackup(ctx, head); err != nil {
		return nil, err
	}
	token, err := f.target.claimedWith(ctx)
	if err != nil {
		return nil, err
	}
	watched, stop := watch(ctx, f.target)
	defer func() { stop() }()
	release, err := f.claim(watched)
	defer func() { release() }()
	if err != nil {
		return nil, err
	}
	at, err := f.receive(watched, in)
	if err != nil {
		_ = f.clean(ctx) // or the next one does
		return nil, err
	}
	if err := f.mine(watched); err != nil {
		return nil, err
	}
	if err := f.to.exec(watched, closeAccounts(f.target.engine.config)...); err != nil {
		return nil, err
	}
	stop() // from here on the target comes and goes
	release()
	release = func() {}
	f.report("exchanging the data directory")
	err = f.swap(ctx, f.copy, f.old, ownFiles)
	if err == nil {
		if release, err = f.reclaim(ctx, max(token, f.m.Token), f.forget()...); err == nil {
			at.extend(f.slavePos)
			watched, stop = watch(ctx, f.target)
			err = f.complete(watched, all)
		}
		if errors.Is(err, replication.ErrOvertaken) {
			return nil, err
		}
		if err != nil {
			stop()
			release()
			release = func() {}
			if back := f.swap(context.WithoutCancel(ctx), f.old, f.copy, ""); back != nil {
				return nil, fmt.Errorf("%w; what the server had before is in %s: %w", err, f.old, back)
			}
		}
	}
	if err != nil {
		f.reopen(ctx)
		_ = f.clean(ctx)
		return nil, err
	}
	if err := f.clean(watched); err != nil {
		return nil, err
	}
	return at, f.scrubbed(watched, m, scrub, at)
}

// definitions reads the definitions of a backup of files.
func (f *filing) definitions(in *frameReader) (head frame, all *catalog, err error) {
	head, all, next, err := f.readDefinitions(in)
	for ; err == nil && next.Kind != frameEnd; next, err = in.next() {
		if next.Kind != frameObject {
			return head, nil, unexpected(next)
		}
		all.objects = append(all.objects, next.object())
	}
	if err == nil {
		err = in.end()
	}
	if err == nil && head.Files == nil {
		err = unexpected(head)
	}
	if err != nil {
		return head, nil, err
	}
	for _, o := range all.objects {
		if o.kind == "TABLE" || o.kind == "SEQUENCE" {
			all.tables = append(all.tables, &table{schema: o.schema, name: o.name})
		}
	}
	return head, all, nil
}

// fitsBackup refuses, before anything is touched, a target that a backup cannot be restored to.
func (f *filing) fitsBackup(ctx context.Context, head frame) error {
	t, err := f.target.facts(ctx)
	if err != nil {
		return err
	}
	s := maps.Clone(row(head.Files))
	s["version"] = head.Version
	if err := f.takes(t, s, "the backup's server"); err != nil {
		return err
	}
	if err := f.target.ordinary(ctx); err != nil {
		return err
	}
	if t["event_scheduler"] == "ON" && t["events"] != "0" {
		return fmt.Errorf("its event_scheduler is ON, and its %s events would run on what is restored as soon as it starts: SET GLOBAL event_scheduler = OFF "+
			"and in my.cnf, or drop them", t["events"])
	}
	f.size = number(s["size"])
	f.sourceVersion, f.targetVersion = head.Version, t["version"]
	return f.tools(ctx, f.m, head.Version, f.data)
}

// receive brings the rest of a backup to the target's machine, ready to be started on, and gives its position.
func (f *filing) receive(ctx context.Context, in *bufio.Reader) (at position, err error) {
	if err := f.clean(ctx); err != nil {
		return nil, err
	}
	if err := f.make(ctx); err != nil {
		return nil, err
	}
	unpacking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	unpacked := make(chan struct{})
	go func() {
		defer close(unpacked)
		if err := f.unpack(unpacking, r); err != nil {
			cancel(err)
		}
		r.CloseWithError(io.ErrClosedPipe)
	}()
	at, err = passFiles(unpacking, &meter{w: w, report: f.streamed}, in)
	if err != nil {
		cancel(err)
	}
	w.CloseWithError(err)
	<-unpacked
	if err := context.Cause(unpacking); err != nil {
		return nil, err
	}
	_, err = f.ready(ctx)
	return at, err
}

// passFiles writes the files of a backup, and gives the position that comes after them.
func passFiles(ctx context.Context, w io.Writer, in *bufio.Reader) (position, error) {
	for context.Cause(ctx) == nil {
		c, err := readChunk(in)
		switch {
		case err != nil:
			return nil, torn(err)
		case c.path == fileEnd:
			text, err := c.file(in, fileEnd)
			if err != nil {
				return nil, torn(err)
			}
			if err := (&frameReader{in}).end(); err != nil {
				return nil, err
			}
			return parsePosition(text)
		case !kept(c.path) && c.path != ariaControl && c.path != ariaLog:
			return nil, fmt.Errorf("%w: it has a file %q", errNoBackup, c.path)
		}
		if err := c.to(w, in); err != nil {
			return nil, torn(err)
		}
	}
	return nil, context.Cause(ctx)
}

// ownFiles is the script that gives the copy $2 what kept has left out, of the target's own, whose server has stopped.
const ownFiles = `
	rm -f "$2"/aria_log* || return 1
	for f in "$1"/aria_log* "$1"/*_upgrade_info "$1"/sys "$1"/performance_schema; do
		[ ! -e "$f" ] || cp -a "$f" "$2"/ || return 1
	done
	for f in "$1"/mysql/*.MAI "$1"/mysql/*.MYI "$1"/mysql/*.CSM; do
		[ ! -e "$f" ] || cp -a "${f%.*}".* "$2"/mysql/ || return 1
	done`

// closeAccounts gives the statements after which the target's accounts cannot log in when it starts on the copy, and reopen undoes
// that.
func closeAccounts(c Config) []string {
	return []string{"UPDATE mysql.global_priv SET Priv = JSON_MERGE_PATCH(Priv, '" + `{"account_locked":true,"scalr_locked":true}` + "') WHERE NOT (" +
		"User IN (" + quote(c.User) + "," + quote(c.ReplicationUser) + ",'mariadb.sys') OR Host = '' OR Host = 'localhost' AND User IN ('root','mysql')) " +
		"AND JSON_VALUE(Priv, '$.is_role') IS NULL AND IFNULL(JSON_VALUE(Priv, '$.account_locked'), '0') NOT IN ('1','true')", "FLUSH PRIVILEGES"}
}

func (f *filing) reopen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shortCommand)
	defer cancel()
	for f.target.exec(ctx, "UPDATE mysql.global_priv SET Priv = JSON_MERGE_PATCH(Priv, '"+`{"account_locked":null,"scalr_locked":null}`+"') "+
		"WHERE JSON_VALUE(Priv, '$.scalr_locked') IS NOT NULL", "FLUSH PRIVILEGES") != nil && sleep(ctx, f.target.engine.config.Timeout/50) == nil {
	}
}

// forget gives the statements that take from the target what came with the copy of another set, and what it has of its own that
// belongs to what it had before.
func (f *filing) forget() []string {
	tables := []string{claimed, recorded, name("mysql", imported)}
	if f.target.engine.config.Set == "" {
		tables = append(tables, name("mysql", setName))
	}
	statements := []string{"DROP TABLE IF EXISTS " + strings.Join(tables, ", ")}
	for _, t := range [][2]string{{"proc", "db"}, {"event", "db"}, {"table_stats", "db_name"}, {"column_stats", "db_name"}, {"index_stats", "db_name"}} {
		statements = append(statements, "DELETE FROM "+name("mysql", t[0])+" WHERE "+t[1]+" NOT IN "+systemSchemas)
	}
	return statements
}

// complete makes what the files do not hold, and fails unless the copy is whole.
func (f *filing) complete(ctx context.Context, all *catalog) error {
	f.report("definitions")
	if err := f.makeAccounts(ctx); err != nil {
		return err
	}
	if err := f.target.endSessions(ctx, "", map[string]bool{}); err != nil {
		return err
	}
	for _, o := range all.objects {
		if !slices.Contains([]string{"FUNCTION", "PROCEDURE", "PACKAGE", "PACKAGE BODY", "EVENT"}, o.kind) {
			continue
		}
		if err := f.create(ctx, o, all); err != nil {
			return fmt.Errorf("creating %s: %w", o, err)
		}
	}
	if err := f.grantAccounts(ctx); err != nil {
		return err
	}
	return f.verifyFiles(ctx, all)
}

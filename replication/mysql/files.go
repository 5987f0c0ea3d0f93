package mysql

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// notByFiles says why a member is not seeded by mariadb-backup.
type notByFiles struct{ why error }

func (e *notByFiles) Error() string { return "not by mariadb-backup: " + e.why.Error() }
func (e *notByFiles) Unwrap() error { return e.why }

// tell lets everything that is reported of a copy over SQL say why it is one.
func (e *notByFiles) tell(progress func(replication.Progress)) func(replication.Progress) {
	return func(p replication.Progress) {
		p.What += " (" + e.Error() + ")"
		progress(p)
	}
}

// errTakenOver is for a seed that has been overtaken by a later one.
var errTakenOver = errors.New("another seed of it has begun")

// filing is one Seed, Backup or Restore by mariadb-backup.
type filing struct {
	copying
	machines  Machines
	m, from   replication.Member
	data      string // the target's data directory
	copy, old string // beside it: what comes, and what was
	socket    string // of the source
	tmp       string // on the source
	size      int64  // of the source's files, as an estimate
	state     position
	slavePos  position // of the copy, by its rows, once a server runs on it
}

// seedFiles copies the source's files. It fails with *notByFiles where a copy over SQL may do better.
func (s *server) seedFiles(ctx context.Context, from *server, m, source replication.Member, progress func(replication.Progress)) (position, error) {
	f := &filing{copying: copying{target: s, source: from, progress: progress}, machines: s.engine.config.Machines, m: m, from: source}
	at, err := f.run(ctx)
	if err == nil {
		return at, nil
	}
	if ctx.Err() != nil || errors.Is(err, errChanged) || errors.Is(err, errTakenOver) || errors.Is(err, replication.ErrOvertaken) {
		return nil, err
	}
	for _, server := range []*server{s, from} {
		if gone := server.exec(ctx, "DO 1"); gone != nil { // over SQL it is no better
			return nil, err
		}
	}
	if f.data != "" {
		_ = f.clean(ctx) // its server runs, on whichever it is
	}
	return nil, &notByFiles{err}
}

func (f *filing) run(ctx context.Context) (position, error) {
	if err := f.check(ctx, f.m, f.from); err != nil {
		return nil, err
	}
	if err := f.fits(ctx); err != nil {
		return nil, err
	}
	token, err := f.target.claimedWith(ctx)
	if err != nil {
		return nil, err
	}
	watched, stop := watch(ctx, f.target, f.source)
	defer stop()
	leave, err := f.openSource(watched)
	defer leave()
	if err != nil {
		return nil, fmt.Errorf("the source %s: %w", f.from.ID, err)
	}
	before, err := readCatalog(watched, f.defs, f.target.engine.config)
	if err != nil {
		return nil, fmt.Errorf("the source %s: %w", f.from.ID, err)
	}
	for _, t := range before.tables {
		if !slices.Contains(enginesInFiles, strings.ToUpper(t.engine)) {
			return nil, fmt.Errorf("the source %s: table %s is of the engine %s, whose rows are in no file that is copied", f.from.ID, t, t.engine)
		}
	}
	release, err := f.empty(watched)
	defer func() { release() }()
	if err != nil {
		return nil, err
	}
	at, err := f.fetch(watched, before)
	if err != nil {
		_ = f.clean(ctx) // or the next one does
		return nil, err
	}
	if err := f.mine(watched); err != nil {
		return nil, err
	}
	stop() // from here on the target comes and goes
	release()
	release = func() {}
	f.report("exchanging the data directory")
	if err := f.swap(ctx, f.copy, f.old, ""); err != nil {
		_ = f.clean(ctx)
		return nil, err
	}
	release, err = f.reclaim(ctx, max(token, f.m.Token), "DROP TABLE IF EXISTS "+claimed+", "+recorded)
	if err != nil {
		return nil, err
	}
	at.extend(f.slavePos)
	watched, stop = watch(ctx, f.target)
	defer stop()
	if err := f.verifyFiles(watched, before); err != nil {
		return nil, err
	}
	if err := f.to.exec(watched, "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''"); err != nil {
		return nil, err
	}
	if err := f.clean(watched); err != nil {
		return nil, err
	}
	return at, f.finish(watched, at)
}

// appliesAlone refuses a replica on which several threads apply: mariadb-backup's position lacks transactions that its files have.
func (l look) appliesAlone() error {
	if len(l.channels) > 0 && number(l.vars["workers"]) > 0 {
		return fmt.Errorf("it applies with %s threads (slave_parallel_threads), so that its files are not as of one position", l.vars["workers"])
	}
	return nil
}

// mine fails if another one has taken the target over.
func (f *filing) mine(ctx context.Context) error {
	if err := f.copying.mine(ctx); err != nil {
		return err
	}
	return f.target.mayChange(ctx, f.m.Token)
}

// enginesInFiles are the engines whose tables mariadb-backup copies whole.
var enginesInFiles = []string{"INNODB", "ARIA", "MYISAM", "CSV", "ARCHIVE", "MRG_MYISAM", "BLACKHOLE"}

const factsQuery = `SELECT @@version AS version, @@innodb_page_size AS innodb_page_size, @@lower_case_table_names AS lower_case_table_names,
	@@innodb_data_file_path AS innodb_data_file_path, @@datadir AS datadir, @@innodb_data_home_dir AS innodb_data_home_dir,
	@@innodb_log_group_home_dir AS innodb_log_group_home_dir, @@innodb_undo_directory AS innodb_undo_directory, @@socket AS socket,
	@@tmpdir AS tmpdir, @@event_scheduler AS event_scheduler, @@gtid_binlog_state AS state,
	(SELECT COUNT(*) FROM information_schema.events WHERE status = 'ENABLED') AS events,
	(SELECT SUM(file_size) FROM information_schema.innodb_sys_tablespaces) AS size`

// alike are the variables that must be the same where files are written and where they are read.
var alike = []string{"innodb_page_size", "lower_case_table_names", "innodb_data_file_path"}

// facts asks what copies of a server's files depend on.
func (s *server) facts(ctx context.Context) (row, error) {
	rows, err := s.rows(ctx, factsQuery)
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// series is what a version begins with: files are not taken from one to another.
func series(version string) string { return strings.Join(strings.SplitN(version, ".", 3)[:2], ".") }

// fits refuses, before anything is touched, what files cannot be copied between.
func (f *filing) fits(ctx context.Context) error {
	t, err := f.target.facts(ctx)
	if err != nil {
		return err
	}
	s, err := f.source.facts(ctx)
	if err != nil {
		return fmt.Errorf("the source %s: %w", f.from.ID, err)
	}
	if err := f.takes(t, s, "the source "+f.from.ID); err != nil {
		return err
	}
	if t["event_scheduler"] == "ON" && s["events"] != "0" {
		return fmt.Errorf("its event_scheduler is ON, and the %s events of the source %s would run on the copy as soon as it starts", s["events"], f.from.ID)
	}
	l, err := f.source.status(ctx)
	if err == nil {
		err = l.appliesAlone()
	}
	if err != nil {
		return fmt.Errorf("the source %s: %w", f.from.ID, err)
	}
	f.reads(s)
	if f.state, err = parsePosition(s["state"]); err != nil {
		return err
	}
	f.sourceVersion, f.targetVersion = s["version"], t["version"]
	if err := f.tools(ctx, f.from, s["version"], ""); err != nil {
		return err
	}
	return f.tools(ctx, f.m, s["version"], f.data)
}

// takes notes where the target's files are, and refuses a target that cannot start on those of a server with the facts s.
func (f *filing) takes(t, s row, source string) error {
	if series(t["version"]) != series(s["version"]) {
		return fmt.Errorf("it runs %s and %s %s", t["version"], source, s["version"])
	}
	for _, same := range alike {
		if t[same] != s[same] {
			return fmt.Errorf("its %s is %s and that of %s is %s", same, t[same], source, s[same])
		}
	}
	f.data = path.Clean(t["datadir"])
	if !path.IsAbs(f.data) || f.data == "/" {
		return fmt.Errorf("its datadir is %q", t["datadir"])
	}
	for _, dir := range []string{"innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory"} {
		if v := path.Clean(t[dir]); v != "." && v != f.data {
			return fmt.Errorf("its %s is %s, outside of its datadir", dir, v)
		}
	}
	f.copy, f.old = f.data+".scalr-"+strings.ToLower(rand.Text()[:8]), f.data+".scalr-old"
	return nil
}

// reads notes what the source's files are read by.
func (f *filing) reads(s row) {
	if f.socket = s["socket"]; !path.IsAbs(f.socket) {
		f.socket = path.Join(s["datadir"], f.socket)
	}
	f.tmp, _, _ = strings.Cut(s["tmpdir"], ":")
	f.size = number(s["size"])
}

// tools refuses a machine that lacks what is needed for files of the version, or whose data directory cannot be exchanged.
func (f *filing) tools(ctx context.Context, m replication.Member, version, data string) error {
	output, err := f.machines.script(ctx, m, haveScript, data)
	if err == nil && !strings.Contains(output, "MariaDB server "+series(version)+".") {
		err = fmt.Errorf("mariadb-backup there is none of %s: %s", series(version), lastWords(output))
	}
	if err != nil {
		return fmt.Errorf("the machine of %s: %w", m.ID, err)
	}
	return nil
}

// haveScript looks whether all is there that is needed, and that the data directory $1 can be exchanged.
const haveScript = `for p in mariadb-backup mbstream; do
	command -v $p >/dev/null || { echo "$p is not installed (Debian package mariadb-backup)"; exit 1; }
done
if [ -n "$1" ]; then
	[ "$(stat -c %d "$1")" = "$(stat -c %d "$1/..")" ] || { echo "the datadir $1 is a mount point, or not to be seen: set it to a directory of that"; exit 1; }
	[ -w "$1/.." ] && [ -w "$1" ] || { echo "the datadir $1 or the directory that it is in cannot be written to: run commands as root or as its owner"; exit 1; }
fi
mariadb-backup --version 2>&1`

// empty makes the target Empty.
func (f *filing) empty(ctx context.Context) (release func(), err error) {
	if release, err = f.claim(ctx); err != nil {
		return release, err
	}
	if err = f.to.exec(ctx, "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''"); err == nil {
		err = f.clear(ctx)
	}
	if err == nil {
		err = f.clean(ctx)
	}
	return release, err
}

// clean removes what this seed or an earlier one has left beside the data directory.
func (f *filing) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapTime)
	defer cancel()
	_, err := f.machines.on(ctx, f.m, nil, nil, "/bin/sh", "-c", `rm -rf -- "$1".scalr-*`, "scalr", f.data)
	if err != nil {
		return fmt.Errorf("removing the copies beside %s: %w", f.data, err)
	}
	return nil
}

// fetch brings the copy to the target's machine, ready to be started on, and gives its position.
func (f *filing) fetch(ctx context.Context, before *catalog) (position, error) {
	if err := f.make(ctx); err != nil {
		return nil, err
	}
	if err := f.stream(ctx, f.unpack); err != nil {
		return nil, err
	}
	// What is compared later must not have changed meanwhile.
	if err := f.unchanged(ctx, before, f.target.engine.config); err != nil {
		return nil, err
	}
	info, err := f.ready(ctx)
	if err != nil {
		return nil, err
	}
	return f.position(info)
}

// make makes the directory of the copy.
func (f *filing) make(ctx context.Context) error {
	_, err := f.machines.script(ctx, f.m, `umask 077; mkdir "$1"`, f.copy)
	return err
}

// unpack writes a stream to the copy.
func (f *filing) unpack(ctx context.Context, r io.Reader) error {
	_, err := f.machines.on(ctx, f.m, r, nil, "mbstream", "-x", "-C", f.copy)
	if err != nil {
		return fmt.Errorf("mbstream on the machine of %s: %w", f.m.ID, err)
	}
	return nil
}

// ready makes the copy one state, which a server can start on, and gives what it says of its position.
func (f *filing) ready(ctx context.Context) (info string, err error) {
	f.report("mariadb-backup --prepare")
	if _, err := f.machines.on(ctx, f.m, nil, nil, "mariadb-backup", "--no-defaults", "--prepare", "--target-dir="+f.copy); err != nil {
		return "", fmt.Errorf("mariadb-backup --prepare on the machine of %s: %w", f.m.ID, err)
	}
	if info, err = f.machines.script(ctx, f.m, settleScript, f.data, f.copy, marker); err != nil {
		return "", fmt.Errorf("the copy on the machine of %s: %w", f.m.ID, err)
	}
	return info, nil
}

// position reads what a copy says of its position: the file and the offset of the binary log where commits stood still, and the
// GTID position there. What a replica has applied may be some transactions more than mariadb-backup has read of its variables: its rows
// know (mysql.gtid_slave_pos), and are asked when a server runs on the copy.
func (f *filing) position(info string) (position, error) {
	fields := strings.Fields(info)
	if len(fields) < 2 || len(fields) > 3 {
		return nil, fmt.Errorf("the copy says %q of its position, want a file, an offset and a GTID position", lastWords(info))
	}
	list, err := parsePosition(strings.Join(fields[2:], ""))
	if err != nil {
		return nil, err
	}
	return f.state.upTo(list), nil
}

// settleScript makes the copy $2 one that can take the place of $1, and says its position. It is Empty for everybody until it
// has been verified: a directory is a schema.
const settleScript = `set -e
cd "$2"
cat mariadb_backup_binlog_info 2>/dev/null || cat xtrabackup_binlog_info
rm -f mariadb_backup_* xtrabackup_* backup-my.cnf
mkdir "$3"
chown -R --reference="$1" .
chmod --reference="$1" .
sync -f .`

// swap starts the target on the directory to, and keeps what it ran on as old, after the steps of a script in between. It is
// not broken off half-way.
func (f *filing) swap(ctx context.Context, to, old, between string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), swapTime)
	defer cancel()
	_, err := f.machines.on(ctx, f.m, nil, nil, "/bin/sh", "-c", f.machines.swapScript(between), "scalr", f.data, to, old)
	if err != nil {
		return fmt.Errorf("on the machine of %s: %w", f.m.ID, err)
	}
	return nil
}

// reclaim makes the server that has started on the copy this seed's, and takes from it what is the source's own, by the first
// statements too.
func (f *filing) reclaim(ctx context.Context, token uint64, first ...string) (release func(), err error) {
	release = func() {}
	var l look
	for deadline := time.Now().Add(shortCommand); ; {
		if l, err = f.target.status(ctx); err == nil {
			break
		}
		if time.Now().After(deadline) || errors.Is(err, replication.ErrAccess) {
			return release, fmt.Errorf("it runs on the copy, whose accounts are the source's: %w", err)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return release, err
		}
	}
	if !l.seeding {
		return release, fmt.Errorf("its server does not run on the copy: does its Start begin another one than that of %s?", f.data)
	}
	f.slavePos = l.slavePos
	if err := f.target.exec(ctx, first...); err != nil {
		return release, err
	}
	if release, err = f.claim(ctx); err != nil {
		return release, err
	}
	// Events are disabled as those of a replica are.
	if err := f.to.exec(ctx, "UPDATE mysql.event SET status = 'SLAVESIDE_DISABLED' WHERE status = 'ENABLED'"); err != nil {
		return release, err
	}
	if token > 0 {
		err = f.target.claim(ctx, token)
	}
	return release, err
}

// verifyFiles fails unless every table is whole, and the definitions are the source's.
func (f *filing) verifyFiles(ctx context.Context, before *catalog) error {
	for _, t := range before.tables {
		if t.elsewhere() {
			continue
		}
		f.report("checking " + t.String())
		rows, err := f.to.rows(ctx, "CHECK TABLE "+t.ident())
		if err != nil {
			return fmt.Errorf("table %s: %w", t, err)
		}
		for _, r := range rows {
			if kind := strings.ToLower(r["Msg_type"]); kind == "error" || kind == "status" && r["Msg_text"] != "OK" && r["Msg_text"] != "Table is already up to date" {
				return fmt.Errorf("table %s: the copy is not whole: %s", t, f.target.engine.clean(r["Msg_text"]))
			}
		}
	}
	f.report("comparing")
	return f.equalDefinitions(ctx, before)
}

package mysql

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// withPassword is the script over mariadb-backup that takes the password from its standard input: it is on no command line and
// in no file.
const withPassword = `IFS= read -r MYSQL_PWD; export MYSQL_PWD; exec "$@"`

// stream gives the source's files, as they are, to take. An error of take's ends it, and is its.
func (f *filing) stream(ctx context.Context, take func(context.Context, io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		f.limitLocks(ctx, cancel)
	}()
	defer func() { cancel(nil); <-watching }()
	r, w := io.Pipe()
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		if err := take(ctx, r); err != nil {
			cancel(err)
		}
		r.CloseWithError(io.ErrClosedPipe)
	}()
	c := f.source.engine.config
	_, err := f.machines.on(ctx, f.from, strings.NewReader(c.Password+"\n"), &meter{w: w, report: f.streamed}, "/bin/sh", "-c", withPassword, "scalr",
		"mariadb-backup", "--no-defaults", "--backup", "--stream=mbstream", "--user="+c.User, "--socket="+f.socket,
		"--target-dir="+f.tmp, "--open-files-limit=65536", "--log-copy-interval=10") // ms: commits stand still until the log has been copied
	if err != nil {
		cancel(fmt.Errorf("mariadb-backup on the machine of %s: %s", f.from.ID, f.source.engine.redact(err.Error())))
	}
	w.CloseWithError(err) // without an error it is the end
	<-taken
	return context.Cause(ctx)
}

func (f *filing) streamed(n int64) {
	f.progress(replication.Progress{Done: n, Total: max(n, f.size), Unit: "bytes", What: "mariadb-backup"})
}

// report says what is under way when all bytes have come.
func (f *filing) report(what string) {
	f.progress(replication.Progress{Done: f.size, Total: f.size, Unit: "bytes", What: what})
}

// meter counts what is written.
type meter struct {
	w      io.Writer
	n      int64
	err    error // of w
	last   time.Time
	report func(int64)
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.n += int64(n)
	m.err = err
	if now := time.Now(); now.Sub(m.last) > 100*time.Millisecond {
		m.last = now
		m.report(m.n)
	}
	return n, err
}

// How long a backup may wait for its locks. While it waits for commits to end, as they do not while they wait for a replica,
// nobody else can commit.
const (
	commitLockLimit = time.Second
	lockLimit       = 30 * time.Second
)

// limitLocks ends a backup that keeps the source from its work.
func (f *filing) limitLocks(ctx context.Context, cancel context.CancelCauseFunc) {
	query := fmt.Sprintf("SELECT id AS id, info AS info FROM information_schema.processlist WHERE user = %s AND state LIKE 'Waiting for backup lock%%' AND "+
		"info LIKE 'BACKUP STAGE %%' AND time_ms > IF(info LIKE '%%BLOCK_COMMIT', %d, %d)",
		quote(f.source.engine.config.User), commitLockLimit.Milliseconds(), lockLimit.Milliseconds())
	for sleep(ctx, 100*time.Millisecond) == nil {
		rows, err := f.source.rows(ctx, query)
		if err != nil {
			continue // watch looks whether it answers
		}
		for _, r := range rows {
			_ = f.source.exec(ctx, "KILL CONNECTION "+r["id"]) // or it has gone on
			cancel(fmt.Errorf("mariadb-backup on the machine of %s has waited too long for other sessions (%s)", f.from.ID, r["info"]))
		}
	}
}

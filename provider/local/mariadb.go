package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// MariaDB is the recipe of an image that runs a MariaDB server (10.4 or later) at the machine's address.
//
// The data is in the directory "mysql" of the machine's first volume or, without volumes, of its own directory. A data
// directory that is there already is used as it is, so that a volume or a snapshot of one carries a database from one
// instance to the next. The server runs as the user that the program runs as, root included.
//
// The server can be stopped and started again while its machine runs, by the commands of [MariaDB.Service], as a service of a
// machine in a cloud can.
//
// There are two accounts in the beginning: User, with every privilege, and root, which only a process of the same system
// user reaches, over the socket mysql.sock in the machine's directory. No account lacks a password.
type MariaDB struct {
	// User and Password are the administrator's account, for any host. It is created at each start unless it is there.
	// Neither appears on a command line. Required.
	User, Password string
	// Port is the TCP port; the default is 3306.
	Port int
	// Config gives further lines of my.cnf for a machine, which begin in section [mysqld] and win over those of the
	// recipe: small buffers, and a server_id that is the machine's address without its first byte. Optional.
	Config func(Machine) string
	// SQL are statements to run at each start, with every privilege and without leaving a trace in the binary log: to
	// create an application's account, say. Each one must be fit to run again.
	SQL []string
	// Template is a directory to keep an initialised data directory in, from which new ones are copied, since initialising
	// takes a second. It holds no secrets, and several programs may share it. The default is "scalr" in
	// os.UserCacheDir.
	Template string
}

// Image gives the image, or an error that says what is missing.
func (r MariaDB) Image() (Image, error) {
	if r.Port == 0 {
		r.Port = 3306
	}
	if r.User == "" || r.Password == "" {
		return Image{}, errors.New("local: MariaDB.User or Password is empty, want an account for the administrator")
	}
	for _, s := range append([]string{r.User, r.Password}, r.SQL...) {
		if strings.ContainsAny(s, "\x00\r\n") {
			return Image{}, errors.New("local: a line break or a NUL byte is in MariaDB.User, Password or SQL")
		}
	}
	if r.Template == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return Image{}, fmt.Errorf("local: MariaDB.Template is empty, and there is no default for it: %w", err)
		}
		r.Template = filepath.Join(cache, "scalr")
	}
	server, err := FindProgram("mariadbd", "mariadb-server")
	if err != nil {
		return Image{}, fmt.Errorf("local: %w", err)
	}
	install, err := FindProgram("mariadb-install-db", "mariadb-server")
	if err != nil {
		return Image{}, fmt.Errorf("local: %w", err)
	}
	r.SQL = append([]string(nil), r.SQL...)
	return Image{
		Port:     r.Port,
		Prepare:  func(ctx context.Context, m Machine) error { return r.prepare(ctx, m, server, install) },
		Starting: func(_ context.Context, m Machine) error { return askBinlog(dataDir(m)) },
		Command: func(m Machine) Command {
			return Command{Args: []string{"/bin/sh", "-c", attendant, "scalr", filepath.Join(m.Dir, serviceState),
				server, "--defaults-file=" + filepath.Join(m.Dir, "my.cnf")}}
		},
	}, nil
}

// dataDir is where the server of a machine has its data.
func dataDir(m Machine) string {
	home := m.Dir
	if len(m.Volumes) > 0 {
		home = m.Volumes[0]
	}
	return filepath.Join(home, "mysql")
}

func (r MariaDB) prepare(ctx context.Context, m Machine, server, install string) error {
	data := dataDir(m)
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		template, err := r.template(ctx, server, install)
		if err != nil {
			return err
		}
		if err := copyWhole(ctx, template, data); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(m.Dir, "tmp"), 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(m.Dir, "init.sql"), []byte(r.initSQL())); err != nil {
		return err
	}
	return writeFile(filepath.Join(m.Dir, "my.cnf"), []byte(r.config(m, data)))
}

// Service gives the commands that stop the server of a machine and start it again, for RunCommand. Each returns when it has
// done so; a server that has not ended in about a minute is killed, and starting fails if it ends instead. A machine that is itself started begins with its server, and one whose
// server ends without having been stopped is Failed.
func (MariaDB) Service() (stop, start []string) {
	return []string{"/bin/sh", "-c", serviceStop}, []string{"/bin/sh", "-c", serviceStart}
}

// serviceState is the file, in the machine's directory, by which Service and the attendant speak to each other: "stop" and
// "start" are asked for, "down" is what has come of it. Without the file, the machine ends with its server.
const serviceState = "service.state"

// attendant is the script over the server.
const attendant = `state=$1; shift
rm -f "$state"
while :; do
	"$@"; status=$?
	[ -e "$state" ] || exit $status
	echo down >"$state.tmp" && mv -f "$state.tmp" "$state"
	while [ "$(cat "$state" 2>/dev/null)" = down ]; do sleep 0.02; done
done`

const serviceStop = `cd "$SCALR_DIR" || exit
is() { [ "$(cat service.state 2>/dev/null)" = "$1" ]; }
is down && exit
pid=$(cat mysql.pid) && echo stop >service.tmp && mv -f service.tmp service.state && kill "$pid" || { rm -f service.state; exit 1; }
n=0
until is down; do
	# A MariaDB 10.11 that is told to end while it starts may do neither.
	[ $((n += 1)) = 2000 ] && kill -9 "$pid"
	sleep 0.02
done
rm -f mysql.pid`

const serviceStart = `cd "$SCALR_DIR" || exit
[ -e service.state ] || exit 0
echo start >service.tmp && mv -f service.tmp service.state || exit
until [ -s mysql.pid ]; do
	[ "$(cat service.state)" = down ] && exit 1
	sleep 0.02
done
rm -f service.state`

// askBinlog marks a binary log that was closed as one that was not, so that the server asks it what became of transactions that are
// prepared in InnoDB. A MariaDB 10.11 that is shut down while it replicates may leave one that the log has; it then finds the log
// closed, does not look there, and does not start. The mark is what a running server sets, and no checksum has it.
func askBinlog(data string) error {
	files, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, file := range files {
		base, ok := strings.CutSuffix(file.Name(), ".state") // a log that was closed has one
		if !ok {
			continue
		}
		index, err := os.ReadFile(filepath.Join(data, base+".index"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		names := strings.Split(strings.TrimSpace(string(index)), "\n")
		if err := markInUse(filepath.Join(data, filepath.Base(names[len(names)-1]))); err != nil {
			return err
		}
	}
	return nil
}

// markInUse sets LOG_EVENT_BINLOG_IN_USE_F in the first event of a binary log, if that describes the format.
func markInUse(path string) (err error) {
	const kind, flags, describes, inUse = 4 + 4, 4 + 17, 15, 1
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the server says what is missing
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, flags+1)
	if _, err := f.ReadAt(head, 0); errors.Is(err, io.EOF) || err == nil && (string(head[:4]) != "\xfebin" || head[kind] != describes) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{head[flags] | inUse}, flags)
	return err
}

// copyWhole copies a directory so that to exists only once it is complete.
func copyWhole(ctx context.Context, from, to string) error {
	part := to + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := copyTree(ctx, from, part); err != nil {
		return err
	}
	if err := syncTree(ctx, part); err != nil {
		return err
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// template makes the data directory that others are copied from, unless it is there.
func (r MariaDB) template(ctx context.Context, server, install string) (string, error) {
	st, err := os.Stat(server)
	if err != nil {
		return "", err
	}
	args := []string{
		"--no-defaults", "--skip-test-db", "--auth-root-authentication-method=socket", "--auth-root-socket-user=root",
		"--innodb-log-file-size=8M",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--user=root")
	}
	// Another version of the server, or other arguments, get another one.
	key := hash(fmt.Sprint(server, st.Size(), st.ModTime().UnixNano(), args))
	path := filepath.Join(r.Template, fmt.Sprintf("mariadb-%016x", key))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(r.Template, 0o700); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// A name of its own each time: what a program that died here has started may still be writing to the last one.
	if old, err := filepath.Glob(path + ".part-*"); err == nil {
		for _, o := range old {
			os.RemoveAll(o)
		}
	}
	part, err := os.MkdirTemp(r.Template, filepath.Base(path)+".part-*")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, install, append(args, "--datadir="+part)...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = r.Template, &out, &out, time.Second
	if err := cmd.Run(); err != nil {
		os.RemoveAll(part)
		return "", fmt.Errorf("mariadb-install-db: %w: %s", err, lastWords(out.String()))
	}
	if err := syncTree(ctx, part); err != nil {
		return "", err
	}
	return path, os.Rename(part, path)
}

// lastWords is the end of a program's output, on one line.
func lastWords(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[max(0, len(s)-300):], "")
}

// initSQL is what the server runs at each start.
func (r MariaDB) initSQL() string {
	account := quote(r.User) + "@'%'"
	lines := append([]string{
		"SET SESSION sql_log_bin = 0",
		"CREATE USER IF NOT EXISTS " + account + " IDENTIFIED BY " + quote(r.Password),
		"GRANT ALL PRIVILEGES ON *.* TO " + account + " WITH GRANT OPTION",
	}, r.SQL...)
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(l, "; ") + ";\n")
	}
	return b.String()
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// config is the machine's my.cnf.
func (r MariaDB) config(m Machine, data string) string {
	var b strings.Builder
	set := func(name string, value any) { fmt.Fprintf(&b, "%s = %v\n", name, value) }
	b.WriteString("[mysqld]\n")
	if os.Geteuid() == 0 {
		set("user", "root") // it refuses to run as root unless told so
	}
	set("datadir", data)
	set("bind_address", m.Addr)
	set("port", r.Port)
	set("socket", filepath.Join(m.Dir, "mysql.sock"))
	set("pid_file", filepath.Join(m.Dir, "mysql.pid"))
	set("tmpdir", filepath.Join(m.Dir, "tmp"))
	set("secure_file_priv", filepath.Join(m.Dir, "tmp"))
	set("init_file", filepath.Join(m.Dir, "init.sql"))
	set("skip_name_resolve", "ON")
	set("server_id", binary.BigEndian.Uint32(m.Addr.AsSlice())&0xffffff)
	set("report_host", m.Addr)
	set("report_port", r.Port)
	set("innodb_buffer_pool_size", "16M")
	set("innodb_log_file_size", "8M")
	set("key_buffer_size", "1M")
	set("performance_schema", "OFF")
	if r.Config != nil {
		b.WriteString(r.Config(m) + "\n")
	}
	return b.String()
}

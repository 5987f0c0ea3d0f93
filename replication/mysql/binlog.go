package mysql

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// program is what reads binary logs, over the replication protocol: the rows in them cannot be had over SQL.
const program = "mariadb-binlog"

// dumpBinlog runs the program on the server's binary logs from the one of this name on, or from the first. What it prints goes
// to w.
func (s *server) dumpBinlog(ctx context.Context, from string, w io.Writer, more ...string) error {
	if from == "" {
		logs, err := s.rows(ctx, "SHOW BINARY LOGS")
		if err != nil {
			return err
		}
		if len(logs) == 0 {
			return fmt.Errorf("the server has no binary logs")
		}
		from = logs[0]["Log_name"]
	}
	addr, stop, err := s.engine.forward(ctx, s.addr)
	if err != nil {
		return err
	}
	defer stop()
	host, port, _ := net.SplitHostPort(addr)
	c := s.engine.config
	args := append([]string{"--read-from-remote-server", "--protocol=tcp", "--host=" + host, "--port=" + port, "--user=" + c.User,
		"--to-last-log"}, more...)
	if c.TLS != nil {
		args = append(args, "--ssl", "--skip-ssl-verify-server-cert")
	}
	return s.engine.runBinlog(ctx, w, append(args, from)...)
}

// runBinlog runs the program.
func (e *Engine) runBinlog(ctx context.Context, w io.Writer, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("%s is not in PATH of this program: install MariaDB's client, 10.8 or later: %w", program, err)
	}
	var words bytes.Buffer
	cmd := exec.CommandContext(ctx, path, append([]string{"--no-defaults"}, args...)...)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+e.config.Password)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = w, &words, time.Second
	if err := cmd.Run(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		text := e.clean(strings.Join(strings.Fields(words.String()), " "))
		return fmt.Errorf("%s: %w: %s", program, err, strings.ToValidUTF8(text[max(0, len(text)-300):], ""))
	}
	return nil
}

// after is the option that leaves out what a position has.
func after(p position) []string {
	if len(p) == 0 {
		return nil
	}
	return []string{"--start-position=" + p.plain()}
}

// forward lets a program reach the address as the engine does: by itself, or over a port of this machine's loopback
// interface where the config has a DialContext. Stop ends that.
func (e *Engine) forward(ctx context.Context, addr string) (at string, stop func(), err error) {
	if e.config.DialContext == nil {
		return addr, func() {}, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		here, err := listener.Accept()
		if err != nil {
			return
		}
		defer here.Close()
		there, err := e.dial(ctx, "tcp", addr)
		if err != nil {
			return
		}
		defer there.Close()
		end := context.AfterFunc(ctx, func() { here.Close(); there.Close() })
		defer end()
		tasks.Go(func() { io.Copy(there, here); there.Close() }) // an end of either is an end of both
		io.Copy(here, there)
	})
	return listener.Addr().String(), func() { listener.Close(); cancel(); tasks.Wait() }, nil
}

// The comments that the program writes at the beginning of each log and of each transaction.
var (
	logLine         = regexp.MustCompile(`^#.*\tRotate to (\S+)  pos: `)
	transactionLine = regexp.MustCompile(`^#.*\tGTID (\d+-\d+-\d+)( ddl)?`)
)

// transactions notes which transactions a text of the program holds, and passes the text on.
type transactions struct {
	to   io.Writer
	log  string   // the binary log that is being read
	from string   // the one of the first transaction
	line []byte   // the beginning of the line that is not complete yet
	last position // of each domain and server
	ddl  gtid     // one that changes more than rows
}

func (t *transactions) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, complete := bytes.Cut(rest, []byte("\n"))
		if room := 300 - len(t.line); room > 0 {
			t.line = append(t.line, line[:min(len(line), room)]...)
		}
		if rest = after; !complete {
			break
		}
		if m := transactionLine.FindSubmatch(t.line); m != nil {
			if g, err := parseGTID(string(m[1])); err == nil {
				t.last.add(g)
				if m[2] != nil {
					t.ddl = g
				}
				t.from = cmp.Or(t.from, t.log)
			}
		} else if m := logLine.FindSubmatch(t.line); m != nil {
			t.log = string(m[1])
		}
		t.line = t.line[:0]
	}
	return t.to.Write(p)
}

package local

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

const (
	adminSocket = "haproxy.sock" // in the balancer's directory
	adminLimit  = 97             // of bytes in the path of a socket that HAProxy listens on
	adminWait   = 5 * time.Second
	pathLimit   = 1024 // of bytes in BalancerSpec.HealthPath: a line of HAProxy's configuration has at most 2048
)

// findHAProxy finds the program that balancers run.
func (c *Cloud) findHAProxy() (string, error) {
	program, err := FindProgram(c.haproxy, "haproxy")
	if err != nil {
		return "", fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return program, nil
}

// haproxyImage is what a balancer's machine runs.
func (c *Cloud) haproxyImage(b balancer) (Image, error) {
	program, err := c.findHAProxy()
	if err != nil {
		return Image{}, err
	}
	return Image{
		Prepare: func(_ context.Context, m Machine) error {
			return writeFile(filepath.Join(m.Dir, "haproxy.cfg"), []byte(b.config(m)))
		},
		Command: func(Machine) Command { return Command{Args: []string{program, "-db", "-f", "haproxy.cfg"}} },
	}, nil
}

// config is HAProxy's configuration. It has no servers: HAProxy is told of them while it runs.
//
// There is one thread, so that what HAProxy was told holds for every connection as soon as it has answered. In mode http,
// each request gets a connection of its own to its server. So none is sent on a connection that the server is about to
// close, which would lose it, and a server that is being drained has as many connections as requests.
func (b balancer) config(m Machine) string {
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	line("global")
	line("\tstats socket %s mode 600 level admin", word(filepath.Join(m.Dir, adminSocket)))
	line("\tmaxconn %d", maxConnections())
	line("\tnbthread 1")
	line("defaults")
	line("\tmode %s", b.Spec.Protocol)
	line("\ttimeout connect 2s")
	line("\ttimeout check 2s")
	line("\ttimeout queue 10s")
	line("\ttimeout tunnel 1h")
	line("\tretries 3")
	line("\toption redispatch 1")
	if b.Spec.Protocol == "http" {
		line("\ttimeout client 5m")
		line("\ttimeout server 5m")
		line("\ttimeout http-request 1m")
		line("\ttimeout http-keep-alive 1m")
		line("\toption http-server-close")
		line("\toption forwardfor")
		line("\tbalance roundrobin")
	} else {
		line("\ttimeout client 1h")
		line("\ttimeout server 1h")
		line("\tbalance leastconn")
	}
	line("frontend clients")
	line("\tbind %s:%d", m.Addr, b.Spec.Port)
	line("\tdefault_backend %s", backend)
	line("backend %s", backend)
	if b.Spec.HealthPath != "" {
		line("\toption httpchk")
		line("\thttp-check send meth GET uri %s ver HTTP/1.1 hdr Host %s hdr Connection close", word(b.Spec.HealthPath), m.Addr)
		line("\thttp-check expect status 200-399")
	}
	return s.String()
}

// word makes a word of HAProxy's configuration, in which nothing is special but the quote.
func word(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// maxConnections is how many connections from clients a balancer takes: each wants two files, and the health checks want
// some.
func maxConnections() int { return max(50, (min(maxFiles(), 40_000)-200)/2) }

// alerts is what HAProxy says of why it does not start.
func alerts(path string) string {
	data, _ := os.ReadFile(path)
	var said []string
	for line := range strings.Lines(string(data)) {
		if _, text, ok := strings.Cut(line, "[ALERT]"); ok {
			_, text, _ = strings.Cut(text, ") : ")
			said = append(said, strings.TrimSpace(text))
		}
	}
	if len(said) > 3 {
		said = said[len(said)-3:]
	}
	return strings.ToValidUTF8(strings.Join(said, "; "), "")
}

// admin is HAProxy's Unix socket, over which it is told what to do and says how it is (HAProxy Management Guide, 9.3).
type admin struct{ path string }

func (c *Cloud) admin(id string) admin { return admin{filepath.Join(c.Dir(id), adminSocket)} }

// ask sends one command and gives the answer.
func (a admin) ask(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, adminWait)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", a.path)
	if err != nil {
		return "", fmt.Errorf("HAProxy: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	var answer []byte
	if _, err = io.WriteString(conn, command+"\n"); err == nil {
		answer, err = io.ReadAll(io.LimitReader(conn, 16<<20))
	}
	if err != nil {
		return "", fmt.Errorf("HAProxy, asked to %s: %w", command, errors.Join(ctx.Err(), err))
	}
	return strings.TrimSpace(string(answer)), nil
}

// tell sends a command that is to have an effect. HAProxy answers "del server" and "add server" with what it has done, the
// others with nothing, and with a sentence if it has done nothing.
func (a admin) tell(ctx context.Context, command string) error {
	answer, err := a.ask(ctx, command)
	if err != nil {
		return err
	}
	if answer != "" && answer != "Server deleted." && answer != "New server registered." {
		return fmt.Errorf("HAProxy, asked to %s: %s", command, answer)
	}
	return nil
}

// checkVersion checks that HAProxy can be told of servers with health checks while it runs.
func (a admin) checkVersion(ctx context.Context) error {
	info, err := a.ask(ctx, "show info")
	if err != nil {
		return err
	}
	return checkVersion(info)
}

var versionLine = regexp.MustCompile(`(?m)^Version: (\d+)\.(\d+)`)

func checkVersion(info string) error {
	m := versionLine.FindStringSubmatch(info)
	if m == nil {
		return errors.New("HAProxy does not say of which version it is")
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < 2 || major == 2 && minor < 6 {
		return fmt.Errorf("HAProxy is of version %d.%d, want at least 2.6: %w", major, minor, errors.ErrUnsupported)
	}
	return nil
}

// server is a target as HAProxy has it. It has the name of its instance.
type server struct {
	maintained bool // gets no connections and no checks: it is being added, or removed
	draining   bool // gets no new connections
	up         bool
	checked    bool // a health check has ended since it was added
	sessions   int  // open connections
	reason     string
}

// taken is how many requests the frontend has taken, or connections in mode tcp.
func (a admin) taken(ctx context.Context, protocol string) (uint64, error) {
	stats, err := a.ask(ctx, "show stat clients 1 -1") // 1: frontends
	if err != nil {
		return 0, err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(stats, "# "))).ReadAll()
	if err != nil || len(rows) != 2 {
		return 0, fmt.Errorf("HAProxy's statistics have %d lines for its frontend, want 2: %v", len(rows), err)
	}
	name := "stot"
	if protocol == "http" {
		name = "req_tot"
	}
	i, ok := columns(rows[0])[name]
	if !ok {
		return 0, fmt.Errorf("HAProxy's statistics have no %s", name)
	}
	return strconv.ParseUint(rows[1][i], 10, 64)
}

// servers gives all servers, by name.
func (a admin) servers(ctx context.Context) (map[string]server, error) {
	states, err := a.ask(ctx, "show servers state "+backend)
	if err != nil {
		return nil, err
	}
	stats, err := a.ask(ctx, "show stat "+backend+" 4 -1") // 4: servers
	if err != nil {
		return nil, err
	}
	return parseServers(states, stats)
}

// parseServers joins two tables: the first has what a server was told to be, the other one how it is.
func parseServers(states, stats string) (map[string]server, error) {
	all := map[string]server{}
	version, states, _ := strings.Cut(states, "\n")
	if version != "1" {
		return nil, fmt.Errorf("HAProxy shows the states of servers in version %q, want 1", version)
	}
	var column map[string]int
	for line := range strings.Lines(states) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == "#":
			column = columns(f[1:])
		case len(f) < len(column) || len(column) == 0:
			return nil, fmt.Errorf("HAProxy shows the state of a server as %q", line)
		default:
			flags, err := strconv.Atoi(f[column["srv_admin_state"]])
			if err != nil {
				return nil, fmt.Errorf("HAProxy shows the state of a server as %q", line)
			}
			const forcedMaintenance, forcedDrain = 0x01, 0x08
			all[f[column["srv_name"]]] = server{maintained: flags&forcedMaintenance != 0, draining: flags&forcedDrain != 0}
		}
	}
	rows := csv.NewReader(bytes.NewReader([]byte(strings.TrimPrefix(stats, "# "))))
	rows.FieldsPerRecord = -1
	head, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("HAProxy's statistics: %w", err)
	}
	column = columns(head)
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("HAProxy's statistics: %w", err)
		}
		of := func(name string) string {
			if i, ok := column[name]; ok && i < len(row) {
				return row[i]
			}
			return ""
		}
		s, ok := all[of("svname")]
		if !ok {
			continue // added or removed between the two questions
		}
		if s.sessions, err = strconv.Atoi(of("scur")); err != nil {
			return nil, fmt.Errorf("HAProxy's statistics: server %s has %q connections", of("svname"), of("scur"))
		}
		check := strings.TrimPrefix(of("check_status"), "* ") // the asterisk: another one is under way
		s.checked = check != "" && check != "INI"
		s.up = strings.HasPrefix(of("status"), "UP")
		if s.checked && !s.up {
			s.reason = of("check_desc")
			if code := of("check_code"); code != "" && code != "0" {
				s.reason += ", code " + code
			}
			if text := of("last_chk"); text != "" {
				s.reason += ": " + text
			}
		}
		all[of("svname")] = s
	}
}

func columns(head []string) map[string]int {
	column := map[string]int{}
	for i, name := range head {
		column[name] = i
	}
	return column
}

// checkBalancer reports what can be known to be wrong before anything is touched.
func (c *Cloud) checkBalancer(s provider.BalancerSpec) error {
	if err := s.Check(); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return provider.Errorf("CreateBalancer", s.Token, provider.ErrInvalid, format, args...)
	}
	if len(s.Networks) > 0 {
		return bad("Networks is %q, want none: this provider has no networks", s.Networks)
	}
	if len(s.HealthPath) > pathLimit {
		return bad("HealthPath has %d bytes, want at most %d", len(s.HealthPath), pathLimit)
	}
	for _, b := range []byte(s.HealthPath) {
		if b <= ' ' || b >= 0x7f {
			return bad("HealthPath has the byte %#x, want printable ASCII without spaces: escape it as %%%02X", b, b)
		}
	}
	if path := filepath.Join(c.Dir(newID(kindBalancer)), adminSocket); len(path) > adminLimit {
		return bad("Options.Dir has a path of %d bytes, want at most %d for HAProxy's socket", len(c.opts.Dir), adminLimit-len(path)+len(c.opts.Dir))
	}
	return nil
}

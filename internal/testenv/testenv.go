// Package testenv runs real servers for tests, through provider/local: in a temporary directory of the test's own, on
// loopback addresses of their own, and ended with the test, with nothing left.
//
// A test whose server is not installed is skipped with the reason. Where the variable CI is "true", it fails instead.
package testenv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// patience bounds every wait for a server.
const patience = 60 * time.Second

// packages are the Debian packages of programs.
var packages = map[string]string{
	"mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server", "mariadb-backup": "mariadb-backup", "mbstream": "mariadb-backup",
	"mariadb": "mariadb-client", "mariadb-dump": "mariadb-client", "mariadb-binlog": "mariadb-client",
	"memcached": "memcached", "named": "bind9", "nsupdate": "bind9-dnsutils", "dig": "bind9-dnsutils", "knotd": "knot",
	"nsd": "nsd", "haproxy": "haproxy", "ip": "iproute2", "sshd": "openssh-server",
}

// Need gives the paths of the programs, in their order. If one is not installed, the test is skipped, or fails where CI is
// "true".
func Need(t testing.TB, programs ...string) []string {
	t.Helper()
	var paths []string
	for _, name := range programs {
		pkg := packages[name]
		if pkg == "" {
			pkg = name
		}
		path, err := local.FindProgram(name, pkg)
		if err != nil {
			Missing(t, err.Error())
		}
		paths = append(paths, path)
	}
	return paths
}

// Missing skips the test for a reason, or fails it where CI is "true".
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI is true, and %s", reason)
	}
	t.Skip(reason)
}

// Dir is a temporary directory with a path short enough for Unix sockets, removed at the end of the test.
func Dir(t testing.TB) string {
	t.Helper()
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(temp, "scalr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("left over: %v", err)
		}
	})
	return dir
}

// Cloud is a local cloud in a directory of its own. At the end of the test, its balancers and instances are ended, and nothing
// may be left. If the test program dies before, by a panic, a time-out or a signal, they are killed all the same.
func Cloud(t testing.TB, images map[string]local.Image) *local.Cloud {
	t.Helper()
	dir := Dir(t)
	c, err := local.New(local.Options{Dir: dir, Images: images})
	if errors.Is(err, errors.ErrUnsupported) {
		Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	guard(t, dir)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		balancers, err := c.Balancers(ctx, nil)
		if err != nil {
			t.Errorf("left over: %v", err)
		}
		for _, b := range balancers {
			if err := c.DeleteBalancer(ctx, b.ID); err != nil {
				t.Errorf("left over: %v", err)
			}
			for _, p := range Processes(b.ID) {
				t.Errorf("left over: process %s of %s", p, b.ID)
			}
		}
		instances, err := c.Instances(ctx, nil)
		if err != nil {
			t.Errorf("left over: %v", err)
		}
		for _, i := range instances {
			if err := c.Terminate(ctx, i.ID); err != nil {
				t.Errorf("left over: %v", err)
			}
		}
		for _, i := range instances {
			for _, p := range Processes(i.ID) {
				t.Errorf("left over: process %s of %s", p, i.ID)
			}
		}
	})
	return c
}

// guardScript waits until the pipe to the test program breaks, and then kills every process that has a directory below
// the given one in its environment, and removes that.
const guardScript = `read -r end
for n in 1 2 3; do
	for f in $(grep -lszF "SCALR_DIR=$0/" /proc/[0-9]*/environ); do
		f=${f#/proc/}
		kill -9 "${f%/environ}" 2>/dev/null
	done
	sleep 0.1
	test -e "$0" || exit 0
done
rm -rf "$0"`

// guard ends what is in the directory when the test program dies.
func guard(t testing.TB, dir string) {
	t.Helper()
	stdin, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", guardScript, dir)
	cmd.Dir, cmd.Env, cmd.Stdin = "/", []string{"PATH=" + os.Getenv("PATH")}, stdin
	ownSession(cmd)
	err = cmd.Start()
	stdin.Close()
	if err != nil {
		pipe.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() { // then nothing is left, and there is nothing to wait for
			cmd.Process.Kill()
		}
		pipe.Close()
		cmd.Wait()
	})
}

// Processes finds the living processes that have the instance's ID in their environment, each as "pid (name)". It does not
// rely on what the provider believes.
func Processes(instance string) []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, d := range dirs {
		env, _ := os.ReadFile(d + "/environ")
		if strings.Contains(string(env), "SCALR_INSTANCE="+instance+"\x00") {
			name, _ := os.ReadFile(d + "/comm")
			found = append(found, fmt.Sprintf("%s (%s)", filepath.Base(d), strings.TrimSpace(string(name))))
		}
	}
	return found
}

// Server is a server that runs on an instance of a local cloud.
type Server struct {
	Cloud  *local.Cloud
	ID     string // of the instance
	Volume string // of the volume that has its data; empty if it has none
	Dir    string // of the instance
	Host   string
	Port   int
	Addr   string // Host:Port

	User, Password string // of its administrator, for databases
}

// Kill ends the server's processes with SIGKILL, as a crash does. The machine is Failed then, and refuses connections, until Start.
func (s *Server) Kill(ctx context.Context) error {
	if err := s.Cloud.Signal(ctx, s.ID, syscall.SIGKILL); err != nil {
		return err
	}
	if err := s.wait(ctx, provider.Failed); err != nil {
		return err
	}
	// A process that gives much memory back has its connections for a while longer.
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr)
		if err != nil {
			return context.Cause(ctx)
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
}

// Hang stops the server's processes with SIGSTOP: it takes connections and answers nothing. Resume ends that.
func (s *Server) Hang(ctx context.Context) error { return s.Cloud.Signal(ctx, s.ID, sigStop) }

// Resume lets a server go on that hangs.
func (s *Server) Resume(ctx context.Context) error {
	return s.Cloud.Signal(ctx, s.ID, sigCont)
}

// Stop switches the machine off at once. It is what a replication.Member has as its Fence.
func (s *Server) Stop(ctx context.Context) error { return s.Cloud.Stop(ctx, s.ID) }

// Start switches the machine on again after Stop or Kill, and returns when the server's port accepts connections.
func (s *Server) Start(ctx context.Context) error {
	if err := s.Cloud.Start(ctx, s.ID); err != nil {
		return err
	}
	return s.wait(ctx, provider.Running)
}

// Output is what the server has written to its standard output and error.
func (s *Server) Output() string {
	data, _ := os.ReadFile(filepath.Join(s.Dir, "output.log"))
	return string(data)
}

// wait waits until the machine has the state.
func (s *Server) wait(ctx context.Context, want provider.State) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		all, err := s.Cloud.Instances(ctx, nil)
		if err != nil {
			return err
		}
		for _, i := range all {
			if i.ID != s.ID {
				continue
			}
			if i.State == want {
				return nil
			}
			if i.State == provider.Failed || i.State.Gone() {
				return fmt.Errorf("%s is %s (%s), want it %s", i.ID, i.State, i.Reason, want)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to be %s: %w", s.ID, want, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// launch starts n servers of the cloud's image "server" and waits for them.
func launch(t testing.TB, c *local.Cloud, n, port int, disk bool) []*Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var servers []*Server
	for i := range n {
		name := "server-" + strconv.Itoa(i+1)
		s := &Server{Cloud: c, Port: port}
		l := provider.Launch{Token: name, Name: name, Image: "server"}
		if disk {
			v, err := c.CreateVolume(ctx, provider.VolumeSpec{Token: name, Name: name, SizeGB: 1})
			if err != nil {
				t.Fatal(err)
			}
			s.Volume, l.Volumes = v.ID, []string{v.ID}
		}
		inst, err := c.Launch(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		s.ID, s.Host, s.Dir = inst.ID, inst.Private.String(), c.Dir(inst.ID)
		s.Addr = net.JoinHostPort(s.Host, strconv.Itoa(port))
		servers = append(servers, s)
	}
	for _, s := range servers {
		if err := s.wait(ctx, provider.Running); err != nil {
			t.Fatalf("%v\n%s", err, s.Output())
		}
	}
	return servers
}

// BinaryLog is the lines of my.cnf of a server that can be a primary or a replica, with global transaction IDs.
const BinaryLog = `log_bin = binlog
relay_log = relay
log_slave_updates = ON
binlog_format = ROW
gtid_strict_mode = ON
slave_net_timeout = 4
`

// MariaDB runs n empty MariaDB servers with [BinaryLog], each with a server_id of its own and its data on a volume. Each is
// writable and follows none.
func MariaDB(t testing.TB, n int) []*Server {
	t.Helper()
	return MariaDBWith(t, n, local.MariaDB{Config: func(local.Machine) string { return BinaryLog }})
}

// MariaDBWith runs n servers by the recipe. A User or Password that is not set is made up. The image is called "server" in
// the servers' cloud.
func MariaDBWith(t testing.TB, n int, r local.MariaDB) []*Server {
	t.Helper()
	Need(t, "mariadbd", "mariadb-install-db")
	if r.User == "" {
		r.User = "admin"
	}
	if r.Password == "" {
		r.Password = rand.Text()
	}
	if r.Port == 0 {
		r.Port = 3306
	}
	image, err := r.Image()
	if err != nil {
		t.Fatal(err)
	}
	servers := launch(t, Cloud(t, map[string]local.Image{"server": image}), n, r.Port, true)
	for _, s := range servers {
		s.User, s.Password = r.User, r.Password
	}
	return servers
}

// Memcached runs n memcached servers.
func Memcached(t testing.TB, n int) []*Server {
	t.Helper()
	Need(t, "memcached")
	image, err := local.Memcached{}.Image()
	if err != nil {
		t.Fatal(err)
	}
	return launch(t, Cloud(t, map[string]local.Image{"server": image}), n, 11211, false)
}

package testenv

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalr-go/scalr/provider/local"
)

// zooJars are what a ZooKeeper server needs, from Debian's libzookeeper-java and what that depends on.
var zooJars = []string{
	"zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple", "netty-common", "netty-buffer", "netty-handler", "netty-transport",
	"netty-resolver", "netty-codec", "netty-transport-native-epoll", "netty-transport-native-unix-common", "metrics-core", "snappy-java",
}

const zooDir = "/usr/share/java"

// Ensemble is a ZooKeeper ensemble. Its servers speak to each other through relays of the test program, so that one of them can
// be cut off from the others while its clients still reach it.
type Ensemble struct {
	Servers []*Server
	relays  []*relay
}

// NeedZooKeeper gives the path of java, and the class path of the server. If something is not installed, the test is skipped, or fails where
// CI is "true".
func NeedZooKeeper(t testing.TB) (java string, jars []string) {
	t.Helper()
	java, err := local.FindProgram("java", "default-jre-headless")
	if err != nil {
		Missing(t, err.Error())
	}
	for _, name := range zooJars {
		jar := filepath.Join(zooDir, name+".jar")
		if _, err := os.Stat(jar); err != nil {
			Missing(t, jar+" is not installed (Debian package libzookeeper-java)")
		}
		jars = append(jars, jar)
	}
	return java, jars
}

// ZooKeeper runs an ensemble of n servers with a tick of 250 ms, so that sessions may be as short as half a second.
// Further lines are added to the configuration of each.
func ZooKeeper(t testing.TB, n int, lines ...string) *Ensemble {
	t.Helper()
	java, path := NeedZooKeeper(t)
	e := &Ensemble{}
	peers := make([][]string, n) // of each server, the lines for the others
	for i := range n {
		for j := range n {
			if i == j {
				continue
			}
			quorum, election := newRelay(t, i, j, 2888), newRelay(t, i, j, 3888)
			e.relays = append(e.relays, quorum, election)
			peers[i] = append(peers[i], fmt.Sprintf("server.%d=127.0.0.1:%d:%d", j+1, quorum.port(), election.port()))
		}
	}
	image := local.Image{
		Port: 2181,
		Prepare: func(_ context.Context, m local.Machine) error {
			i := 0
			fmt.Sscanf(m.Name, "server-%d", &i)
			conf := append([]string{
				"tickTime=250", "initLimit=40", "syncLimit=20", "minSessionTimeout=500", "maxSessionTimeout=60000",
				"dataDir=" + m.Dir + "/data", "clientPort=2181", "clientPortAddress=" + m.Addr.String(), "maxClientCnxns=0",
				"admin.enableServer=false", "4lw.commands.whitelist=*",
			}, lines...)
			if n > 1 {
				conf = append(conf, fmt.Sprintf("server.%d=%s:2888:3888", i, m.Addr))
				conf = append(conf, peers[i-1]...)
			}
			if err := os.Mkdir(m.Dir+"/data", 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(m.Dir+"/data/myid", fmt.Append(nil, i), 0o600); err != nil {
				return err
			}
			return os.WriteFile(m.Dir+"/zoo.cfg", []byte(strings.Join(conf, "\n")+"\n"), 0o600)
		},
		Command: func(m local.Machine) local.Command {
			return local.Command{Args: []string{
				java, "-Xms32m", "-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData",
				"-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.preAllocSize=64", "-Dznode.container.checkIntervalMs=1000",
				"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
				"-cp", strings.Join(path, ":"), "org.apache.zookeeper.server.quorum.QuorumPeerMain", m.Dir + "/zoo.cfg",
			}}
		},
	}
	e.Servers = launch(t, Cloud(t, map[string]local.Image{"server": image}), n, 2181, false)
	for _, r := range e.relays {
		r.aim(e.Servers[r.to].Host)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := e.Ready(ctx); err != nil {
		for _, s := range e.Servers {
			t.Logf("%s:\n%s", s.ID, s.Output())
		}
		t.Fatal(err)
	}
	return e
}

// Addrs are the addresses for clients.
func (e *Ensemble) Addrs() (list []string) {
	for _, s := range e.Servers {
		list = append(list, s.Addr)
	}
	return list
}

// Ready waits until all servers serve.
func (e *Ensemble) Ready(ctx context.Context) error {
	for i := range e.Servers {
		for e.Mode(ctx, i) == "" {
			if err := pause(ctx); err != nil {
				return fmt.Errorf("waiting for %s to serve: %w", e.Servers[i].ID, err)
			}
		}
	}
	return nil
}

// Leader waits until there is a leader, and gives its place in Servers.
func (e *Ensemble) Leader(ctx context.Context) (int, error) {
	for {
		for i := range e.Servers {
			if m := e.Mode(ctx, i); m == "leader" || m == "standalone" {
				return i, nil
			}
		}
		if err := pause(ctx); err != nil {
			return 0, fmt.Errorf("waiting for a leader: %w", err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// Mode is leader, follower or standalone, or empty if the server does not serve.
func (e *Ensemble) Mode(ctx context.Context, i int) string {
	_, mode, _ := strings.Cut(e.Ask(ctx, i, "srvr"), "Mode: ")
	mode, _, _ = strings.Cut(mode, "\n")
	return mode
}

// Ask sends one of ZooKeeper's commands of four letters, and gives the answer, or nothing if there is none within a second.
func (e *Ensemble) Ask(ctx context.Context, i int, command string) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", e.Servers[i].Addr)
	if err != nil {
		return ""
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if _, err := io.WriteString(conn, command); err != nil {
		return ""
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// Cut drops everything between the server and the other ones, in silence, until Heal. Its clients still reach it.
func (e *Ensemble) Cut(i int) {
	for _, r := range e.relays {
		if r.from == i || r.to == i {
			r.set(true)
		}
	}
}

// Heal ends what Cut began.
func (e *Ensemble) Heal() {
	for _, r := range e.relays {
		r.set(false)
	}
}

// relay passes connections on from one server to another.
type relay struct {
	from, to, target int
	listener         net.Listener

	mu    sync.Mutex
	host  string // of the target; empty before it is known
	cut   bool
	conns map[net.Conn]bool
}

func newRelay(t testing.TB, from, to, target int) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{from: from, to: to, target: target, listener: l, conns: map[net.Conn]bool{}}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { r.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.drop()
		group.Wait()
	})
	return r
}

func (r *relay) port() int { return r.listener.Addr().(*net.TCPAddr).Port }

func (r *relay) aim(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.host = host
}

func (r *relay) set(cut bool) {
	r.mu.Lock()
	was := r.cut
	r.cut = cut
	r.mu.Unlock()
	if was && !cut {
		r.drop() // what was swallowed is missing from them
	}
}

func (r *relay) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close()
	}
}

func (r *relay) serve(in net.Conn) {
	defer in.Close()
	r.mu.Lock()
	host := r.host
	r.conns[in] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, in)
	}()
	if host == "" {
		return
	}
	// A server that is refused tries again soon; one whose connection breaks begins a new election. So a target that does not
	// listen yet is waited for.
	var out net.Conn
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if out, err = net.DialTimeout("tcp", fmt.Sprintf("%s:%d", host, r.target), time.Second); err == nil {
			break
		}
		if time.Since(began) > 3*time.Second {
			return
		}
	}
	defer out.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		r.pass(in, out)
		in.Close()
	}()
	r.pass(out, in)
	out.Close()
	<-back
}

// pass copies until either end closes, and swallows what comes while the relay is cut.
func (r *relay) pass(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		cut := r.cut
		r.mu.Unlock()
		if err != nil {
			return
		}
		if !cut {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

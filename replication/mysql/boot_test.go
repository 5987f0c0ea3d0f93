//go:build linux

package mysql_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
	xssh "golang.org/x/crypto/ssh"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/ssh"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// booted is a machine that boots from a Debian tree with systemd, cloud-init and sshd, in namespaces of its own but for the network.
type booted struct {
	name string
	addr netip.Addr
	dir  string
	log  *os.File
	cmd  *osexec.Cmd
}

// boot starts the machine with what a cloud gives it: its user data, and the keys that SSH needs.
func boot(t *testing.T, n int, tree, userData, vendorData string) *booted {
	t.Helper()
	m := &booted{name: fmt.Sprintf("i-%d", n), addr: netip.AddrFrom4([4]byte{127, 99, 7, byte(n)}), dir: filepath.Join(t.TempDir(), "root")}
	run(t, "cp", "-a", "--reflink=auto", tree, m.dir)
	for path, text := range map[string]string{
		"var/lib/cloud/seed/nocloud/user-data":   userData,
		"var/lib/cloud/seed/nocloud/vendor-data": vendorData,
		"var/lib/cloud/seed/nocloud/meta-data":   "instance-id: " + m.name + "\nlocal-hostname: " + m.name + "\n",
		"etc/cloud/cloud.cfg.d/99-source.cfg":    "datasource_list: [ NoCloud, None ]\nnetwork: {config: disabled}\n", // it is this machine's
		"etc/ssh/sshd_config.d/listen.conf":      "ListenAddress " + m.addr.String() + "\n",
	} {
		path = filepath.Join(m.dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	for _, path := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		path = filepath.Join(m.dir, path)
		_ = os.Remove(path) // it may be a link to what the machine makes of its own network
		require.NoError(t, os.WriteFile(path, text, 0o644))
	}
	var err error
	m.log, err = os.Create(filepath.Join(t.TempDir(), "console"))
	require.NoError(t, err)
	m.start(t)
	t.Cleanup(func() {
		m.shutDown(t)
		if t.Failed() {
			text, _ := os.ReadFile(m.log.Name())
			t.Logf("%s: %s", m.name, text[max(0, len(text)-5000):])
		}
		m.log.Close()
	})
	return m
}

func (m *booted) start(t *testing.T) {
	m.cmd = osexec.Command("systemd-nspawn", "-D", m.dir, "-M", "scalr-"+m.name, "-b", "--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off")
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	require.NoError(t, m.cmd.Start())
}

func (m *booted) shutDown(t *testing.T) {
	require.NoError(t, m.cmd.Process.Signal(syscall.SIGTERM)) // which asks its init to power off
	late := time.AfterFunc(2*time.Minute, func() { m.cmd.Process.Kill() })
	_ = m.cmd.Wait()
	require.True(t, late.Stop(), "%s does not power off", m.name)
}

func run(t *testing.T, args ...string) {
	t.Helper()
	out, err := osexec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
}

// cloud lists the machines, as a provider would that runs no commands.
type cloud struct {
	provider.Provider
	machines []*booted
}

func (c cloud) Instances(context.Context, map[string]string) (list []provider.Instance, err error) {
	for _, m := range c.machines {
		list = append(list, provider.Instance{ID: m.name, State: provider.Running, Private: m.addr})
	}
	return list, nil
}

// key makes a key, and gives it as OpenSSH has it in a file.
func key(t *testing.T) (xssh.Signer, string) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	signer, err := xssh.NewSignerFromKey(private)
	require.NoError(t, err)
	block, err := xssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	return signer, string(pem.EncodeToMemory(block))
}

// Plain Debian machines become members at their first boot by CloudInit's user data, with Config.Set; a Manager makes a set of them, one
// of them is seeded by files over SSH, with systemctl, and they come back as members when they boot again. MYSQL_BOOT is a Debian tree
// (make boot makes it).
func TestCloudInitBoots(t *testing.T) {
	tree := os.Getenv("MYSQL_BOOT")
	if tree == "" {
		t.Skip("MYSQL_BOOT names no Debian tree to boot")
	}
	c := config
	c.Set = "shop/db"
	host, hostKey := key(t)
	account, _ := key(t)
	vendorData, err := json.Marshal(map[string]any{
		"disable_root":    false,
		"locale":          false,
		"ssh_deletekeys":  true,
		"ssh_genkeytypes": []string{},
		"ssh_keys":        map[string]string{"ed25519_private": hostKey, "ed25519_public": string(xssh.MarshalAuthorizedKey(host.PublicKey()))},
		"users":           []any{map[string]any{"name": "root", "ssh_authorized_keys": []string{string(xssh.MarshalAuthorizedKey(account.PublicKey()))}}},
	})
	require.NoError(t, err)
	var machines []*booted
	for n := 1; n <= 2; n++ {
		at := netip.AddrFrom4([4]byte{127, 99, 7, byte(n)})
		userData, err := mysql.CloudInit(mysql.Server{Bind: at.String()}, c)
		require.NoError(t, err)
		machines = append(machines, boot(t, n, tree, string(userData), "#cloud-config\n"+string(vendorData)))
	}
	remote, err := ssh.Wrap(cloud{machines: machines}, ssh.Options{User: "root", Signers: []xssh.Signer{account}, HostKey: xssh.FixedHostKey(host.PublicKey())})
	require.NoError(t, err)
	command := func(m replication.Member, args ...string) string {
		r, err := remote.RunCommand(t.Context(), m.Machine, provider.Command{Args: args})
		require.NoError(t, err)
		require.Zero(t, r.Exit, "%v: %s", args, r.Output)
		return strings.TrimSpace(string(r.Output))
	}
	c.Machines.Run = func(ctx context.Context, m replication.Member, args []string, stdin io.Reader, stdout io.Writer) (int, []byte, error) {
		r, err := remote.RunCommand(ctx, m.Machine, provider.Command{Args: args, Stdin: stdin, Stdout: stdout})
		return r.Exit, r.Output, err
	}
	e, err := mysql.New(c)
	require.NoError(t, err)
	var members []replication.Member
	for i, m := range machines {
		members = append(members, replication.Member{ID: fmt.Sprintf("db-%d", i+1), Addr: net.JoinHostPort(m.addr.String(), "3306"), Machine: m.name})
	}
	var manager *replication.Manager
	lead := func() (stop func()) {
		manager, err = replication.New(replication.Config{Name: "shop/db", Engine: e, Policy: replication.Durability})
		require.NoError(t, err)
		manager.SetMembers(members, len(members))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- manager.Run(ctx) }()
		stop = sync.OnceFunc(func() { cancel(); require.ErrorIs(t, <-done, context.Canceled) })
		t.Cleanup(stop)
		return stop
	}
	stop := lead()
	whole := func() (primary, replica replication.Member) {
		var top replication.Topology
		for end := time.Now().Add(10 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			top, _ = manager.Topology()
			if len(top.Members) == 2 && top.Members[0].Serves && top.Members[1].Serves && top.Primary != "" {
				break
			}
			require.True(t, time.Now().Before(end), "the set is not whole: %+v", top)
		}
		primary, replica = members[0], members[1]
		if top.Primary == replica.ID {
			primary, replica = replica, primary
		}
		return primary, replica
	}
	primary, replica := whole()
	open := func(m replication.Member) *sql.DB {
		d := sqldriver.NewConfig()
		d.User, d.Passwd, d.Net, d.Addr = c.User, c.Password, "tcp", m.Addr
		connector, err := sqldriver.NewConnector(d)
		require.NoError(t, err)
		db := sql.OpenDB(connector)
		t.Cleanup(func() { db.Close() })
		return db
	}
	exec(t, open(primary), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY, v VARCHAR(100))",
		"INSERT INTO app.t SELECT seq, MD5(seq) FROM app.seq_1_to_100000")
	require.Equal(t, "0", one(t, open(primary), "SELECT COUNT(*) FROM mysql.user WHERE user = '' OR user = 'root' AND host <> 'localhost'"))
	for _, m := range members {
		require.Equal(t, "600 mysql", command(m, "stat", "-c", "%a %U", "/etc/mysql/scalr-init.sql"))
		require.JSONEq(t, "[]", command(m, "/bin/sh", "-c", `cloud-init status --wait >/dev/null; python3 -c 'import json; print(json.dumps(json.load(open("/run/cloud-init/result.json"))["v1"]["errors"]))'`))
	}

	stop() // so that nobody else changes the members
	exec(t, open(replica), "STOP SLAVE", "CREATE SCHEMA stale")
	var shown []string
	at, err := e.Seed(t.Context(), replica, primary, func(p replication.Progress) {
		if len(shown) == 0 || shown[len(shown)-1] != p.Unit+" "+p.What {
			shown = append(shown, p.Unit+" "+p.What)
		}
	})
	require.NoError(t, err)
	t.Log(at, shown)
	require.NotContains(t, fmt.Sprint(shown), "rows", "it went over SQL")
	require.NoError(t, e.Follow(t.Context(), replica, primary))
	exec(t, open(primary), "INSERT INTO app.t VALUES (0, 'after')")
	sum := func(m replication.Member) string {
		return one(t, open(m), "SELECT CONCAT(COUNT(*), ' ', SUM(CRC32(v))) FROM app.t")
	}
	within(t, "the replica has what came after its copy", func() bool { return sum(replica) == sum(primary) })
	require.Equal(t, "0", one(t, open(replica), "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'stale'"))
	require.Equal(t, "mysql mysql", command(replica, "stat", "-c", "%U %G", "/var/lib/mysql"))
	require.Equal(t, "active", command(replica, "systemctl", "is-active", "mariadb"))

	// All of the cloud's machines boot again.
	require.NoError(t, e.Close(primary))
	require.NoError(t, e.Close(replica))
	for _, m := range machines {
		m.shutDown(t)
		m.start(t)
	}
	lead()
	primary, replica = whole()
	exec(t, open(primary), "INSERT INTO app.t VALUES (-1, 'again')")
	within(t, "it replicates", func() bool { return sum(replica) == sum(primary) })
}

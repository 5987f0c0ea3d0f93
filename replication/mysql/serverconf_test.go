package mysql_test

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication/mysql"
)

// The server reads back what was written, whatever paths are like.
func TestServerConfIsReadBack(t *testing.T) {
	server := testenv.Need(t, "mariadbd")[0]
	file := filepath.Join(testenv.Dir(t), "my.cnf")
	rapid.Check(t, func(t *rapid.T) {
		path := "/" + rapid.StringOfN(rapid.RuneFrom([]rune(`ab/ .#;'"\=[]{}%$é☃	!`)), 0, 20, -1).Draw(t, "path")
		conf := mysql.ServerConf(mysql.Server{ID: 7, DataDir: path, Socket: "/s", Bind: "127.88.1.2", Port: 3307})
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := osexec.Command(server, "--defaults-file="+file, "--print-defaults").Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := "--datadir=" + path + " --socket=/s"; !strings.Contains(string(out), want) {
			t.Fatalf("wrote %q, and the server reads %s", path, out)
		}
	})
}

func TestServerConf(t *testing.T) {
	conf := mysql.ServerConf(mysql.Server{Bind: "10.1.2.3", More: []string{"max_connections = 500"}})
	require.Contains(t, conf, "server_id = 167838211\n", "from the address")
	require.Contains(t, conf, "bind_address = 10.1.2.3\nreport_host = 10.1.2.3\n")
	require.Contains(t, conf, "read_only = ON\nskip_slave_start = ON\n")
	require.True(t, strings.HasSuffix(conf, "max_connections = 500\n"))
	require.NotContains(t, mysql.ServerConf(mysql.Server{}), "server_id")
	require.NotContains(t, mysql.ServerConf(mysql.Server{Bind: "fd00::1"}), "server_id")
	require.Contains(t, mysql.ServerConf(mysql.Server{ID: 9, Bind: "10.1.2.3"}), "server_id = 9\n")
}

// BootstrapSQL as an init_file makes a member out of a fresh server, at each start anew, and leaves no trace in the binary
// log; every account without a password goes, but root's own on the machine.
func TestBootstrapSQL(t *testing.T) {
	bootstrap := strings.Split(strings.TrimRight(mysql.BootstrapSQL(config), ";\n"), ";\n")
	for _, s := range bootstrap {
		require.NotContains(t, s, "\n")
	}
	servers := testenv.MariaDBWith(t, 1, local.MariaDB{User: "other", Password: "other",
		Config: func(m local.Machine) string { return mysql.ServerConf(mysql.Server{Bind: m.Addr.String()}) },
		SQL: append([]string{"CREATE USER IF NOT EXISTS root@'127.0.0.1', root@'%', ''@'localhost', 'kept'@'%'",
			"CREATE USER IF NOT EXISTS root@'10.0.0.1' IDENTIFIED BY 'has one'"}, bootstrap...)})
	n := &node{Server: servers[0]}
	n.Member.ID, n.Member.Addr = "db-1", n.Addr
	e := engine(t, config, n)
	for range 2 {
		st := observe(t, e, n)
		require.True(t, st.Empty && !st.Writable, "%+v", st)
		db := n.admin(t)
		require.ElementsMatch(t, []string{"kept@%", "root@10.0.0.1", "root@localhost"}, strings.Split(one(t, db,
			"SELECT GROUP_CONCAT(user, '@', host) FROM mysql.user WHERE user IN ('', 'root', 'kept')"), ","))
		// The replicas' account works with its password and may do what it must.
		repl := n.db(t, config.ReplicationUser, config.ReplicationPassword, "")
		require.Contains(t, one(t, repl, "SHOW GRANTS"), "GRANT REPLICATION SLAVE ON *.*")
		require.NoError(t, db.Close())
		require.NoError(t, n.Kill(t.Context()))
		require.NoError(t, n.Start(t.Context()))
	}
}

package mysql_test

import (
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication/mysql"
)

// written is what cloud-init would read.
type written struct {
	Packages []string
	Files    []struct {
		Path, Owner, Permissions, Content string
		Defer                             bool
	} `json:"write_files"`
	Boot [][]string `json:"bootcmd"`
	Run  [][]string `json:"runcmd"`
}

func cloudInit(t *testing.T, s mysql.Server) (w written) {
	t.Helper()
	return cloudInitOf(t, s, config)
}

func cloudInitOf(t *testing.T, s mysql.Server, c mysql.Config) (w written) {
	t.Helper()
	data, err := mysql.CloudInit(s, c)
	require.NoError(t, err)
	text, ok := strings.CutPrefix(string(data), "#cloud-config\n")
	require.True(t, ok)
	require.NoError(t, json.Unmarshal([]byte(text), &w))
	return w
}

func TestCloudInit(t *testing.T) {
	w := cloudInit(t, mysql.Server{ID: 77, BufferPool: 1 << 30, More: []string{"max_connections = 500"}})
	require.Equal(t, []string{"mariadb-server", "mariadb-backup"}, w.Packages)
	require.Len(t, w.Files, 4)
	conf, sql := w.Files[0], w.Files[1]
	require.Contains(t, conf.Content, "server_id = 77\n")
	require.Contains(t, conf.Content, "bind_address = *\nmax_connections = 500\n")
	require.Contains(t, conf.Content, "init_file = "+sql.Path+"\n")
	require.NotContains(t, conf.Content, config.Password)
	require.Equal(t, mysql.BootstrapSQL(config), sql.Content)
	require.Equal(t, "mysql:mysql 0600", sql.Owner+" "+sql.Permissions)
	require.True(t, conf.Defer && sql.Defer)
	require.NotContains(t, cloudInit(t, mysql.Server{Bind: "10.1.2.3"}).Files[0].Content, "*")

	require.Empty(t, w.Boot)
	named := config
	named.Set = "shop/db"
	w = cloudInitOf(t, mysql.Server{ID: 77}, named)
	require.Contains(t, w.Boot[0], "mask")
	require.Equal(t, [][]string{{"systemctl", "unmask", "mariadb"}, {"systemctl", "daemon-reload"}, {"systemctl", "enable", "mariadb"}, {"systemctl", "restart", "mariadb"}}, w.Run)
	require.Contains(t, w.Files[1].Content, "'shop/db'")

	for want, bad := range map[string]mysql.Server{
		`Server.ID is 0 and Server.Bind is ""`: {},
		`Server.InitFile is "/x"`:              {ID: 1, InitFile: "/x"},
	} {
		_, err := mysql.CloudInit(bad, config)
		require.ErrorContains(t, err, want)
	}
	broken := config
	broken.ReplicationPassword = "a\nb"
	_, err := mysql.CloudInit(mysql.Server{ID: 1}, broken)
	require.ErrorContains(t, err, "control character")
	require.NotContains(t, fmt.Sprint(err), "a\nb")
	_, err = mysql.CloudInit(mysql.Server{ID: 1}, mysql.Config{})
	require.ErrorContains(t, err, "User")
}

// A binary log that was closed is marked as one in use, and nothing else is changed.
func TestCloudInitAsksTheBinaryLog(t *testing.T) {
	python := testenv.Need(t, "python3")[0]
	server := testenv.MariaDB(t, 1)[0]
	require.NoError(t, server.Cloud.Terminate(t.Context(), server.ID)) // at once: no state is left, so it is made
	data := filepath.Join(server.Cloud.Dir(server.Volume), "mysql")
	log := filepath.Join(data, "binlog.000001")
	closed, err := os.ReadFile(log)
	require.NoError(t, err)
	require.EqualValues(t, 1, closed[21], "in use")
	closed[21] = 0
	require.NoError(t, os.WriteFile(log, closed, 0o600))

	w := cloudInit(t, mysql.Server{ID: 77, DataDir: `/a "$b"`})
	script, unit := w.Files[2], w.Files[3]
	require.Equal(t, "[Service]\nExecStartPre=-/usr/bin/python3 "+script.Path+` "/a \"$$b\""`+"\n", unit.Content)
	ask := func() byte {
		cmd := osexec.CommandContext(t.Context(), python, "-", data)
		cmd.Stdin = strings.NewReader(script.Content)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		now, err := os.ReadFile(log)
		require.NoError(t, err)
		flags := now[21]
		now[21] = 0
		require.Equal(t, closed, now)
		return flags
	}
	require.Zero(t, ask(), "it was not closed")
	require.NoError(t, os.WriteFile(filepath.Join(data, "binlog.state"), nil, 0o600))
	require.EqualValues(t, 1, ask())
}

// A server that has what cloud-init writes, at other paths, is a member that the engine can lead.
func TestCloudInitMakesAMember(t *testing.T) {
	servers := testenv.MariaDBWith(t, 1, local.MariaDB{User: "other", Password: "other", Config: func(m local.Machine) string {
		w := cloudInit(t, mysql.Server{Bind: m.Addr.String()})
		sql := filepath.Join(m.Dir, "cloud.sql")
		require.NoError(t, os.WriteFile(sql, []byte(w.Files[1].Content), 0o600))
		return strings.ReplaceAll(w.Files[0].Content, w.Files[1].Path, sql)
	}})
	n := &node{Server: servers[0]}
	n.Member.ID, n.Member.Addr = "db-1", n.Addr
	e := engine(t, config, n)
	st := observe(t, e, n)
	require.True(t, st.Empty && !st.Writable, "%+v", st)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	require.True(t, observe(t, e, n).Writable)
}

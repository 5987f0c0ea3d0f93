package mysql

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

func TestConfigFaultsAllAtOnce(t *testing.T) {
	_, err := New(Config{Timeout: -time.Second, Stall: time.Microsecond})
	require.EqualError(t, err, `Config.User is empty, want 1 to 128 bytes
Config.Password is empty, want 1 to 1024 bytes
Config.ReplicationUser is empty, want 1 to 128 bytes
Config.ReplicationPassword is empty, want 1 to 96 bytes
Config.Timeout is -1s, want at least 1ms, or 0 for 5s
Config.Stall is 1µs, want at least 1ms, or 0 for 10s`)
	_, err = New(Config{User: "a", Password: "secret\x00word", ReplicationUser: "a", ReplicationPassword: strings.Repeat("s", 97)})
	require.EqualError(t, err, `Config.Password has a control character, want none
Config.ReplicationPassword has 97 bytes, want at most 96
Config.ReplicationUser is "a" as User is, want another account`)
	_, err = New(Config{User: "a", Password: "\xff", ReplicationUser: "b", ReplicationPassword: "line\nbreak"})
	require.EqualError(t, err, `Config.Password is not valid UTF-8
Config.ReplicationPassword has a control character, want none`)
	c := Config{User: "a", Password: "b", ReplicationUser: "c", ReplicationPassword: "d", Set: "dev db"}
	_, err = New(c)
	require.EqualError(t, err, `Config.Set is "dev db", want at most 64 ASCII letters, digits, -, ., _ and /`)
	c.Set = ""
	e, err := New(c)
	require.NoError(t, err)
	_, err = replication.New(replication.Config{Engine: e, Origin: &replication.Origin{Volumes: true}})
	require.EqualError(t, err, "Config.Origin.Volumes is set, but the Engine cannot adopt: mysql: Config.Set is empty, want a name, which BootstrapSQL locks other sets' data by")
	_, err = New(Config{User: "a", Password: "b", ReplicationUser: "c", ReplicationPassword: "d", Machines: Machines{Stop: []string{"service"}}})
	require.EqualError(t, err, `Config.Machines.Stop is set and Machines.Run is nil, want it to run that`)
}

func TestConfigAndEnginePrintNoPassword(t *testing.T) {
	c := Config{User: "u", Password: "first-secret", ReplicationUser: "r", ReplicationPassword: "second-secret"}
	e, err := New(c)
	require.NoError(t, err)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "engine", e)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "engine", e)
	data, _ := json.Marshal(c)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		log.WriteString(fmt.Sprintf(verb+verb+verb+verb, c, &c, e, *e.self()))
	}
	text := log.String() + string(data) + c.String() + e.String()
	require.NotContains(t, text, "secret")
	require.Contains(t, text, "ReplicationUser:r")
}

func TestServerMessagesAreCleaned(t *testing.T) {
	e, err := New(Config{User: "u", Password: "pass'wo\\rd", ReplicationUser: "r", ReplicationPassword: "repl-secret"})
	require.NoError(t, err)
	for in, want := range map[string]string{
		"String 'repl-secretrepl-sec...' is too long for MASTER_PASSWORD": "String '…' is too long for MASTER_PASSWORD",
		"right syntax to use near 'MASTER_PASSWORD='repl-secr' at line 1": "right syntax to use near '…' at line 1",
		"Can't open 'x'":                        "Can't open '…'",
		"the master's binlog has no such thing": "the master's binlog has no such thing",
		"Duplicate entry 'jane@example.org' for key 'email', Error_code: 1062": "Duplicate entry '…', Error_code: 1062",
		"Error 'x' on query. Default database: 'a'. Query: 'CREATE USER z '":   "Error '…'.",
		"Table 'app.secret's' doesn't exist, can't go on":                      "Table '…' doesn't exist, can't go on",
		"cut off 'hidden":                      "cut off '…'",
		"unquoted repl-secret and pass'wo\\rd": "unquoted … and …",
	} {
		require.Equal(t, want, e.clean(in))
	}
	err = e.explain(t.Context(), &sqldriver.MySQLError{Number: 1470, Message: "String 'repl-sec...' is too long"})
	require.EqualError(t, err, "String '…' is too long (error 1470)")
	var raw *sqldriver.MySQLError
	require.NotErrorAs(t, err, &raw, "the raw message can be had from the error")
}

// self is for printing the struct itself.
func (e *Engine) self() *struct{ E *Engine } { return &struct{ E *Engine }{e} }

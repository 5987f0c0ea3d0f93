package mysql_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// garbled is a connection that spoils a word of the statements, so that the server echoes what comes after it.
type garbled struct {
	net.Conn
	word string
}

func (c garbled) Write(b []byte) (int, error) {
	return c.Conn.Write(bytes.ReplaceAll(b, []byte(c.word), []byte(strings.Repeat("?", len(c.word)))))
}

// A server that echoes a statement with a secret does not get it into an error.
func TestNoErrorHoldsASecret(t *testing.T) {
	nodes := start(t, 2)
	primary, m := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), primary.Member, false))
	exec(t, primary.admin(t), "SET sql_log_bin=0; CREATE USER someone@'%' IDENTIFIED BY 'hidden'; DROP USER scalr_repl@'%'")
	hash := one(t, primary.admin(t), "SELECT JSON_VALUE(priv,'$.authentication_string') FROM mysql.global_priv WHERE user='someone'")
	require.NotEmpty(t, hash)
	secrets := []string{hash, hash[:12], config.Password, config.ReplicationPassword, "adm", "re'pl", `re\'pl`, "☃"}

	// The trap: the server's own message holds a part of the password.
	_, err := m.admin(t).Exec("CHANGE MASTER TO ???, MASTER_PASSWORD='a-password'")
	require.ErrorContains(t, err, "a-password")

	for _, c := range []struct {
		word string
		run  func(e replication.Engine) error
	}{
		{"CREATE USER IF", func(e replication.Engine) error { return e.Follow(t.Context(), m.Member, primary.Member) }},
		{"MASTER_HOST", func(e replication.Engine) error { return e.Follow(t.Context(), m.Member, primary.Member) }},
		{"MASTER_PORT", func(e replication.Engine) error { return e.Follow(t.Context(), m.Member, primary.Member) }},
		{"MASTER_USER", func(e replication.Engine) error { return e.Follow(t.Context(), m.Member, primary.Member) }},
		{"MASTER_PASSWORD", func(e replication.Engine) error { return e.Follow(t.Context(), m.Member, primary.Member) }},
		{"REPLACE USER", func(e replication.Engine) error {
			_, err := e.Seed(t.Context(), m.Member, primary.Member, nil)
			return err
		}},
		{"ALTER USER", func(e replication.Engine) error {
			_, err := e.Seed(t.Context(), m.Member, primary.Member, nil)
			return err
		}},
	} {
		bad := config
		bad.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return garbled{conn, c.word}, err
		}
		engine := engine(t, bad, nodes...)
		err := c.run(engine)
		require.ErrorContains(t, err, "syntax", c.word)
		for _, s := range secrets {
			require.NotContains(t, err.Error(), s, c.word)
		}
		var raw *sqldriver.MySQLError
		require.NotErrorAs(t, err, &raw, "the server's own message can be had from the error")
	}
}

package journal_test

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/journal"
	"github.com/scalr-go/scalr/farm/journal/journaltest"
	"github.com/scalr-go/scalr/internal/testenv"
)

func TestSQL(t *testing.T) {
	server := testenv.MariaDB(t, 1)[0]
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = server.User, server.Password, "tcp", server.Addr
	open, err := mysql.NewConnector(c)
	require.NoError(t, err)
	db := sql.OpenDB(open)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "CREATE DATABASE journal")
	require.NoError(t, err)
	c.DBName = "journal"
	open, err = mysql.NewConnector(c)
	require.NoError(t, err)
	in := sql.OpenDB(open)
	defer in.Close()
	n := 0
	journaltest.Run(t, func(t *testing.T) journal.Journal {
		n++
		j, err := journal.NewSQL(t.Context(), in, fmt.Sprint("journal_", n))
		require.NoError(t, err)
		return j
	})
	_, err = journal.NewSQL(t.Context(), in, "")
	require.NoError(t, err)
	_, err = journal.NewSQL(t.Context(), in, "")
	require.NoError(t, err, "it may be there")
	_, err = journal.NewSQL(t.Context(), in, "x; DROP TABLE y")
	require.ErrorContains(t, err, "want letters, digits and '_'")
}

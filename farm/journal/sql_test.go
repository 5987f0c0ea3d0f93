package journal_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
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
	j, err := journal.NewSQL(t.Context(), in, "")
	require.NoError(t, err)
	large := scalr.Event{Time: time.Unix(1, 0).UTC(), Kind: "change-names", Farm: "shop", Attrs: map[string]string{"change-1": strings.Repeat("x", 1<<20)}}
	require.NoError(t, j.Append(t.Context(), large), "the names of a farm of thousands")
	found, err := j.Read(t.Context(), journal.Query{})
	require.NoError(t, err)
	require.Equal(t, []scalr.Event{large}, found)
	_, err = journal.NewSQL(t.Context(), in, "")
	require.NoError(t, err, "it may be there")
	_, err = journal.NewSQL(t.Context(), in, "x; DROP TABLE y")
	require.ErrorContains(t, err, "want letters, digits and '_'")
}

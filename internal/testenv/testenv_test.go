package testenv_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/stretchr/testify/require"
)

func TestMariaDB(t *testing.T) {
	began := time.Now()
	servers := testenv.MariaDB(t, 3)
	t.Logf("3 servers in %s", time.Since(began))
	for _, s := range servers {
		db, err := sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(%s)/", s.User, s.Password, s.Addr))
		require.NoError(t, err)
		defer db.Close()
		var version string
		var id, ro int
		var gtid string
		require.NoError(t, db.QueryRow("SELECT version(), @@server_id, @@read_only, @@gtid_current_pos").Scan(&version, &id, &ro, &gtid))
		t.Log(version, id, ro, gtid)
		require.Empty(t, gtid)
	}
}

package sensor_test

import (
	"context"
	"database/sql"
	"net/netip"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/sensor"
	"github.com/scalr-go/scalr/internal/testenv"
)

// TestSQL asks a MariaDB for its threads. What is no number, NULL among it, is missing and not zero, and a server that does not
// answer in time keeps its last sample with its old time.
func TestSQL(t *testing.T) {
	server := testenv.MariaDB(t, 1)[0]
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = server.User, server.Password, "tcp", server.Addr
	connector, err := mysql.NewConnector(c)
	require.NoError(t, err)
	db := sql.OpenDB(connector)
	defer db.Close()
	open := func(farm.Server) (*sql.DB, error) { return db, nil }
	one := []farm.Server{{ID: "i-db", Name: "db-1", Private: netip.MustParseAddr("127.0.0.1")}}
	ask := func(query string) *sensor.Each { return sensor.SQL(query, open, 30*time.Second) }

	conn, err := db.Conn(t.Context()) // a thread that is there whoever asks
	require.NoError(t, err)
	defer conn.Close()
	samples, err := ask("SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'THREADS_CONNECTED'").Read(t.Context(), "db", one)
	require.NoError(t, err)
	require.Len(t, samples, 1)
	require.Equal(t, "i-db", samples[0].Instance)
	require.GreaterOrEqual(t, samples[0].Value, 2.0, "this connection and the one that asks")

	for query, why := range map[string]string{"SELECT NULL": "NULL", "SELECT 'many'": "many", "SELECT 1 FROM DUAL WHERE FALSE": "no rows", "SELECT x": "x"} {
		samples, err := ask(query).Read(t.Context(), "db", one)
		require.ErrorContains(t, err, why, query)
		require.ErrorContains(t, err, "db-1", query)
		require.Empty(t, samples, query)
	}

	slow := ask("SELECT IF(IS_FREE_LOCK('sensor'), 7, SLEEP(60))")
	first, err := slow.Read(t.Context(), "db", one)
	require.NoError(t, err)
	require.Equal(t, 7.0, first[0].Value)
	_, err = conn.ExecContext(t.Context(), "DO GET_LOCK('sensor', 0)")
	require.NoError(t, err)
	slow.Timeout = 50 * time.Millisecond
	samples, err = slow.Read(t.Context(), "db", one)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, first, samples)
}

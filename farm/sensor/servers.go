package sensor

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/replication"
)

// Memcached reads a figure of memcached's "stats" from each instance, at the role's port: "curr_connections", "bytes".
func Memcached(stat string, timeout time.Duration) *Each {
	return &Each{Timeout: timeout, Ask: func(ctx context.Context, s farm.Server) (float64, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(s.Private.String(), strconv.Itoa(s.Port)))
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if end, ok := ctx.Deadline(); ok {
			if err := c.SetDeadline(end); err != nil {
				return 0, err
			}
		}
		if _, err := io.WriteString(c, "stats\r\n"); err != nil {
			return 0, err
		}
		for lines := bufio.NewScanner(io.LimitReader(c, most)); lines.Scan(); {
			switch f := strings.Fields(lines.Text()); {
			case len(f) == 3 && f[0] == "STAT" && f[1] == stat:
				return strconv.ParseFloat(f[2], 64)
			case len(f) > 0 && f[0] != "STAT":
				return 0, fmt.Errorf("memcached has no stat %q", stat)
			}
		}
		return 0, fmt.Errorf("memcached ended its answer without the stat %q", stat)
	}}
}

// SQL reads the one number of a query's one row from each instance: threads by
// "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'THREADS_RUNNING'". A NULL is a missing
// value. open gives the instance's database, which it owns.
func SQL(query string, open func(farm.Server) (*sql.DB, error), timeout time.Duration) *Each {
	return &Each{Timeout: timeout, Ask: func(ctx context.Context, s farm.Server) (float64, error) {
		db, err := open(s)
		if err != nil {
			return 0, err
		}
		var v sql.NullFloat64
		if err := db.QueryRowContext(ctx, query).Scan(&v); err != nil {
			return 0, err
		}
		if !v.Valid {
			return 0, fmt.Errorf("the answer is NULL")
		}
		return v.Float64, nil
	}}
}

// Lag reads how many seconds the replicas of a database are behind their primary, as the database's Manager sees them. A
// member that is down has no sample, nor has the primary.
func Lag(m *replication.Manager) farm.Sensor {
	return farm.SensorFunc(func(_ context.Context, _ string, servers []farm.Server) (all []scale.Sample, _ error) {
		now := time.Now()
		t, _ := m.Topology()
		for _, s := range servers {
			for _, x := range t.Members {
				if x.Member.Machine == s.ID && x.Role == replication.RoleReplica {
					all = append(all, scale.Sample{Instance: s.ID, Value: x.Lag.Seconds(), At: now})
				}
			}
		}
		return all, nil
	})
}

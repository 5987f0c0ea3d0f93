package mysql_test

import (
	"bytes"
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// A member is claimed under a later lease when all of a promotion is done but its last round trip.
func TestOvertakenInTheLastMoment(t *testing.T) {
	nodes := start(t, 2)
	later := engine(t, config, nodes...)
	require.NoError(t, later.Promote(t.Context(), nodes[0].Member, false))
	require.NoError(t, later.Follow(t.Context(), nodes[1].Member, nodes[0].Member))
	_, err := later.Drain(t.Context(), nodes[1].Member)
	require.NoError(t, err)

	m := nodes[1].Member
	c := config
	c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &noticing{conn, "SET GLOBAL read_only = OFF", func() {
			m := m
			m.Token = 2
			require.NoError(t, later.Claim(t.Context(), m))
		}}, err
	}
	first := engine(t, c, nodes...)
	m.Token = 1
	require.NoError(t, first.Claim(t.Context(), m))
	require.ErrorIs(t, first.Promote(t.Context(), m, false), replication.ErrOvertaken)
	st, err := later.Observe(t.Context(), m)
	require.NoError(t, err)
	require.False(t, st.Writable)
	require.NoError(t, later.Follow(t.Context(), nodes[1].Member, nodes[0].Member))
	m.Token = 2
	_, err = later.Drain(t.Context(), m)
	require.NoError(t, err)
	require.NoError(t, later.Promote(t.Context(), m, false))
}

// noticing calls a function before it sends a text.
type noticing struct {
	net.Conn
	text  string
	sends func()
}

func (c *noticing) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(c.text)) {
		c.sends()
	}
	return c.Conn.Write(b)
}

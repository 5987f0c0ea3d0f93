package faultproxy

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is sent into a cut comes when it is mended, also from a client that has gone.
func TestLineHoldsWhatItCuts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	came := make(chan string, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					came <- lines.Text()
					fmt.Fprintln(conn, "took "+lines.Text())
				}
			}()
		}
	}()
	line := NewLine(t, listener.Addr().String())
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", line.Addr())
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	answer := func(conn net.Conn, wait time.Duration) (string, error) {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(wait)))
		return bufio.NewReader(conn).ReadString('\n')
	}
	const patience = 30 * time.Second
	conn := dial()
	fmt.Fprintln(conn, "one")
	got, err := answer(conn, patience)
	require.NoError(t, err)
	require.Equal(t, "took one\n", got)
	require.Equal(t, "one", <-came)

	line.Cut(false, true)
	fmt.Fprintln(conn, "two")
	require.Equal(t, "two", <-came, "requests pass")
	_, err = answer(conn, 50*time.Millisecond)
	require.Error(t, err, "answers do not")

	line.Cut(true, false)
	got, err = answer(conn, patience)
	require.NoError(t, err)
	require.Equal(t, "took two\n", got, "what was held comes")
	other := dial()
	fmt.Fprintln(other, "three")
	require.NoError(t, other.Close())
	select {
	case text := <-came:
		t.Fatal("requests pass: ", text)
	case <-time.After(50 * time.Millisecond):
	}
	line.Mend()
	require.Equal(t, "three", <-came, "though its client has gone")
}

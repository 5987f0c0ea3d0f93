package provider_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
)

func TestSecretsAreNotShown(t *testing.T) {
	const secret = "hunter2"
	l := provider.Launch{Token: "t", UserData: provider.Secret(secret)}
	c := provider.Command{Args: []string{"mysqldump"}, Env: []string{"PASSWORD=" + secret}, Stdin: strings.NewReader(secret)}
	var text bytes.Buffer
	for _, v := range []any{l, &l, l.UserData, c, &c, []provider.Command{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&text, verb+"\n", v)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&text, nil), slog.NewJSONHandler(&text, nil)} {
		slog.New(h).Info("launch", "launch", l, "data", l.UserData, "command", c)
	}
	for _, v := range []any{l, c} {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		text.Write(b)
	}
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), "104 117 110", "aHVudGVyMg"} {
		require.NotContains(t, text.String(), form)
	}
	require.Equal(t, "[7 bytes]", l.UserData.String())
	require.Equal(t, `["mysqldump"] with 1 variables`, c.String())
}

func TestAnInstanceIsPrintedForAPerson(t *testing.T) {
	i := provider.Instance{ID: "i-1", State: provider.Pending}
	require.Equal(t, "i-1 pending", i.String())
	i.State, i.Private = provider.Running, netip.MustParseAddr("10.0.0.1")
	i.Public = i.Private
	require.Equal(t, "i-1 running 10.0.0.1", i.String())
	i.Public = netip.MustParseAddr("198.51.100.7")
	require.Equal(t, "i-1 running 10.0.0.1 198.51.100.7", i.String())
	for s, gone := range map[provider.State]bool{provider.Pending: false, provider.Running: false, provider.Stopped: false,
		provider.Failed: false, provider.Terminating: true, provider.Terminated: true} {
		require.Equal(t, gone, s.Gone())
	}
}

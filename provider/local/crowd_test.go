//go:build linux

package local_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// crowd is one of several hosts that work on one directory at once: it launches some instances of its own and some that
// every host launches, and terminates some of both.
func crowd() {
	c, err := local.New(local.Options{Dir: os.Getenv("DIR"), Images: map[string]local.Image{"it": sleepImage()}})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	ids := map[string]string{}
	do := func(token string) {
		i, err := c.Launch(ctx, provider.Launch{Token: token, Image: "it"})
		if err != nil {
			panic(err)
		}
		ids[token] = i.ID
	}
	for n := range 4 {
		do(fmt.Sprint("shared-", n))
		do(fmt.Sprint(os.Getenv("ME"), "-", n))
	}
	for _, token := range []string{"shared-0", os.Getenv("ME") + "-0"} {
		if err := c.Terminate(ctx, ids[token]); err != nil {
			panic(err)
		}
	}
	json.NewEncoder(os.Stdout).Encode(ids)
}

func TestHostsAtOnce(t *testing.T) {
	c, dir := crashCloud(t)
	const hosts = 3
	var wg sync.WaitGroup
	got := make([]map[string]string, hosts)
	for n := range hosts {
		wg.Go(func() {
			out, _ := runHost(t, "crowd", "DIR="+dir, fmt.Sprint("ME=host", n))
			assert.NoError(t, json.Unmarshal([]byte(out), &got[n]), out)
		})
	}
	wg.Wait()
	ids := map[string]string{} // by token
	for _, g := range got {
		for token, id := range g {
			if was, ok := ids[token]; ok {
				assert.Equal(t, was, id, "one token, one instance: %s", token)
			}
			ids[token] = id
		}
	}
	assert.Len(t, ids, 4+4*hosts)
	all, err := c.Instances(t.Context(), nil)
	require.NoError(t, err)
	assert.Len(t, all, len(ids))
	addrs := map[netip.Addr]bool{}
	states := map[provider.State]int{}
	for _, i := range all {
		addrs[i.Private] = true
		states[i.State]++
		want := 0
		if i.State == provider.Running {
			want = 2 // with its supervisor
		}
		until(t, "its processes", func() bool { return len(testenv.Processes(i.ID)) == want })
	}
	assert.Len(t, addrs, len(ids), "no two have one address")
	assert.Equal(t, map[provider.State]int{provider.Terminated: 1 + hosts, provider.Running: 3 + 3*hosts}, states)
}

func TestAddresses(t *testing.T) {
	wide := cloud(t, sleepImage())
	first := launch(t, wide, "a")
	require.NoError(t, wide.Terminate(t.Context(), first.ID))
	assert.NotEqual(t, first.Private, launch(t, wide, "b").Private, "the address of a terminated instance rests")

	o := local.Options{Dir: testenv.Dir(t), Images: map[string]local.Image{"it": sleepImage()}, Prefix: netip.MustParsePrefix("127.78.9.8/30")}
	c := newCloud(t, o)
	a := launch(t, c, "a")
	b := launch(t, c, "b")
	defer c.Terminate(t.Context(), b.ID)
	assert.ElementsMatch(t, []string{"127.78.9.9", "127.78.9.10"}, []string{a.Private.String(), b.Private.String()})
	_, err := c.Launch(t.Context(), provider.Launch{Token: "c", Image: "it"})
	require.ErrorIs(t, err, provider.ErrCapacity)
	require.NoError(t, c.Terminate(t.Context(), a.ID))
	d := launch(t, c, "d")
	assert.Equal(t, a.Private, d.Private, "where there is no other one, that of a terminated instance")
	require.NoError(t, c.Terminate(t.Context(), d.ID))

	// Somebody else on this machine listens on the only address that is left.
	l, err := net.Listen("tcp", net.JoinHostPort(a.Private.String(), "0"))
	require.NoError(t, err)
	defer l.Close()
	_, err = c.Launch(t.Context(), provider.Launch{Token: "e", Image: "it"})
	require.ErrorIs(t, err, provider.ErrCapacity)
}

func TestQuota(t *testing.T) {
	c := newCloud(t, local.Options{Dir: testenv.Dir(t), Images: map[string]local.Image{"it": sleepImage()}, Quota: 1})
	i := launch(t, c, "a")
	assert.Equal(t, i.ID, launch(t, c, "a").ID, "the same launch again is within the quota")
	_, err := c.Launch(t.Context(), provider.Launch{Token: "b", Image: "it"})
	require.ErrorIs(t, err, provider.ErrQuota)
	require.NoError(t, c.Stop(t.Context(), i.ID))
	_, err = c.Launch(t.Context(), provider.Launch{Token: "b", Image: "it"})
	require.ErrorIs(t, err, provider.ErrQuota, "a stopped instance counts")
	require.NoError(t, c.Terminate(t.Context(), i.ID))
	j := launch(t, c, "b")
	require.NoError(t, c.Terminate(t.Context(), j.ID))
}

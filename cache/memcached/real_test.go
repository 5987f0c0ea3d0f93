package memcached_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
)

// One of three servers is killed, and then one hangs. What the others have is read all the same.
func TestServerFails(t *testing.T) {
	for what, fail := range map[string]func(*testenv.Server, context.Context) error{
		"killed": (*testenv.Server).Kill,
		"hung":   (*testenv.Server).Hang,
	} {
		t.Run(what, func(t *testing.T) {
			ctx := t.Context()
			servers := testenv.Memcached(t, 3)
			c := client(t, set(servers), 2*time.Second)
			keys := keysOf(t, c, 4)
			var all []string
			for _, some := range keys {
				for _, key := range some {
					require.NoError(t, c.Set(ctx, cache.Item{Key: key, Value: []byte("v")}))
					all = append(all, key)
				}
			}
			require.NoError(t, fail(servers[1], ctx))

			// What the server had is missing, and a stand-in keeps what is stored meanwhile.
			items, err := c.GetMulti(ctx, append(all, "no key"))
			require.ErrorIs(t, err, cache.ErrInvalid, "the key with a space, and nothing else")
			require.ErrorContains(t, err, "1 keys failed")
			require.Len(t, items, 8)
			require.True(t, c.Stats()[1].Down)
			lost := keys["cache-2"]
			for range 100 {
				require.NoError(t, c.Set(ctx, cache.Item{Key: lost[0], Value: []byte("stand-in")}))
				item, err := c.Get(ctx, lost[0])
				require.NoError(t, err)
				require.Equal(t, "stand-in", string(item.Value))
				item.Value = []byte("swapped")
				require.NoError(t, c.CompareAndSwap(ctx, item))
				items, err := c.GetMulti(ctx, all)
				require.NoError(t, err)
				require.Len(t, items, 9)
			}
			// A Delete reaches the stand-in, and fails all the same: the server may come back with what it had.
			require.ErrorContains(t, c.Delete(ctx, lost[0]), "cache-2")
			_, err = c.Get(ctx, lost[0])
			require.Equal(t, cache.ErrMiss, err)
			require.NoError(t, c.Delete(ctx, keys["cache-1"][0]))
			require.GreaterOrEqual(t, c.Stats()[1].Errors, uint64(100))

			if what == "killed" {
				require.NoError(t, servers[1].Start(ctx))
			} else {
				require.NoError(t, servers[1].Resume(ctx))
			}
			until(t, "the server was asked again", func() bool { return c.Delete(ctx, lost[0]) == nil })
			require.False(t, c.Stats()[1].Down)
		})
	}
}

// What a stand-in keeps ends with Settle, also where nobody can tell it of a Delete.
func TestBoundOfStandIn(t *testing.T) {
	ctx := t.Context()
	servers := testenv.Memcached(t, 2)
	const settle = 3 * time.Second
	open := func(slots []cache.Server, cut string) *memcached.Client {
		c, err := memcached.New(memcached.Options{
			Servers: slots, Timeout: 20 * time.Second, Settle: settle,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr == cut {
					return nil, errors.New("partitioned")
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			},
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}
	all := set(servers)
	key := keysOf(t, client(t, all, 0), 1)["cache-1"][0]
	here := &cache.Of[string]{Store: open(all, servers[1].Addr), TTL: time.Hour}  // sees the owner only
	there := &cache.Of[string]{Store: open(all, servers[0].Addr), TTL: time.Hour} // sees the stand-in only
	get := func(of *cache.Of[string], load string) string {
		v, err := of.Get(ctx, key, func(context.Context) (string, error) { return load, nil })
		require.NoError(t, err)
		return v
	}
	require.Equal(t, "old", get(there, "old"))
	require.NoError(t, here.Delete(ctx, key))
	deleted := time.Now()
	require.Equal(t, "new", get(here, "new"))
	for get(there, "new") == "old" {
		require.Less(t, time.Since(deleted), 30*time.Second, "the stand-in still has the old value")
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("the bound is %v, a stale value was seen for %v", settle, time.Since(deleted))
}

// A new server takes over keys with what the previous owner has, without a load; a Delete reaches both.
func TestHandOver(t *testing.T) {
	ctx := t.Context()
	all := set(testenv.Memcached(t, 3))
	c := client(t, all[:2], 0)
	of := &cache.Of[string]{Store: c, TTL: time.Hour}
	loads := 0
	load := func(context.Context) (string, error) { loads++; return fmt.Sprint("load ", loads), nil }
	get := func(i int) string {
		v, err := of.Get(ctx, fmt.Sprint(i), load)
		require.NoError(t, err)
		return v
	}
	var before []string
	for i := range 100 {
		before = append(before, get(i))
	}
	require.NoError(t, c.SetServers(all))
	moved := 0
	for i := range 100 {
		require.Equal(t, before[i], get(i))
		owner, _ := c.Owner(fmt.Sprint(i))
		if owner.Slot != "cache-3" {
			continue
		}
		moved++
		require.NoError(t, of.Delete(ctx, fmt.Sprint(i)))
		require.NotEqual(t, before[i], get(i), "it must not come back from the previous owner")
	}
	require.Greater(t, moved, 10)
	require.Equal(t, 100+moved, loads)
}

// The escape hatch asks the server that a Client asks, also after a change of servers.
func TestGomemcache(t *testing.T) {
	ctx := t.Context()
	all := set(testenv.Memcached(t, 3))
	c := client(t, all[:2], 0)
	g := c.Gomemcache()
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	for i := range 50 {
		key := fmt.Sprint("n", i)
		require.NoError(t, c.Set(ctx, cache.Item{Key: key, Value: []byte("1")}))
		n, err := g.Increment(key, 41)
		require.NoError(t, err)
		require.EqualValues(t, 42, n)
		item, err := c.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, "42", string(item.Value))
	}
	require.NoError(t, c.SetServers(all[2:]))
	_, err := g.Get("n1")
	require.ErrorIs(t, err, memcache.ErrCacheMiss, "the new server has nothing")
	require.NoError(t, g.Ping())
	require.NoError(t, c.SetServers(nil))
	_, err = g.Get("n1")
	require.ErrorIs(t, err, cache.ErrNoServers)
}

func TestTLS(t *testing.T) {
	testenv.Need(t, "memcached")
	dir := testenv.Dir(t)
	pool := certificate(t, dir)
	image, err := local.Memcached{Args: []string{"-Z", "-o", "ssl_chain_cert=" + dir + "/cert.pem", "-o", "ssl_key=" + dir + "/key.pem"}}.Image()
	require.NoError(t, err)
	server := launch(t, image)
	open := func(config *tls.Config) *memcached.Client {
		c, err := memcached.New(memcached.Options{
			Servers: []cache.Server{server},
			Timeout: 20 * time.Second,
			TLS:     config,
		})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		return c
	}

	c := open(&tls.Config{RootCAs: pool, ServerName: "cache.example"})
	require.NoError(t, c.Set(t.Context(), cache.Item{Key: "k", Value: make([]byte, 100_000)}))
	item, err := c.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Len(t, item.Value, 100_000)

	var unknown *tls.CertificateVerificationError
	_, err = open(&tls.Config{RootCAs: pool}).Get(t.Context(), "k")
	require.ErrorAs(t, err, &unknown, "the certificate is for another name than the address")
	_, err = open(&tls.Config{ServerName: "cache.example"}).Get(t.Context(), "k")
	require.ErrorAs(t, err, &unknown, "nobody known has signed it")
}

// certificate writes a certificate for cache.example and its key into the directory, and gives the pool that trusts it.
func certificate(t *testing.T, dir string) *x509.CertPool {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "cache.example"},
		DNSNames:     []string{"cache.example"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	secret, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der},
		"key.pem":  {Type: "EC PRIVATE KEY", Bytes: secret},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

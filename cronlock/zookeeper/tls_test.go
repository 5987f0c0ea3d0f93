package zookeeper_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
	"github.com/scalr-go/scalr/internal/testenv"
)

// identity makes a key and a certificate that vouches for itself: in PEM, and as Go has it.
func identity(t *testing.T, name string) (text []byte, cert tls.Certificate, roots *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	require.NoError(t, pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	cert, err = tls.X509KeyPair(b.Bytes(), b.Bytes())
	require.NoError(t, err)
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(b.Bytes())
	return b.Bytes(), cert, roots
}

// The server's own TLS: it shows who it is and wants the same of its clients. Whoever cannot gets no session, and says why.
func TestTLS(t *testing.T) {
	t.Parallel() // these wait most of the time, and their sessions last
	text, cert, roots := identity(t, "zookeeper.example")
	file := filepath.Join(t.TempDir(), "identity.pem")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	e := testenv.ZooKeeper(t, 1,
		"serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory", "secureClientPort=2182", "ssl.clientAuth=need",
		"ssl.keyStore.location="+file, "ssl.keyStore.type=PEM", "ssl.trustStore.location="+file, "ssl.trustStore.type=PEM",
	)
	open := func(ctx context.Context, config *tls.Config) (*zookeeper.Client, error) {
		address := net.JoinHostPort(e.Servers[0].Host, "2182")
		return zookeeper.Open(ctx, zookeeper.Options{Servers: []string{address}, TLS: config, Root: "/tls"})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := open(ctx, &tls.Config{ServerName: "zookeeper.example", RootCAs: roots, Certificates: []tls.Certificate{cert}})
	require.NoError(t, err)
	require.NoError(t, c.Hold(ctx, "a", func(context.Context, cronlock.Lease) error { return nil }))
	require.NoError(t, c.Close())

	_, stranger, strangers := identity(t, "zookeeper.example")
	for what, c := range map[string]struct {
		config *tls.Config
		want   string
	}{
		"the server is not known":          {&tls.Config{ServerName: "zookeeper.example", RootCAs: strangers, Certificates: []tls.Certificate{cert}}, "unknown authority"},
		"the server has another name":      {&tls.Config{ServerName: "other.example", RootCAs: roots, Certificates: []tls.Certificate{cert}}, "not other.example"},
		"the client shows nothing":         {&tls.Config{ServerName: "zookeeper.example", RootCAs: roots}, "certificate"},
		"the client shows what is unknown": {&tls.Config{ServerName: "zookeeper.example", RootCAs: roots, Certificates: []tls.Certificate{stranger}}, "certificate"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := open(short, c.config)
			require.ErrorContains(t, err, "no session")
			require.ErrorContains(t, err, c.want)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	}
}

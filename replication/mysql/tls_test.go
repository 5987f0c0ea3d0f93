package mysql_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/replication"
)

// certificate makes a self-signed certificate for a name, and the lines of my.cnf that make a server use it.
func certificate(t *testing.T, host string) (pool *x509.CertPool, conf string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := testenv.Dir(t)
	for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600))
	}
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, fmt.Sprintf("ssl_cert = %s/cert.pem\nssl_key = %[1]s/key.pem", dir)
}

// With TLS the engine and the replicas encrypt; a server with another certificate is refused.
func TestTLS(t *testing.T) {
	pool, conf := certificate(t, "db.test")
	nodes := start(t, 2, conf)
	primary, replica := nodes[0], nodes[1]
	exec(t, primary.admin(t), "SET sql_log_bin=0; ALTER USER scalr@'%' REQUIRE SSL; ALTER USER scalr_repl@'%' REQUIRE SSL")

	plain := engine(t, config, nodes...)
	_, err := plain.Observe(t.Context(), primary.Member)
	require.ErrorIs(t, err, replication.ErrAccess)

	c := config
	c.TLS = &tls.Config{RootCAs: pool, ServerName: "db.test"}
	e := engine(t, c, nodes...)
	require.NoError(t, e.Promote(t.Context(), primary.Member, false))
	require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
	within(t, "the replica receives", func() bool { return observe(t, e, replica).Receives })

	_, err = e.Save(t.Context(), replica.Member, primary.Member, io.Discard)
	require.NoError(t, err)

	other, _ := certificate(t, "db.test")
	c.TLS = &tls.Config{RootCAs: other, ServerName: "db.test"}
	_, err = engine(t, c, nodes...).Observe(t.Context(), primary.Member)
	require.ErrorContains(t, err, "certificate")
	for _, kind := range []error{replication.ErrUnreachable, replication.ErrHung} {
		require.NotErrorIs(t, err, kind, "it answers")
	}
}

package ssh_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	xssh "golang.org/x/crypto/ssh"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/provider/providertest"
	"github.com/scalr-go/scalr/provider/ssh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const port = 2222

func newKey(t testing.TB) (xssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	signer, err := xssh.NewSignerFromKey(private)
	require.NoError(t, err)
	block, err := xssh.MarshalPrivateKey(private, "")
	require.NoError(t, err)
	return signer, pem.EncodeToMemory(block)
}

// servers is a cloud whose instances are real SSH servers, and options that reach them.
func servers(t testing.TB) (*local.Cloud, ssh.Options) {
	t.Helper()
	sshd := testenv.Need(t, "sshd")[0]
	if os.Geteuid() == 0 { // which sshd of Debian asks for, and its service would make
		require.NoError(t, os.MkdirAll("/run/sshd", 0o755))
	}
	client, _ := newKey(t)
	host, hostFile := newKey(t)
	image := local.Image{Port: port,
		Prepare: func(_ context.Context, m local.Machine) error {
			file := func(name string) string { return filepath.Join(m.Dir, name) }
			config := fmt.Sprintf("ListenAddress %s:%d\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nStrictModes no\nUsePAM no\n"+
				"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nLogLevel ERROR\nMaxStartups 100\n",
				m.Addr, port, file("host_key"), file("authorized_keys"))
			return errors.Join(os.WriteFile(file("host_key"), hostFile, 0o600),
				os.WriteFile(file("authorized_keys"), xssh.MarshalAuthorizedKey(client.PublicKey()), 0o600),
				os.WriteFile(file("config"), []byte(config), 0o600))
		},
		Command: func(m local.Machine) local.Command {
			return local.Command{Args: []string{sshd, "-D", "-e", "-f", filepath.Join(m.Dir, "config")}}
		},
	}
	me, err := user.Current()
	require.NoError(t, err)
	c := testenv.Cloud(t, map[string]local.Image{"sshd": image})
	return c, ssh.Options{User: me.Username, Signers: []xssh.Signer{client}, HostKey: xssh.FixedHostKey(host.PublicKey()), Port: port}
}

func TestConformance(t *testing.T) {
	c, o := servers(t)
	p, err := ssh.Wrap(c, o)
	require.NoError(t, err)
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		return providertest.Subject{Provider: p, Launch: provider.Launch{Image: "sshd"},
			Unchecked: map[string]string{"Launch/UnknownNames": "this cloud takes any size"}}
	})
}

func running(t *testing.T, c *local.Cloud) provider.Instance {
	t.Helper()
	i, err := c.Launch(t.Context(), provider.Launch{Token: "one", Image: "sshd"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		list, err := c.Instances(t.Context(), nil)
		return err == nil && len(list) == 1 && list[0].State == provider.Running
	}, time.Minute, 10*time.Millisecond)
	return i
}

// A server whose key is not the expected one, and one that does not take ours, are an ErrAuth: no command is run.
func TestKeysAreChecked(t *testing.T) {
	c, o := servers(t)
	i := running(t, c)
	file := filepath.Join(t.TempDir(), "ran")
	other, _ := newKey(t)
	for name, change := range map[string]func(*ssh.Options){
		"host key":   func(o *ssh.Options) { o.HostKey = xssh.FixedHostKey(other.PublicKey()) },
		"client key": func(o *ssh.Options) { o.Signers = []xssh.Signer{other} },
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			change(&o)
			p, err := ssh.Wrap(c, o)
			require.NoError(t, err)
			_, err = p.RunCommand(t.Context(), i.ID, provider.Command{Args: []string{"touch", file}})
			require.ErrorIs(t, err, provider.ErrAuth)
			require.NoFileExists(t, file)
		})
	}
	p, err := ssh.Wrap(c, o)
	require.NoError(t, err)
	_, err = p.RunCommand(t.Context(), i.ID, provider.Command{Args: []string{"touch", file}})
	require.NoError(t, err)
	require.FileExists(t, file)
}

// The environment is on no command line, and one that cannot be is refused without showing it.
func TestEnvironment(t *testing.T) {
	c, o := servers(t)
	i := running(t, c)
	p, err := ssh.Wrap(c, o)
	require.NoError(t, err)
	const secret = "it's \"$HOME\"; `id`\nsecond line"
	r, err := p.RunCommand(t.Context(), i.ID, provider.Command{Args: []string{"sh", "-c", `printf '%s|' "$A" "$B"; cat; tr '\0' ' ' </proc/$PPID/cmdline`},
		Env: []string{"A=" + secret, "B="}, Stdin: strings.NewReader("input|")})
	require.NoError(t, err)
	require.Equal(t, 0, r.Exit)
	require.Contains(t, string(r.Output), secret+"||input|")
	_, err = p.RunCommand(t.Context(), i.ID, provider.Command{Args: []string{"true"}, Env: []string{"hunter2"}})
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, "Env[0]")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestOptions(t *testing.T) {
	_, err := ssh.Wrap(nil, ssh.Options{Port: -1, Timeout: -1})
	for _, want := range []string{"the provider is nil", "Options.User is empty", "Options.Signers is empty", "Options.HostKey is nil", "Options.Port is -1", "Options.Timeout is -1ns"} {
		require.ErrorContains(t, err, want)
	}
}

func Example() {
	_, private, _ := ed25519.GenerateKey(nil)
	key, _ := xssh.NewSignerFromKey(private)
	cloud, err := ssh.Wrap(memcloud.New(memcloud.Options{}), ssh.Options{
		User:    "admin",
		Signers: []xssh.Signer{key},
		HostKey: xssh.FixedHostKey(key.PublicKey()), // the one that the user data gives each instance
	})
	if err != nil {
		panic(err)
	}
	_, ok := provider.As[provider.Commands](cloud)
	fmt.Println("takes commands:", ok)
	// Output: takes commands: true
}

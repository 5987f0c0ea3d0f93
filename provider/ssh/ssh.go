// Package ssh runs commands on the instances of a provider that has no way of its own to do so, over SSH (RFC 4254):
//
//	cloud, err := ssh.Wrap(ec2Cloud, ssh.Options{User: "admin", Signers: []xssh.Signer{key}, HostKey: ca.CheckHostKey})
//
// What [Wrap] gives is the provider with [provider.Commands] besides. Each command has a connection of its own: a handshake is
// three round trips and some milliseconds of processor time, little beside what a command is run for.
//
// # Host keys
//
// The host key is checked always. An instance is new and its address may have been another one's, so a file of known hosts is
// of little use; what serves is a certificate authority whose certificate the image or the user data has (ssh.CertChecker of
// golang.org/x/crypto/ssh), or one host key that the user data sets (ssh.FixedHostKey).
//
// # What the instance needs
//
// A login shell that understands POSIX quoting, sh and dd. The environment of a command, which may hold secrets, is sent over
// its standard input and is seen in no list of processes before the command has it.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scalr-go/scalr/provider"
)

// Options say how instances are reached.
type Options struct {
	// User is the account. Required.
	User string
	// Signers are the keys that the account takes, tried in order. At least one is required.
	Signers []ssh.Signer
	// HostKey checks the key of the server at an address (host:port). Required.
	HostKey ssh.HostKeyCallback
	// Port is where the servers listen; default 22.
	Port int
	// Public connects to the public address of an instance, in place of the private one.
	Public bool
	// Tags are on all instances that commands are run on: the list in which they are looked up is the shorter.
	Tags map[string]string
	// DialContext makes the connections, for example through a bastion. Nil takes net.Dialer's.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// Timeout bounds the connection and the handshake, and what is done to end a command; default 10 s.
	Timeout time.Duration
}

// Provider is a provider whose instances take commands over SSH. It is safe for concurrent use.
type Provider struct {
	provider.Provider
	o Options
}

var (
	_ provider.Commands = (*Provider)(nil)
	_ provider.Wrapper  = (*Provider)(nil)
)

// Wrap gives the provider with commands. It reports every fault of the options at once, by field, and makes no calls.
func Wrap(p provider.Provider, o Options) (*Provider, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ssh: "+format, args...)) }
	if p == nil {
		fault("the provider is nil")
	}
	if o.User == "" {
		fault("Options.User is empty, want an account")
	}
	if len(o.Signers) == 0 {
		fault("Options.Signers is empty, want a key at least")
	}
	if o.HostKey == nil {
		fault("Options.HostKey is nil, want a check of host keys, such as ssh.FixedHostKey or that of a ssh.CertChecker")
	}
	if o.Port < 0 || o.Port > 65535 {
		fault("Options.Port is %d, want 1 to 65535, or 0 for 22", o.Port)
	}
	if o.Timeout < 0 {
		fault("Options.Timeout is %v, want more than 0, or 0 for 10s", o.Timeout)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if o.Port == 0 {
		o.Port = 22
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.DialContext == nil {
		o.DialContext = new(net.Dialer).DialContext
	}
	return &Provider{p, o}, nil
}

// Unwrap implements provider.Wrapper.
func (p *Provider) Unwrap() provider.Provider { return p.Provider }

// address finds where an instance is.
func (p *Provider) address(ctx context.Context, op, id string) (string, error) {
	list, err := p.Instances(ctx, p.o.Tags)
	if err != nil {
		return "", err
	}
	for _, i := range list {
		if i.ID != id || i.State.Gone() {
			continue
		}
		if i.State != provider.Running && i.State != provider.Pending {
			return "", provider.Errorf(op, id, provider.ErrInvalid, "the instance is %s, want it running", i.State)
		}
		var at netip.Addr
		if at = i.Private; p.o.Public {
			at = i.Public
		}
		if !at.IsValid() {
			return "", provider.Errorf(op, id, nil, "the instance has no address yet")
		}
		return net.JoinHostPort(at.String(), strconv.Itoa(p.o.Port)), nil
	}
	return "", provider.Errorf(op, id, provider.ErrNotFound, "there is no such instance, or it is terminated")
}

// connect signs in.
func (p *Provider) connect(ctx context.Context, op, id, addr string) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	conn, err := p.o.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, provider.Errorf(op, id, nil, "%w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	denied := false
	c, channels, requests, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User: p.o.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(p.o.Signers...)},
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			err := p.o.HostKey(host, remote, key)
			denied = err != nil
			return err
		},
	})
	if !stop() && err == nil {
		c.Close()
		err = context.Cause(ctx)
	}
	if err == nil {
		return ssh.NewClient(c, channels, requests), nil
	}
	conn.Close()
	var kind error
	if _, ok := errors.AsType[*ssh.ServerAuthError](err); ok || denied || isAuth(err) {
		kind = provider.ErrAuth
	}
	return nil, provider.Errorf(op, id, kind, "signing in at %s as %q: %w", addr, p.o.User, errors.Join(err, context.Cause(ctx)))
}

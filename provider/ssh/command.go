package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/internal/commandio"
)

// variable is the name of an environment variable.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// errStream is for a stream of the caller's that fails.
var errStream = errors.New("a stream failed")

// RunCommand implements provider.Commands. The instance is looked up by its ID. If the connection breaks while the command
// runs, that is an ErrAmbiguous. When the context ends, the command and its children are killed, but for those that have begun
// a session of their own where the instance has no pkill.
func (p *Provider) RunCommand(ctx context.Context, id string, c provider.Command) (provider.CommandResult, error) {
	const op = "RunCommand"
	var none provider.CommandResult
	if err := ctx.Err(); err != nil {
		return none, provider.Errorf(op, id, nil, "%w", err)
	}
	line, env, err := remote(c)
	if err != nil {
		return none, provider.Errorf(op, id, provider.ErrInvalid, "%w", err)
	}
	addr, err := p.address(ctx, op, id)
	if err != nil {
		return none, err
	}
	client, err := p.connect(ctx, op, id, addr)
	if err != nil {
		return none, err
	}
	defer client.Close()
	r, err := p.run(ctx, client, line, env, c)
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil || errors.Is(err, errStream):
		return none, provider.Errorf(op, id, nil, "%w", err)
	}
	return none, provider.Errorf(op, id, provider.ErrAmbiguous, "%w", err)
}

// remote gives the command line for the login shell, and what goes to its standard input before what the command is to read:
// the environment. The command says the number of its process, which leads a session of its own, in its first line.
func remote(c provider.Command) (line, variables string, err error) {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return "", "", errors.New("no program: Args is empty")
	}
	var env strings.Builder
	for i, pair := range c.Env {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || !variable.MatchString(name) { // the pair itself may be a secret
			return "", "", fmt.Errorf("variable Env[%d] is not KEY=value with a KEY of letters, digits and _", i)
		}
		env.WriteString("export " + name + "=" + quote(value) + "\n")
	}
	script := `echo $$; exec "$@"`
	if env.Len() > 0 {
		script = fmt.Sprintf(`set_env=$(dd bs=1 count=%d 2>/dev/null); eval "$set_env"; unset set_env; %s`, env.Len(), script)
	}
	words := []string{"exec", "/bin/sh", "-c", quote(script), "scalr"}
	for _, a := range c.Args {
		if strings.ContainsRune(a, 0) {
			return "", "", errors.New("zero byte in Args")
		}
		words = append(words, quote(a))
	}
	return strings.Join(words, " "), env.String(), nil
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// run runs a command line, and kills what it started if the context or one of the command's streams ends first.
func (p *Provider) run(ctx context.Context, client *ssh.Client, line, env string, c provider.Command) (provider.CommandResult, error) {
	var none provider.CommandResult
	session, err := client.NewSession()
	if err != nil {
		return none, err
	}
	defer session.Close()
	stdin, err := session.StdinPipe()
	if err != nil {
		return none, err
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return none, err
	}
	var out, errs commandio.Output
	session.Stderr = &errs
	if err := session.Start(line); err != nil {
		return none, err
	}
	killing, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	ended := make(chan struct{})
	var waited error
	go feed(stdin, env, c.Stdin, kill, ended)
	pid := make(chan int, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		r := bufio.NewReader(stdout)
		first, _ := r.ReadString('\n')
		if n, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && n > 1 {
			pid <- n
		}
		close(pid)
		if c.Stdout == nil {
			_, _ = io.Copy(&out, r)
			return
		}
		written := &commandio.Writer{W: c.Stdout}
		if _, err := io.Copy(written, r); err != nil && written.Err != nil {
			kill(fmt.Errorf("%w: Stdout: %w", errStream, written.Err))
		}
	})
	taken := make(chan struct{})
	go func() {
		waited = session.Wait()
		close(ended)
		reading.Wait()
		close(taken)
	}()
	select {
	case <-taken:
	case <-killing.Done():
	}
	if killing.Err() != nil {
		err := errors.Join(context.Cause(killing), p.kill(client, pid))
		client.Close()
		<-ended
		return none, err
	}
	exit, failed := errors.AsType[*ssh.ExitError](waited)
	switch {
	case waited == nil:
		return provider.CommandResult{Output: append(out, errs...)}, nil
	case failed && exit.Signal() != "":
		return provider.CommandResult{Exit: -1, Output: append(out, errs...)}, nil
	case failed:
		return provider.CommandResult{Exit: exit.ExitStatus(), Output: append(out, errs...)}, nil
	}
	return none, waited
}

// feed gives a command its environment and its input. A command that reads no more is none of its business.
func feed(to io.WriteCloser, env string, from io.Reader, kill context.CancelCauseFunc, ended <-chan struct{}) {
	defer to.Close()
	if _, err := io.WriteString(to, env); err != nil || from == nil {
		return
	}
	read := &commandio.Reader{R: from}
	if _, err := io.Copy(to, read); err != nil && read.Err != nil {
		kill(fmt.Errorf("%w: Stdin: %w", errStream, read.Err))
		<-ended // before it sees an end of its input
	}
}

// kill ends the session that a command leads.
func (p *Provider) kill(client *ssh.Client, pid <-chan int) error {
	bound := time.AfterFunc(p.o.Timeout, func() { client.Close() })
	defer bound.Stop()
	n, ok := <-pid
	if !ok {
		return errors.New("it is not known whether the command began")
	}
	session, err := client.NewSession()
	if err != nil {
		return fmt.Errorf("the command could not be killed: %w", err)
	}
	defer session.Close()
	if err := session.Run(fmt.Sprintf("kill -9 -- -%[1]d; pkill -KILL -s %[1]d; true", n)); err != nil {
		return fmt.Errorf("the command could not be killed: %w", err)
	}
	return nil
}

// isAuth reports whether a handshake failed since no key was taken; the package has no type for it.
func isAuth(err error) bool { return strings.Contains(err.Error(), "unable to authenticate") }

package ssh

import (
	"bufio"
	"bytes"
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
)

// outputLimit is how much is kept of each stream of a command's output.
const outputLimit = 1 << 20

// variable is the name of an environment variable.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// RunCommand implements provider.Commands. The instance is looked up by its ID. If the connection breaks while the command
// runs, that is an ErrAmbiguous. When the context ends, the command and its children are killed, but for those that have begun
// a session of their own where the instance has no pkill.
func (p *Provider) RunCommand(ctx context.Context, id string, c provider.Command) (provider.CommandResult, error) {
	const op = "RunCommand"
	var none provider.CommandResult
	if err := ctx.Err(); err != nil {
		return none, provider.Errorf(op, id, nil, "%w", err)
	}
	line, stdin, err := remote(c)
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
	r, err := p.run(ctx, client, line, stdin)
	switch {
	case err == nil:
		return r, nil
	case ctx.Err() != nil:
		return none, provider.Errorf(op, id, nil, "%w", err)
	}
	return none, provider.Errorf(op, id, provider.ErrAmbiguous, "%w", err)
}

// remote gives the command line for the login shell, and what goes to its standard input: the environment, and then what the
// command is to read. The command says the number of its process, which leads a session of its own, in its first line.
func remote(c provider.Command) (line string, stdin []byte, err error) {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return "", nil, errors.New("Args is empty, want a program")
	}
	var env strings.Builder
	for i, pair := range c.Env {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || !variable.MatchString(name) { // the pair itself may be a secret
			return "", nil, fmt.Errorf("Env[%d] is not KEY=value with a KEY of letters, digits and _", i)
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
			return "", nil, errors.New("Args has a zero byte")
		}
		words = append(words, quote(a))
	}
	return strings.Join(words, " "), append([]byte(env.String()), c.Stdin...), nil
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// run runs a command line, and kills what it started if the context ends first.
func (p *Provider) run(ctx context.Context, client *ssh.Client, line string, stdin []byte) (provider.CommandResult, error) {
	var none provider.CommandResult
	session, err := client.NewSession()
	if err != nil {
		return none, err
	}
	defer session.Close()
	stdout, err := session.StdoutPipe()
	if err != nil {
		return none, err
	}
	var out, errs bounded
	session.Stdin, session.Stderr = bytes.NewReader(stdin), &errs
	if err := session.Start(line); err != nil {
		return none, err
	}
	pid := make(chan int, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		r := bufio.NewReader(stdout)
		first, _ := r.ReadString('\n')
		if n, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && n > 1 {
			pid <- n
		}
		close(pid)
		_, _ = io.Copy(&out, r)
	})
	done := make(chan error, 1)
	go func() {
		err := session.Wait()
		reading.Wait()
		done <- err
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err := errors.Join(context.Cause(ctx), p.kill(client, pid))
		client.Close()
		<-done
		return none, err
	}
	exit, failed := errors.AsType[*ssh.ExitError](err)
	switch {
	case err == nil:
		return provider.CommandResult{Output: append(out.b, errs.b...)}, nil
	case failed && exit.Signal() != "":
		return provider.CommandResult{Exit: -1, Output: append(out.b, errs.b...)}, nil
	case failed:
		return provider.CommandResult{Exit: exit.ExitStatus(), Output: append(out.b, errs.b...)}, nil
	}
	return none, err
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

// bounded keeps the beginning of what is written to it.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), outputLimit-len(w.b))]...)
	return len(p), nil
}

// isAuth reports whether a handshake failed since no key was taken; the package has no type for it.
func isAuth(err error) bool { return strings.Contains(err.Error(), "unable to authenticate") }

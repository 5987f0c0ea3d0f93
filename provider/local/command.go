package local

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// outputLimit is how much is kept of each stream of a command's output.
const outputLimit = 1 << 20

// gate is the script before each command: the command runs once it has been marked.
const gate = `read -r go <&3 || exit; exec 3<&-; exec "$@"`

// RunCommand runs the command on this machine as a part of the instance: in its directory, with its environment. Processes
// that the command leaves behind are the instance's own, unless the context ends before the command does: then they are
// killed with it. The instance must be running.
func (c *Cloud) RunCommand(ctx context.Context, id string, cmd provider.Command) (provider.CommandResult, error) {
	const op = "RunCommand"
	if err := ctx.Err(); err != nil {
		return provider.CommandResult{}, fail(op, id, err)
	}
	r, err := get[instance](c.store, id)
	if !isInstance(id) || errors.Is(err, fs.ErrNotExist) || err == nil && r.Phase.gone() {
		return provider.CommandResult{}, provider.Errorf(op, id, provider.ErrNotFound,
			"there is no such instance, or it is terminated")
	}
	if err != nil {
		return provider.CommandResult{}, fail(op, id, err)
	}
	if i := c.show(ctx, r); i.State != provider.Running && i.State != provider.Pending {
		return provider.CommandResult{}, provider.Errorf(op, id, provider.ErrInvalid,
			"the instance is %s, want it running", i.State)
	}
	m := c.machine(r)
	args, env, err := resolve(op, Command{Args: cmd.Args, Env: cmd.Env}, m)
	if err != nil {
		return provider.CommandResult{}, fail(op, id, err)
	}
	// No command begins while the instance stands still for a snapshot.
	unlock, err := c.store.lock(ctx, id)
	if err != nil {
		return provider.CommandResult{}, fail(op, id, err)
	}
	mark := commandMark(newID("c-"), id)
	result, err := runMarked(ctx, mark, m.Dir, args, append(env, mark.env), cmd.Stdin, unlock)
	return result, fail(op, id, err)
}

// runMarked runs a command that bears the mark, and its children do. It calls marked when whoever looks for the mark finds
// the command, or when it will not run.
func runMarked(ctx context.Context, mark mark, dir string, args, env []string, stdin []byte, marked func()) (
	provider.CommandResult, error) {
	marked = sync.OnceFunc(marked)
	defer marked()
	wait, open, err := os.Pipe()
	if err != nil {
		return provider.CommandResult{}, err
	}
	defer wait.Close()
	defer open.Close()
	var stdout, stderr bounded
	x := exec.Command("/bin/sh", append([]string{"-c", gate, "scalr"}, args...)...)
	x.Dir, x.Env, x.Stdout, x.Stderr, x.ExtraFiles, x.SysProcAttr = dir, env, &stdout, &stderr, []*os.File{wait}, groupLeader()
	if len(stdin) > 0 {
		x.Stdin = bytes.NewReader(stdin)
	}
	// What a command leaves behind may hold its output open: that is not waited for.
	x.WaitDelay = 100 * time.Millisecond
	if err := x.Start(); err != nil {
		return provider.CommandResult{}, err
	}
	mark.put(x.Process.Pid)
	marked()
	open.WriteString("go\n")
	done := make(chan error, 1)
	go func() { done <- x.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		err := killTree(clean, mark)
		if err == nil {
			<-done
		}
		return provider.CommandResult{}, errors.Join(ctx.Err(), err)
	}
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed && !errors.Is(err, exec.ErrWaitDelay) {
		return provider.CommandResult{}, err
	}
	return provider.CommandResult{Exit: x.ProcessState.ExitCode(), Output: append(stdout.b, stderr.b...)}, nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), outputLimit-len(w.b))]...)
	return len(p), nil
}

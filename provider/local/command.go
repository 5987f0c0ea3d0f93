package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/internal/commandio"
)

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
	result, err := runMarked(ctx, mark, m.Dir, args, append(env, mark.env), cmd, unlock)
	return result, fail(op, id, err)
}

// runMarked runs a command that bears the mark, and its children do. It calls marked when whoever looks for the mark finds
// the command, or when it will not run.
func runMarked(ctx context.Context, mark mark, dir string, args, env []string, cmd provider.Command, marked func()) (
	provider.CommandResult, error) {
	marked = sync.OnceFunc(marked)
	defer marked()
	var none provider.CommandResult
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var pipes [4][2]*os.File // the gate, and the command's input, output and errors
	for n := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			return none, err
		}
		pipes[n], files = [2]*os.File{r, w}, append(files, r, w)
	}
	gatePipe, in, out, errs := pipes[0], pipes[1], pipes[2], pipes[3]
	x := exec.Command("/bin/sh", append([]string{"-c", gate, "scalr"}, args...)...)
	x.Dir, x.Env, x.ExtraFiles, x.SysProcAttr = dir, env, []*os.File{gatePipe[0]}, groupLeader()
	x.Stdin, x.Stdout, x.Stderr = in[0], out[1], errs[1]
	if err := x.Start(); err != nil {
		return none, err
	}
	for _, f := range []*os.File{gatePipe[0], in[0], out[1], errs[1]} {
		f.Close() // the command's ends
	}
	mark.put(x.Process.Pid)
	marked()

	killing, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	var stdout, stderr commandio.Output
	var to io.Writer = &stdout
	if cmd.Stdout != nil {
		to = cmd.Stdout
	}
	ended := make(chan struct{})
	go feed(in[1], cmd.Stdin, kill, ended)
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		var both sync.WaitGroup
		both.Go(func() { take(out[0], to, kill, ended) })
		both.Go(func() { take(errs[0], &stderr, kill, ended) })
		both.Wait()
	}()
	gatePipe[1].WriteString("go\n")
	var waited error
	go func() {
		waited = x.Wait()
		close(ended)
	}()
	for _, step := range []<-chan struct{}{ended, taken} {
		select {
		case <-step:
		case <-killing.Done():
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			err := killTree(clean, mark)
			if err == nil {
				<-ended
			}
			return none, errors.Join(context.Cause(killing), err)
		}
	}
	if killing.Err() != nil { // the last that it wrote was not taken
		return none, context.Cause(killing)
	}
	if _, failed := errors.AsType[*exec.ExitError](waited); waited != nil && !failed {
		return none, waited
	}
	return provider.CommandResult{Exit: x.ProcessState.ExitCode(), Output: append(stdout, stderr...)}, nil
}

// feed gives a command its input. A command that reads no more is none of its business.
func feed(to *os.File, from io.Reader, kill context.CancelCauseFunc, ended <-chan struct{}) {
	defer to.Close()
	if from == nil {
		return
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-ended:
			to.Close() // its children may hold the other end
		case <-stop:
		}
	}()
	read := &commandio.Reader{R: from}
	if _, err := io.Copy(to, read); err != nil && read.Err != nil {
		kill(fmt.Errorf("reading Stdin: %w", read.Err))
		<-ended // before it sees an end of its input
	}
}

// take takes what a command writes. What a command leaves behind may hold its output open: that is not waited for, only what
// is in the pipe when the command ends.
func take(from *os.File, to io.Writer, kill context.CancelCauseFunc, ended <-chan struct{}) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-ended:
			from.SetReadDeadline(time.Now())
		case <-stop:
		}
	}()
	buf := make([]byte, 64<<10)
	write := func(n int) bool {
		_, err := to.Write(buf[:n])
		if err != nil {
			kill(fmt.Errorf("writing to Stdout: %w", err))
		}
		return err == nil
	}
	for {
		n, err := from.Read(buf)
		if n > 0 && !write(n) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return
		}
	}
	from.SetReadDeadline(time.Time{})
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	for left := pipeLimit; left > 0; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n = readNow(fd, buf)
			return true
		})
		if err != nil || n <= 0 || !write(n) {
			return
		}
		left -= n
	}
}

// pipeLimit is more than a pipe holds (pipe(7)).
const pipeLimit = 1 << 20

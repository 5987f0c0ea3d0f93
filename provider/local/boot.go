package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// outputFile is where a program's output goes, in the machine's directory.
const outputFile = "output.log"

// supervisor is the script over each program. It says who it is and waits: if the line that it waits for does not come,
// the program that launched it has died before its record was complete. At the end it writes the exit status down, which
// nobody else would know, since its parent is long gone.
const supervisor = `exit=$1 log=$2; shift 2
end() { echo "$1" >"$exit.tmp" && mv -f "$exit.tmp" "$exit"; exit; }
echo $$
exec >/dev/null 2>&1
read -r go || end interrupted
exec </dev/null
"$@" >>"$log" 2>&1
end $?`

// errGone: the instance is no longer meant to run.
var errGone = errors.New("it was switched off or terminated meanwhile")

// boot starts the program of r, after killing what an earlier start of it has left unless it is a fresh instance. The caller
// holds the instance's lock. When it fails, nothing has been started.
func (c *Cloud) boot(ctx context.Context, op string, r *instance, fresh bool) error {
	err := c.tryBoot(ctx, op, r, fresh)
	if err != nil {
		// Whoever stops or terminates the instance kills what is being started: that is why it failed.
		if now, e := get[instance](c.store, r.ID); e == nil && now.Phase != phaseOn {
			return errGone
		}
	}
	return err
}

func (c *Cloud) tryBoot(ctx context.Context, op string, r *instance, fresh bool) error {
	im, err := c.image(op, *r)
	if err != nil {
		return err
	}
	m := c.machine(*r)
	if !r.Prepared {
		if err := c.prepare(ctx, im, m); err != nil {
			return err
		}
	}
	c.step("prepared")
	if err := c.link(*r); err != nil {
		return err
	}
	// A snapshot of a volume that was free may still be under way. It is no longer free, so no other one can begin.
	for _, v := range r.Volumes {
		unlock, err := c.store.lock(ctx, v)
		if err != nil {
			return err
		}
		unlock()
	}
	args, env, err := resolve(op, im.Command(m), m)
	if err != nil {
		return err
	}
	mark := instanceMark(r.ID)
	if !fresh {
		if err := killTree(ctx, mark); err != nil {
			return err
		}
	}
	if im.Starting != nil {
		if err := im.Starting(ctx, m); err != nil {
			return fmt.Errorf("starting an instance of image %s: %w", m.Image, err)
		}
	}
	exit := c.store.file(r.ID, ".exit")
	if err := os.Remove(exit); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	pid, gate, err := spawn(ctx, m.Dir, env, append([]string{exit, filepath.Join(m.Dir, outputFile)}, args...))
	if err != nil {
		return err
	}
	defer gate.Close() // without a line, the supervisor ends
	c.step("spawned")
	proc, err := identify(pid)
	if err != nil {
		return err
	}
	mark.put(pid)
	c.step("marked")
	err = c.store.locked(ctx, func() error {
		now, err := get[instance](c.store, r.ID)
		if err != nil {
			return err
		}
		if now.Phase != phaseOn {
			return errGone
		}
		now.Prepared, now.Proc, now.Ready = true, proc, false
		now.Boot++
		*r = now
		return c.store.put(now)
	})
	if err != nil {
		return err
	}
	c.step("recorded")
	if _, err := gate.WriteString("go\n"); err != nil {
		return fmt.Errorf("supervisor of %s: %w", r.ID, err)
	}
	c.step("started")
	return nil
}

// image is what the machine runs.
func (c *Cloud) image(op string, r instance) (Image, error) {
	if r.Balancer != nil {
		return c.haproxyImage(*r.Balancer)
	}
	im, ok := c.opts.Images[r.Launch.Image]
	if !ok {
		return Image{}, provider.Errorf(op, r.ID, provider.ErrInvalid, "Image is %q, which this program does not have", r.Launch.Image)
	}
	return im, nil
}

// prepare gives the machine an empty directory and lets its image fill it.
func (c *Cloud) prepare(ctx context.Context, im Image, m Machine) error {
	if err := os.RemoveAll(m.Dir); err != nil {
		return err
	}
	if err := os.Mkdir(m.Dir, 0o700); err != nil {
		return err
	}
	if im.Prepare == nil {
		return nil
	}
	if err := im.Prepare(ctx, m); err != nil {
		return fmt.Errorf("preparing an instance of image %s: %w", m.Image, err)
	}
	return nil
}

// resolve checks a command and finds its program.
func resolve(op string, cmd Command, m Machine) (args, env []string, err error) {
	if len(cmd.Args) == 0 || cmd.Args[0] == "" {
		return nil, nil, provider.Errorf(op, m.ID, provider.ErrInvalid, "the command of image %s has no program", m.Image)
	}
	for _, s := range append(cmd.Args[:len(cmd.Args):len(cmd.Args)], cmd.Env...) {
		if strings.ContainsRune(s, 0) {
			return nil, nil, provider.Errorf(op, m.ID, provider.ErrInvalid, "the command of image %s has a NUL byte", m.Image)
		}
	}
	program, err := lookPath(cmd.Args[0], m.Dir)
	if err != nil {
		return nil, nil, provider.Errorf(op, m.ID, provider.ErrInvalid, "the command of image %s: %w", m.Image, err)
	}
	return append([]string{program}, cmd.Args[1:]...), environ(m, cmd.Env), nil
}

// lookPath finds a program as the Command's doc says.
func lookPath(program, dir string) (string, error) {
	if strings.Contains(program, "/") && !filepath.IsAbs(program) {
		program = filepath.Join(dir, program)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// spawn starts a supervisor in a session of its own. It waits, until the gate gets a line, before it runs the program.
//
// setsid(1) forks when it leads a process group, and its parent half ends at once. The supervisor is thus no child of
// this program, which need not reap it.
func spawn(ctx context.Context, dir string, env, args []string) (pid int, gate *os.File, err error) {
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		return 0, nil, fmt.Errorf("%w (Debian package util-linux)", err)
	}
	stdin, gate, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer stdin.Close()
	defer func() {
		if err != nil {
			gate.Close()
		}
	}()
	hello, stdout, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer hello.Close()
	cmd := exec.Command(setsid, append([]string{"/bin/sh", "-c", supervisor, "scalr"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.SysProcAttr = dir, env, stdin, stdout, groupLeader()
	err = cmd.Run()
	stdout.Close()
	if err != nil {
		return 0, nil, fmt.Errorf("starting a supervisor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { hello.SetReadDeadline(time.Now()) })
	defer stop()
	line, err := bufio.NewReader(hello).ReadString('\n')
	if err == nil {
		pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		return 0, nil, errors.Join(ctx.Err(), fmt.Errorf("the supervisor did not say who it is: %w", err))
	}
	return pid, gate, nil
}

// link gives the machine's directory one symbolic link for each volume that the instance has, and no other.
func (c *Cloud) link(r instance) error {
	dir := filepath.Join(c.Dir(r.ID), volumesDir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if len(r.Volumes) == 0 {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, v := range r.Volumes {
		if err := os.Symlink(c.Dir(v), filepath.Join(dir, v)); err != nil {
			return err
		}
	}
	return nil
}

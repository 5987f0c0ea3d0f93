package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// freeze stops all processes that bear the mark and returns once each of their threads stands still. Those that stood
// still before are not woken by thaw.
func freeze(ctx context.Context, m mark) (thaw func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		f := frost{mark: m}
		err := f.fall(ctx)
		if err == nil {
			return f.thaw, nil
		}
		f.thaw()
		if !errors.Is(err, errMoving) {
			return nil, err
		}
		// A parent waits for a vfork(2) without being stopped, and its child is, before it calls exec: another time.
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return nil, fmt.Errorf("the processes do not stand still: %w", err)
		}
	}
}

// frost is what one attempt to freeze has done.
type frost struct {
	mark mark
	pids []int
	ends []func() // of the guards
}

var errMoving = errors.New("some processes still move")

// fall stops the processes until two searches in a row have found nothing that moves.
func (f *frost) fall(ctx context.Context) error {
	seen := map[int]bool{}
	calm := 0
	for wait := time.Millisecond; wait <= 32*time.Millisecond; wait *= 2 {
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		for {
			pids, err := members(f.mark)
			if err != nil {
				return err
			}
			var fresh []int
			still := true
			for _, pid := range pids {
				if s := standsStill(pid); !s {
					still = false
					if !seen[pid] {
						fresh = append(fresh, pid)
					}
				}
				seen[pid] = true
			}
			if calm++; !still {
				calm = 0
			}
			if calm == 2 {
				return nil
			}
			if err := f.stop(fresh); err != nil {
				return err
			}
			if !still {
				break
			}
		}
	}
	return errMoving
}

// stop stops processes. A helper wakes them when the pipe to this program breaks: they must not stand still for ever
// because this program has died.
func (f *frost) stop(pids []int) error {
	if len(pids) == 0 {
		return nil
	}
	end, err := guard(pids)
	if err != nil {
		return err
	}
	f.pids, f.ends = append(f.pids, pids...), append(f.ends, end)
	for _, pid := range pids {
		f.mark.signal(pid, syscall.SIGSTOP)
	}
	return nil
}

func (f *frost) thaw() {
	for _, pid := range f.pids {
		f.mark.signal(pid, syscall.SIGCONT)
	}
	for _, end := range f.ends {
		end()
	}
}

// guard starts a helper that wakes the processes when end is called or this program dies.
func guard(pids []int) (end func(), err error) {
	stdin, gate, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	args := []string{"-c", `read -r end; kill -s CONT -- "$@" 2>/dev/null`, "scalr"}
	for _, pid := range pids {
		args = append(args, strconv.Itoa(pid))
	}
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.SysProcAttr = "/", []string{}, stdin, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		gate.Close()
		return nil, err
	}
	return func() {
		gate.Close()
		cmd.Wait()
	}, nil
}

// standsStill reports whether every thread of the process is stopped. The kernel's own threads that work for it
// (io_uring) finish what was asked of them and begin nothing new.
func standsStill(pid int) bool {
	tasks, err := os.ReadDir(proc(pid, "task"))
	if err != nil {
		return true // it has ended
	}
	for _, t := range tasks {
		path := filepath.Join(proc(pid, "task"), t.Name())
		s, err := readStat(filepath.Join(path, "stat"))
		if err != nil || s.state == 'T' || s.state == 't' || s.state == 'Z' || s.state == 'X' {
			continue
		}
		if name, err := os.ReadFile(filepath.Join(path, "comm")); err == nil && strings.HasPrefix(string(name), "iou-") {
			continue
		}
		return false
	}
	return true
}

// awaitStop waits until the processes that a SIGSTOP was sent to stand still, for a second at most. Other signals it does not
// wait for.
func awaitStop(ctx context.Context, pids []int, sig os.Signal) error {
	for deadline := time.Now().Add(time.Second); sig == syscall.SIGSTOP && time.Now().Before(deadline); {
		if !slices.ContainsFunc(pids, func(pid int) bool { return !supervises(pid) && !standsStill(pid) }) {
			return nil
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

package local

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"syscall"
	"time"
)

// mark is what the processes of an instance, or of one command on it, have in common.
type mark struct {
	env        string // "KEY=value"
	soft, hard uint64 // of RLIMIT_RSS; 0 where the mark does not say
}

// Marks leave the upper bit alone (it belongs to RLIM_INFINITY) and differ in the next one, so that the limit of a
// command, which is the soft one, is below that of its instance, which is the hard one.
const (
	instanceBit = uint64(1) << 62
	commandBit  = uint64(1) << 61
)

func instanceMark(id string) mark {
	h := instanceBit | hash(id)&(commandBit-1)
	return mark{env: "SCALR_INSTANCE=" + id, soft: h, hard: h}
}

// commandMark is for the processes of one command on an instance, which bear the instance's mark as well.
func commandMark(command, id string) mark {
	return mark{env: "SCALR_COMMAND=" + command, soft: commandBit | hash(command)&(commandBit-1), hard: instanceMark(id).hard}
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// procID names a process so that no later process can be taken for it.
type procID struct {
	PID   int
	Start uint64 // in clock ticks since the machine was started
	Boot  string // the kernel's boot_id
}

// killTree kills what bears the mark until two searches in a row have found nothing: one search can miss a process that
// is born while it runs.
func killTree(ctx context.Context, m mark) error {
	return killWhile(ctx, m, func() error { return nil })
}

// killWhile is killTree until may gives an error. It is asked between a search and the kill, so that what was born after
// it had changed its mind lives.
func killWhile(ctx context.Context, m mark, may func() error) error {
	empty := 0
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := members(m)
		if err != nil {
			return err
		}
		if len(pids) > 0 {
			empty = 0
		} else if empty++; empty == 2 {
			return nil
		} else {
			continue
		}
		if err := may(); err != nil {
			return err
		}
		for _, pid := range pids {
			// A process that cannot be signalled has ended, or is found by the next search.
			m.signal(pid, syscall.SIGKILL)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// endTree asks the processes to end and gives them some time.
func endTree(ctx context.Context, m mark, grace time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	pids, err := members(m)
	if err != nil {
		return
	}
	for _, pid := range pids {
		m.signal(pid, syscall.SIGTERM)
	}
	for len(pids) > 0 && err == nil && sleep(ctx, 5*time.Millisecond) == nil {
		pids, err = members(m)
	}
}

// signal signals a process unless it is no longer one that bears the mark.
func (m mark) signal(pid int, sig os.Signal) error {
	// On Linux the handle is a pidfd where the kernel has them: from here on it means this process and no later one.
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer p.Release()
	if !m.on(pid) {
		return os.ErrProcessDone
	}
	return p.Signal(sig)
}

// sleep waits for d, or gives the context's error; it gives it also where there is nothing to wait for.
func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

var errLocked = errors.New("locked")

// lockFile is tryLockFile until the context ends.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		unlock, err = tryLockFile(path)
		if err == nil || !errors.Is(err, errLocked) {
			return unlock, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, err)
		}
	}
}

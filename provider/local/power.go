package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Stop kills every process of the instance, and returns nil only when a search has found none. Volumes and the directory
// stay. It waits for nobody: who fences cannot wait for a launch or a snapshot to end.
func (c *Cloud) Stop(ctx context.Context, id string) error {
	const op = "Stop"
	if !isInstance(id) {
		return fail(op, id, ctx.Err())
	}
	gone, err := c.setPhase(ctx, id, phaseStopping)
	if gone || err != nil {
		return fail(op, id, err)
	}
	c.step("stopping")
	return fail(op, id, c.switchOff(ctx, id))
}

// switchOff completes a Stop. A launch or a start that is under way sees that the instance is Stopping before its program
// runs; a start that comes later wins.
func (c *Cloud) switchOff(ctx context.Context, id string) error {
	overruled := func() error {
		r, err := get[instance](c.store, id)
		if err == nil && r.Phase == phaseOn {
			err = errors.New("it was started again meanwhile")
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	if err := killWhile(ctx, instanceMark(id), overruled); err != nil {
		return err
	}
	return c.store.locked(ctx, func() error {
		r, err := get[instance](c.store, id)
		if errors.Is(err, fs.ErrNotExist) || err == nil && r.Phase != phaseStopping {
			return overruled()
		}
		if err != nil {
			return err
		}
		r.Phase = phaseOff
		return c.store.put(r)
	})
}

// setPhase says what the instance is meant to be, unless it is gone or about to be.
func (c *Cloud) setPhase(ctx context.Context, id string, p phase) (gone bool, err error) {
	err = c.store.locked(ctx, func() error {
		r, err := get[instance](c.store, id)
		if errors.Is(err, fs.ErrNotExist) || r.Phase.gone() {
			gone = true
			return nil
		}
		if err != nil || r.Phase == p {
			return err
		}
		r.Phase = p
		return c.store.put(r)
	})
	return gone, err
}

// Start runs the instance's program again, in the same directory, at the same address, with the same volumes. It also
// starts an instance that is Failed. The image must be known here.
func (c *Cloud) Start(ctx context.Context, id string) error {
	return c.restart(ctx, "Start", id, false)
}

// Reboot kills every process of the instance and runs its program again.
func (c *Cloud) Reboot(ctx context.Context, id string) error {
	return c.restart(ctx, "Reboot", id, true)
}

func (c *Cloud) restart(ctx context.Context, op, id string, force bool) error {
	gone := provider.Errorf(op, id, provider.ErrNotFound, "there is no such instance, or it is terminated")
	if !isInstance(id) {
		return gone
	}
	unlock, err := c.store.lock(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return gone
	}
	if err != nil {
		return fail(op, id, err)
	}
	defer unlock()
	r, err := get[instance](c.store, id)
	if err != nil {
		return fail(op, id, err)
	}
	if r.Phase.gone() {
		return gone
	}
	if _, ok := c.opts.Images[r.Launch.Image]; !ok {
		return provider.Errorf(op, id, provider.ErrInvalid, "Image is %q, which this program does not have", r.Launch.Image)
	}
	if !force && c.judge(ctx, r) == up {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fail(op, id, err) // it may run all the same
	}
	if isGone, err := c.setPhase(ctx, id, phaseOn); err != nil {
		return fail(op, id, err)
	} else if isGone {
		return gone
	}
	r.Phase = phaseOn
	err = c.boot(ctx, op, &r, false)
	if err == nil {
		return nil
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if errors.Is(err, errGone) {
		return provider.Errorf(op, id, nil, "%w", err)
	}
	_, off := c.setPhase(clean, id, phaseStopping)
	return fail(op, id, errors.Join(err, off, c.switchOff(clean, id)))
}

// Signal sends a signal to every process of the instance or the balancer but the supervisor, waiting for the first one of an instance that
// has just been started: SIGKILL is a crash, SIGSTOP a machine that hangs, SIGCONT one that goes on. It is meant for
// drills, and is no part of a cloud. After SIGSTOP it waits until they stand still, for a second at most: one that waits within the
// kernel is stopped when it comes back.
func (c *Cloud) Signal(ctx context.Context, id string, sig os.Signal) error {
	const op = "Signal"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	mark := instanceMark(id)
	for wait := time.Duration(0); ; wait = time.Millisecond {
		if err := sleep(ctx, wait); err != nil {
			return fail(op, id, err)
		}
		r, err := get[instance](c.store, id)
		if errors.Is(err, fs.ErrNotExist) {
			return provider.Errorf(op, id, provider.ErrNotFound, "there is no such instance")
		}
		if err != nil {
			return fail(op, id, err)
		}
		alive := r.Proc.alive()
		pids, err := members(mark)
		if err != nil {
			return fail(op, id, err)
		}
		sent := false
		for _, pid := range pids {
			if !supervises(pid) {
				sent = mark.signal(pid, sig) == nil || sent
			}
		}
		if sent {
			return fail(op, id, awaitStop(ctx, pids, sig))
		}
		if !alive {
			return provider.Errorf(op, id, nil, "it has no process that could be signalled")
		}
	}
}

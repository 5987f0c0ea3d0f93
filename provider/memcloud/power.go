package memcloud

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Stop implements provider.Power. An instance that is Failed stays so: its machine does not run.
func (c *Cloud) Stop(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "Stop", ID: id}, func(now time.Time) error {
		x, i := c.instances.get(now, id)
		if x == nil || i.State != provider.Pending && i.State != provider.Running {
			return nil
		}
		m := c.machines[id]
		m.hung = false
		c.turn(now, m, provider.Stopped, "stopped by a call")
		c.change(now, id, x.tags)
		return nil
	})
}

// Start implements provider.Power.
func (c *Cloud) Start(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "Start", ID: id}, func(now time.Time) error {
		x, i := c.instances.get(now, id)
		switch {
		case x == nil:
			return provider.Errorf("Start", id, provider.ErrNotFound, "the instance does not exist")
		case i.State == provider.Pending || i.State == provider.Running:
			return nil
		case i.State != provider.Stopped:
			return provider.Errorf("Start", id, provider.ErrInvalid, "the instance is %s, want it stopped", i.State)
		}
		c.turn(now, c.machines[id], provider.Pending, "")
		c.boot(now, c.machines[id])
		c.change(now, id, x.tags)
		return nil
	})
}

// Reboot implements provider.Power. The instance stays Running, and hangs no more.
func (c *Cloud) Reboot(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "Reboot", ID: id}, func(now time.Time) error {
		x, i := c.instances.get(now, id)
		switch {
		case x == nil:
			return provider.Errorf("Reboot", id, provider.ErrNotFound, "the instance does not exist")
		case i.State == provider.Pending:
			return provider.Errorf("Reboot", id, nil, "the instance is %s, want it running", i.State)
		case i.State != provider.Running:
			return provider.Errorf("Reboot", id, provider.ErrInvalid, "the instance is %s, want it running", i.State)
		}
		c.machines[id].hung = false
		c.change(now, id, x.tags)
		return nil
	})
}

// RunCommand implements provider.Commands by Options.Command. On an instance that hangs, it waits for the context's end.
func (c *Cloud) RunCommand(ctx context.Context, id string, cmd provider.Command) (provider.CommandResult, error) {
	var i provider.Instance
	var hung bool
	var result provider.CommandResult
	find := func(now time.Time) error {
		x, present := c.instances.get(now, id)
		switch {
		case x == nil:
			return provider.Errorf("RunCommand", id, provider.ErrNotFound, "the instance does not exist")
		case len(cmd.Args) == 0:
			return provider.Errorf("RunCommand", id, provider.ErrInvalid, "Args is empty, want a program")
		case c.opts.Command == nil:
			return provider.Errorf("RunCommand", id, errors.ErrUnsupported, "memcloud.Options.Command is nil")
		case present.State == provider.Terminated:
			return provider.Errorf("RunCommand", id, provider.ErrNotFound, "the instance is %s", present.State)
		case present.State != provider.Running:
			return provider.Errorf("RunCommand", id, nil, "the instance is %s, want it running", present.State)
		}
		i, hung = *present, c.machines[id].hung
		return nil
	}
	call := Call{Method: "RunCommand", ID: id}
	err := c.call(ctx, call, find, func() error {
		if hung {
			<-ctx.Done()
			return ended(ctx, call, provider.ErrAmbiguous)
		}
		i.Tags = maps.Clone(i.Tags)
		var err error
		if result, err = c.opts.Command(ctx, i, cmd); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ended(ctx, call, provider.ErrAmbiguous)
		}
		return failed(call, err)
	})
	if err != nil {
		return provider.CommandResult{}, err
	}
	return result, nil
}

package openstack

import (
	"context"
	"net/url"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/scalr-go/scalr/provider"
)

// Stop switches the server off and returns when Nova says that it is. The operating system is asked first, for as long as
// the cloud's shutdown_timeout or the image's os_shutdown_timeout says; 0 there makes it immediate.
func (c *Cloud) Stop(ctx context.Context, id string) error {
	const op = "Stop"
	asked := false
	err := poll(ctx, func() (bool, error) {
		s, err := c.server(ctx, id)
		switch {
		case is(err, 404):
			return true, nil
		case err != nil:
			return false, err
		case s.state().Gone():
			return s.state() == provider.Terminated, nil
		case s.Status == "SHUTOFF" || s.Status == "SHELVED_OFFLOADED" || s.Status == "SHELVED" || s.Status == "SUSPENDED":
			return s.TaskState == "", nil
		case s.Status == "ERROR" && asked:
			return false, provider.Errorf(op, id, nil, "the server has failed: %s", s.Fault.Message)
		case s.TaskState == "powering-off":
			asked = true
			return false, nil
		case s.Status == "PAUSED": // it does nothing, and Nova stops only what is not paused
			err = servers.Unpause(ctx, c.compute, url.PathEscape(id)).ExtractErr()
		default:
			err = servers.Stop(ctx, c.compute, url.PathEscape(id)).ExtractErr()
			asked = asked || err == nil
		}
		if is(err, 404) || is(err, 409) { // it is gone, or busy with something else
			err = nil
		}
		return false, err
	})
	return failed(ctx, op, id, err)
}

// Start switches the server on, also one that is suspended, paused or shelved.
func (c *Cloud) Start(ctx context.Context, id string) error {
	const op = "Start"
	if err := ctx.Err(); err != nil {
		return fail(ctx, op, id, err)
	}
	s, err := c.server(ctx, id)
	if err != nil {
		return fail(ctx, op, id, err)
	}
	at := url.PathEscape(id)
	switch {
	case s.state().Gone():
		return provider.Errorf(op, id, provider.ErrNotFound, "the server has been deleted")
	case s.Status == "SUSPENDED":
		err = servers.Resume(ctx, c.compute, at).ExtractErr()
	case s.Status == "PAUSED":
		err = servers.Unpause(ctx, c.compute, at).ExtractErr()
	case s.Status == "SHELVED" || s.Status == "SHELVED_OFFLOADED":
		err = servers.Unshelve(ctx, c.compute, at, servers.UnshelveOpts{}).ExtractErr()
	case s.state() == provider.Running || s.state() == provider.Pending:
		return nil
	default:
		err = servers.Start(ctx, c.compute, at).ExtractErr()
	}
	return failed(ctx, op, id, err)
}

// Reboot switches the server off and on: a hard reboot works whatever its operating system does.
func (c *Cloud) Reboot(ctx context.Context, id string) error {
	const op = "Reboot"
	if err := ctx.Err(); err != nil {
		return fail(ctx, op, id, err)
	}
	err := servers.Reboot(ctx, c.compute, url.PathEscape(id), servers.RebootOpts{Type: servers.HardReboot}).ExtractErr()
	return failed(ctx, op, id, err)
}

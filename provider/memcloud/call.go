package memcloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Call is one call of the cloud's API, as a [Fault] sees it.
type Call struct {
	Seq    int    // 1 for the cloud's first call
	Method string // "Launch"
	ID     string // what it is about: the token of a create call, else the ID of the instance, volume, …; empty for a list
	Target string // the instance that is to have it: AttachVolume, AssociateAddress, RegisterTarget, DeregisterTarget
	After  bool   // false before the call takes effect, true after
	Err    error  // After: how the call ended
}

// Changing reports whether the call is one that changes the cloud.
func (c Call) Changing() bool { return !slices.Contains(readers, c.Method) }

var readers = []string{"Instances", "Volumes", "Snapshots", "Addresses", "Balancers", "Images"}

// Fault is a hook at every call of the API, with the context of the call. It is called twice, without locks held and in
// the goroutine of the call.
//
// Before the call takes effect (After is false), an error fails it without effect. Any of the kinds of package provider
// may be returned as it is (also ErrAmbiguous, for a request that was lost), or a *provider.Error, or any error.
//
// After it took effect, an error loses the reply: the caller gets ErrAmbiguous if the call is a changing one.
//
// The hook may wait, as long as ctx allows: the call waits with it. It may cancel the context: before the effect that
// prevents it. It may panic: the panic passes through the cloud, which stays as it was before or after the effect, and
// so ends the program under test at this very point.
type Fault func(ctx context.Context, c Call) error

// Change is one change that a call has made.
type Change struct {
	Seq    int // the call's
	Time   time.Time
	Method string
	ID     string            // the instance, volume, … that was created, changed or ended
	Target string            // see Call.Target
	Tags   map[string]string // of what ID names
}

// Destructive reports whether the change ended something, or took it from an instance.
func (c Change) Destructive() bool {
	switch c.Method {
	case "Terminate", "Stop", "Reboot", "DetachVolume", "DeleteVolume", "DeleteSnapshot", "DisassociateAddress",
		"ReleaseAddress", "DeregisterTarget", "DeleteBalancer", "DeleteImage":
		return true
	}
	return false
}

// call makes one call: effect is what it does, under the lock and at one instant. What has to happen without the lock
// (a command) is done by then, if there is one.
func (c *Cloud) call(ctx context.Context, call Call, effect func(now time.Time) error, then ...func() error) error {
	if ctx.Err() != nil {
		return ended(ctx, call, nil)
	}
	c.mu.Lock()
	c.seq++
	call.Seq = c.seq
	c.calls[call.Method]++
	fault := c.fault
	c.mu.Unlock()
	var unknown error
	if call.Changing() {
		unknown = provider.ErrAmbiguous
	}

	if fault != nil {
		if err := fault(ctx, call); err != nil {
			return failed(call, err)
		}
	}
	if !wait(ctx, c.opts.Latency/2) {
		return ended(ctx, call, unknown)
	}
	err := c.locked(func(now time.Time) error {
		if d := c.bucket.take(now); d > 0 {
			return &provider.Error{Op: call.Method, ID: call.ID, Kind: provider.ErrThrottled, RetryAfter: d,
				Err: fmt.Errorf("more than %g calls a second", c.opts.Throttle.PerSecond)}
		}
		before := len(c.changes)
		err := effect(now)
		for i := before; i < len(c.changes); i++ {
			c.changes[i].Seq, c.changes[i].Method, c.changes[i].Target = call.Seq, call.Method, call.Target
		}
		return err
	})
	if !c.deliver(ctx) {
		return ended(ctx, call, unknown)
	}
	if err == nil {
		for _, f := range then {
			err = f()
		}
	}
	if !wait(ctx, c.opts.Latency/2) {
		return ended(ctx, call, unknown)
	}
	if fault != nil {
		call.After, call.Err = true, err
		if lost := fault(ctx, call); lost != nil {
			return &provider.Error{Op: call.Method, ID: call.ID, Kind: unknown, Err: fmt.Errorf("reply lost: %w", lost)}
		}
	}
	return err
}

// locked runs f under the lock, in a cloud where everything is done that was to happen by itself until now.
func (c *Cloud) locked(f func(now time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.settle(now)
	defer c.settle(now)
	return f(now)
}

// deliver tells OnState what was noticed, and waits while another call does so, or until ctx ends.
func (c *Cloud) deliver(ctx context.Context) bool {
	if c.opts.OnState == nil {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.delivering != nil {
		other := c.delivering
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if ctx.Err() != nil {
			return false
		}
	}
	c.deliverHere()
	return true
}

// deliverNow is deliver for the methods that change the world: they may be used by OnState itself, and so leave the
// delivery to the call that is at it.
func (c *Cloud) deliverNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.delivering == nil {
		c.deliverHere()
	}
}

// deliverHere holds the lock on entry and return, and not while OnState runs.
func (c *Cloud) deliverHere() {
	if len(c.notices) == 0 {
		return
	}
	done := make(chan struct{})
	c.delivering = done
	defer func() {
		c.delivering = nil
		close(done)
	}()
	for len(c.notices) > 0 {
		n := c.notices[0]
		c.notices = c.notices[1:]
		n.Tags = maps.Clone(n.Tags)
		func() {
			c.mu.Unlock()
			defer c.mu.Lock()
			c.opts.OnState(n)
		}()
	}
}

// change notes what the call at hand has changed.
func (c *Cloud) change(now time.Time, id string, tags map[string]string) {
	c.changes = append(c.changes, Change{Time: now, ID: id, Tags: tags})
}

// wait waits for d, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// ended is the error of a call whose context has ended.
func ended(ctx context.Context, call Call, kind error) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return &provider.Error{Op: call.Method, ID: call.ID, Kind: kind, Err: err}
}

// failed is the error of a call that the hook has failed.
func failed(call Call, err error) error {
	switch err {
	case provider.ErrCapacity, provider.ErrQuota, provider.ErrThrottled, provider.ErrAuth, provider.ErrInvalid,
		provider.ErrNotFound, provider.ErrAmbiguous:
		return &provider.Error{Op: call.Method, ID: call.ID, Kind: err}
	}
	if e, ok := errors.AsType[*provider.Error](err); ok {
		return &provider.Error{Op: call.Method, ID: call.ID, Kind: e.Kind, Err: e.Err, RetryAfter: e.RetryAfter}
	}
	return &provider.Error{Op: call.Method, ID: call.ID, Err: err}
}

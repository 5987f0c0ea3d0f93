package memcloud_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/provider/providertest"
)

// subject is a cloud whose machines are noted by OnState, and whose commands are processes of this machine.
func subject(o memcloud.Options, wait time.Duration) providertest.Subject {
	var mu sync.Mutex
	alive := map[string]bool{}
	o.OnState = func(i provider.Instance) {
		mu.Lock()
		defer mu.Unlock()
		alive[i.ID] = i.State == provider.Running || i.State == provider.Terminating
	}
	o.Placements, o.Sizes, o.Images = []string{"a", "b"}, []string{"small", "large"}, []string{"debian"}
	c := memcloud.New(o)
	return providertest.Subject{
		Provider:       c,
		Another:        func() provider.Provider { return c },
		Launch:         provider.Launch{Image: "debian", Size: "large", Placement: "a", UserData: provider.Secret("#!/bin/sh")},
		OtherPlacement: "b",
		Wait:           wait,
		Alive: func(i provider.Instance) bool {
			mu.Lock()
			defer mu.Unlock()
			return alive[i.ID]
		},
		Write: func(_ context.Context, _ provider.Instance, v provider.Volume, data string) error {
			return c.SetContent(v.ID, data)
		},
		Read: func(_ context.Context, _ provider.Instance, v provider.Volume) (string, error) {
			return c.Content(v.ID), nil
		},
	}
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		return subject(memcloud.Options{BootTime: 20 * time.Millisecond, ReadyTime: 5 * time.Millisecond, Command: execute}, 10*time.Second)
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// execute runs a command on this machine.
func execute(ctx context.Context, _ provider.Instance, c provider.Command) (provider.CommandResult, error) {
	ctx, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = append(cmd.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, 10*time.Second
	if c.Stdout != nil {
		cmd.Stdout = writer(func(p []byte) (int, error) {
			n, err := c.Stdout.Write(p)
			if err != nil {
				kill(err)
			}
			return n, err
		})
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return provider.CommandResult{}, err
	}
	if err := cmd.Start(); err != nil {
		return provider.CommandResult{}, err
	}
	go func() {
		if c.Stdin != nil {
			for buf := make([]byte, 1<<16); ; {
				n, err := c.Stdin.Read(buf)
				if _, broken := stdin.Write(buf[:n]); broken != nil || err == io.EOF {
					break
				}
				if err != nil {
					kill(err)
					return
				}
			}
		}
		stdin.Close()
	}()
	err = cmd.Wait()
	if ctx.Err() != nil {
		return provider.CommandResult{}, context.Cause(ctx)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return provider.CommandResult{}, err
	}
	cut := func(b []byte) []byte { return b[:min(len(b), 1<<20)] }
	return provider.CommandResult{Exit: cmd.ProcessState.ExitCode(), Output: append(cut(out.Bytes()), cut(errs.Bytes())...)}, nil
}

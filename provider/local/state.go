package local

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// condition is what an instance is found to be.
type condition int

const (
	off         condition = iota
	booting               // somebody is at work on it
	interrupted           // whoever was launching it died before its program ran
	up                    // its processes live
	ended                 // its program has ended by itself
)

// observe finds out what has become of an instance. It brings r up to date, and notes, also for others, when it is ready.
func (c *Cloud) observe(ctx context.Context, r *instance) condition {
	if r.Phase == phaseOn && !r.Proc.alive() {
		unlock, ok := c.store.tryLock(r.ID)
		if !ok {
			return booting
		}
		defer unlock()
		if now, err := get[instance](c.store, r.ID); err == nil {
			*r = now // somebody may have started it since r was read
		}
		if found := c.judge(ctx, *r); found != up {
			return found
		}
	}
	if r.Phase != phaseOn {
		return off
	}
	if r.Port > 0 && !r.Ready && accepts(ctx, net.JoinHostPort(r.Addr.String(), strconv.Itoa(r.Port))) {
		r.Ready = true
		c.store.locked(ctx, func() error {
			now, err := get[instance](c.store, r.ID)
			if err != nil || now.Boot != r.Boot {
				return err
			}
			now.Ready = true
			return c.store.put(now)
		}) // if it fails, the next one to look finds out again
	}
	return up
}

// judge says what an instance is that nobody else is at work on: the caller holds its lock.
func (c *Cloud) judge(ctx context.Context, r instance) condition {
	if r.Phase != phaseOn {
		return off
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	// A supervisor that has no line yet is about to go on, or to end since its host has died.
	for wait := time.Duration(0); sleep(ctx, wait) == nil; wait = time.Millisecond {
		if r.Proc.alive() {
			if goesOn(r.Proc.PID) {
				return up
			}
			continue
		}
		switch exit := c.exit(r.ID); {
		case exit == "interrupted", exit == "" && r.Proc == procID{}:
			return interrupted
		case exit != "":
			return ended
		}
		// The supervisor was killed, and its program may live on without it; or there is another one, whose host died
		// before it could record it.
		pids, err := members(instanceMark(r.ID))
		if err != nil || len(pids) == 0 {
			return ended
		}
		if !slices.ContainsFunc(pids, waits) && slices.ContainsFunc(pids, isProgram) {
			return up
		}
	}
	return booting
}

func accepts(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// show gives r as the interface has it.
func (c *Cloud) show(ctx context.Context, r instance) provider.Instance {
	i := provider.Instance{
		ID: r.ID, Name: r.Launch.Name, Image: r.Launch.Image, Size: r.Launch.Size, Placement: Placement,
		Private: r.Addr, Public: r.Addr, Launched: r.Launched, Tags: r.tags(),
	}
	found := c.observe(ctx, &r)
	switch r.Phase {
	case phaseTerminating:
		i.State = provider.Terminating
		return i
	case phaseTerminated:
		i.State = provider.Terminated
		return i
	case phaseStopping, phaseOff:
		i.State = provider.Stopped
		return i
	}
	switch found {
	case booting:
		i.State = provider.Pending
	case interrupted:
		i.State, i.Reason = provider.Failed, "the program that launched it ended before it had started"
	case ended:
		i.State, i.Reason = provider.Failed, c.reason(r)
	case up:
		i.State = provider.Running
		if r.Port > 0 && !r.Ready {
			i.State = provider.Pending
		}
	}
	return i
}

// exit is what the supervisor wrote when the program had ended: its exit status as a shell gives it.
func (c *Cloud) exit(id string) string {
	data, _ := os.ReadFile(c.store.file(id, ".exit"))
	return strings.TrimSpace(string(data))
}

// reason says how the program ended.
func (c *Cloud) reason(r instance) string {
	status, err := strconv.Atoi(c.exit(r.ID))
	switch {
	case err != nil && !r.Proc.thisBoot():
		return "this machine has been restarted"
	case err != nil:
		return "its supervisor was killed, and its exit status is unknown"
	case status > 128 && status <= 128+64:
		return fmt.Sprintf("killed by signal %d", status-128)
	}
	reason := fmt.Sprintf("exit status %d", status)
	if line := lastLine(filepath.Join(c.Dir(r.ID), outputFile)); line != "" {
		reason += ": " + line
	}
	return reason
}

// lastLine is the last line of a file that is not empty, cut to 200 bytes.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 4096 {
		f.Seek(-4096, io.SeekEnd)
	}
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	lines := strings.Split(strings.TrimSpace(string(b[:n])), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	return strings.ToValidUTF8(line[:min(len(line), 200)], "")
}

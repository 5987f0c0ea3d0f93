package zookeeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/scalr-go/scalr/cronlock"
)

// state is the data of a job's node.
type state struct {
	Paused bool      `json:"paused,omitzero"`
	Since  time.Time `json:"since,omitzero"`
	Floor  time.Time `json:"floor,omitzero"`
}

// Control implements cronlock.Claimer.
func (c *Client) Control(ctx context.Context, job string) (cronlock.Control, error) {
	n, err := c.get(ctx, c.jobPath(job))
	if errors.Is(err, zk.ErrNoNode) || err == nil && len(n.data) == 0 {
		return cronlock.Control{}, nil
	}
	if err != nil {
		return cronlock.Control{}, err
	}
	var s state
	if err := json.Unmarshal(n.data, &s); err != nil {
		return cronlock.Control{}, fmt.Errorf("state of job %s: %w", job, err)
	}
	control := cronlock.Control{
		Paused: s.Paused, Since: s.Since, Floor: s.Floor, Created: time.UnixMilli(n.stat.Ctime).UTC(), Version: int64(n.stat.Version) + 1,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.controls[job] = control
	return control, nil
}

// cached gives the state as it was last read, or reads it. A job that nobody has used yet is made.
func (c *Client) cached(ctx context.Context, job string, fresh bool) (cronlock.Control, error) {
	c.mu.Lock()
	control, ok := c.controls[job]
	c.mu.Unlock()
	if ok && !fresh {
		return control, nil
	}
	for {
		control, err := c.Control(ctx, job)
		if err != nil || control.Version != 0 {
			return control, err
		}
		if err := c.SetControl(ctx, job, cronlock.Control{}); err != nil && !errors.Is(err, cronlock.ErrClaimed) {
			return cronlock.Control{}, err
		}
	}
}

// SetControl implements cronlock.Claimer.
func (c *Client) SetControl(ctx context.Context, job string, control cronlock.Control) error {
	if err := cronlock.CheckName(job); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	now, err := c.Control(ctx, job)
	if err != nil {
		return err
	}
	if now.Version != control.Version {
		return cronlock.ErrClaimed
	}
	if control.Floor.Before(now.Floor) {
		control.Floor = now.Floor
	}
	data, _ := json.Marshal(state{control.Paused, control.Since.UTC(), control.Floor.UTC()})
	path := c.jobPath(job)
	for doubt := false; ; {
		if now.Version == 0 {
			// Both at once: a job's node is never without its runs.
			_, _, err = c.multi(ctx, []any{
				&zk.CreateRequest{Path: path, Data: data, Acl: c.acl}, &zk.CreateRequest{Path: path + "/runs", Acl: c.acl},
			})
		} else {
			_, err = do(ctx, c, func() (*zk.Stat, error) { return c.conn.Set(path, data, int32(control.Version-1)) })
		}
		if err == nil {
			break
		}
		if errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNodeExists) {
			n, err := c.get(ctx, path)
			if err != nil {
				return err
			}
			if !doubt || int64(n.stat.Version) != control.Version || !bytes.Equal(n.data, data) {
				return cronlock.ErrClaimed
			}
			break
		}
		if !passing(err) {
			return fmt.Errorf("state of job %s: %w", job, err)
		}
		doubt = true
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
	if control.Floor.After(now.Floor) {
		return c.forget(ctx, job, control.Floor)
	}
	return nil
}

// forget removes the ended records before the floor. The floor is in place: none of them can be claimed again.
func (c *Client) forget(ctx context.Context, job string, floor time.Time) error {
	open, err := c.Open(ctx)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, run := range open {
		kept[c.runPath(run)] = true
	}
	instants, err := c.Instants(ctx, job, time.Time{}, floor)
	if err != nil {
		return err
	}
	for _, at := range instants {
		if path := c.runPath(cronlock.Key{Job: job, At: at}); !kept[path] {
			if err := c.remove(ctx, path); err != nil {
				return err
			}
		}
	}
	return nil
}

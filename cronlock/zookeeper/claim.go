package zookeeper

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/scalr-go/scalr/cronlock"
)

// instantForm is how instants are named: fixed in width, and in the order of time.
const instantForm = "2006-01-02T15:04:05.000000Z"

// record is the data of a run's node.
type record struct {
	Status    cronlock.Status `json:"status"`
	Attempt   int             `json:"attempt,omitempty"`
	Runner    string          `json:"runner,omitempty"`
	ID        string          `json:"id,omitempty"`
	Exclusive bool            `json:"exclusive,omitempty"`
	// Token is that of the grant, except in the version that made the grant: that one cannot know it, and it is the
	// transaction that wrote it.
	Token uint64     `json:"token,omitempty"`
	Ended *time.Time `json:"ended,omitempty"`
	Error string     `json:"error,omitempty"`
}

func encode(c cronlock.Claim, token uint64) []byte {
	r := record{Status: c.Status, Attempt: c.Attempt, Runner: c.Runner, ID: c.ID, Exclusive: c.Exclusive, Token: token, Error: c.Error}
	if !c.Ended.IsZero() {
		t := c.Ended.UTC()
		r.Ended = &t
	}
	data, _ := json.Marshal(r) // of strings and numbers
	return data
}

func decode(run cronlock.Key, n node) (cronlock.Claim, error) {
	var r record
	if err := json.Unmarshal(n.data, &r); err != nil {
		return cronlock.Claim{}, fmt.Errorf("record of %s: %w", run, err)
	}
	c := cronlock.Claim{
		Key: run, Status: r.Status, Attempt: r.Attempt, Runner: r.Runner, ID: r.ID, Exclusive: r.Exclusive, Token: r.Token, Error: r.Error,
		Claimed: time.UnixMilli(n.stat.Ctime).UTC(), Version: int64(n.stat.Version),
	}
	if r.Ended != nil {
		c.Ended = *r.Ended
	}
	if c.Status == cronlock.Running && c.Token == 0 {
		c.Token = uint64(n.stat.Mzxid)
	}
	return c, nil
}

func (c *Client) jobPath(job string) string { return c.root + "/jobs/" + escape(job) }

func (c *Client) runPath(run cronlock.Key) string {
	return c.jobPath(run.Job) + "/runs/" + run.At.UTC().Format(instantForm)
}

func (c *Client) openPath(run cronlock.Key) string {
	return c.root + "/open/" + escape(run.Job) + "@" + run.At.UTC().Format(instantForm)
}

func (c *Client) slotPath(job string) string { return c.jobPath(job) + "/slot" }

// multi makes a transaction, and gives the place of the operation that failed it.
func (c *Client) multi(ctx context.Context, ops []any) (stats []*zk.Stat, failed int, err error) {
	res, err := do(ctx, c, func() ([]zk.MultiResponse, error) { return c.conn.Multi(ops...) })
	if err == nil {
		for _, r := range res {
			stats = append(stats, r.Stat)
		}
		return stats, -1, nil
	}
	for i, r := range res {
		if r.Error != nil {
			return nil, i, r.Error
		}
	}
	return nil, -1, err
}

// Claim implements cronlock.Claimer.
func (c *Client) Claim(ctx context.Context, claim cronlock.Claim) (cronlock.Claim, error) {
	if err := claim.Check(); err != nil {
		return cronlock.Claim{}, err
	}
	claim.At = claim.At.UTC().Truncate(time.Microsecond)
	path, data := c.runPath(claim.Key), encode(claim, 0)
	control, err := c.cached(ctx, claim.Job, false)
	for {
		if err == nil && claim.Status == cronlock.Running && control.Paused { // another client may have ended it
			if err = c.catchUp(ctx, path); err == nil {
				control, err = c.cached(ctx, claim.Job, true)
			}
		}
		switch {
		case err != nil:
			return cronlock.Claim{}, err
		case claim.At.Before(control.Floor):
			if old, err := c.Get(ctx, claim.Key); err == nil { // open ones are kept
				return c.taken(old, claim)
			}
			return cronlock.Claim{}, cronlock.ErrPruned
		case claim.Status == cronlock.Running && control.Paused:
			if old, err := c.Get(ctx, claim.Key); err == nil {
				return c.taken(old, claim)
			}
			return cronlock.Claim{}, cronlock.ErrPaused
		}
		ops := []any{
			&zk.CheckVersionRequest{Path: c.jobPath(claim.Job), Version: int32(control.Version - 1)},
			&zk.CreateRequest{Path: path, Acl: c.acl},
			&zk.SetDataRequest{Path: path, Data: data, Version: 0}, // its answer has the node's state, a create's has not
		}
		if !claim.Status.Over() {
			ops = append(ops, &zk.CreateRequest{Path: c.openPath(claim.Key), Acl: c.acl})
		}
		if claim.Exclusive && claim.Status.Active() {
			ops = append(ops, &zk.CreateRequest{Path: c.slotPath(claim.Job), Data: []byte(claim.Key.String()), Acl: c.acl})
		}
		sent := time.Now()
		stats, failed, e := c.multi(ctx, ops)
		switch {
		case e == nil:
			c.gauge.note(stats[2].Mtime, sent, time.Now())
			return decode(claim.Key, node{data, stats[2]})
		case failed == 0 && (errors.Is(e, zk.ErrBadVersion) || errors.Is(e, zk.ErrNoNode)):
			control, err = c.cached(ctx, claim.Job, true)
		case failed == 1 && errors.Is(e, zk.ErrNodeExists):
			old, err := c.Get(ctx, claim.Key)
			if errors.Is(err, cronlock.ErrNoClaim) { // pruned meanwhile
				continue
			}
			if err != nil {
				return cronlock.Claim{}, err
			}
			return c.taken(old, claim)
		case failed == 4 && errors.Is(e, zk.ErrNodeExists):
			return cronlock.Claim{}, cronlock.ErrBusy
		case passing(e):
			if err := c.pause(ctx); err != nil {
				return cronlock.Claim{}, err
			}
		default:
			return cronlock.Claim{}, fmt.Errorf("claim of %s: %w", claim.Key, e)
		}
	}
}

// taken judges a claim that meets a record.
func (c *Client) taken(old, claim cronlock.Claim) (cronlock.Claim, error) {
	if claim.Made(old) {
		return old, nil
	}
	return old, cronlock.ErrClaimed
}

// Update implements cronlock.Claimer.
func (c *Client) Update(ctx context.Context, was, claim cronlock.Claim) (cronlock.Claim, error) {
	claim.Key, claim.ID = was.Key, was.ID
	if err := claim.Check(); err != nil {
		return cronlock.Claim{}, err
	}
	token := was.Token
	if claim.Grants(was) {
		token = 0
	}
	data := encode(claim, token)
	ops := []any{&zk.SetDataRequest{Path: c.runPath(was.Key), Data: data, Version: int32(was.Version)}}
	if claim.Status.Over() && !was.Status.Over() {
		ops = append(ops, &zk.DeleteRequest{Path: c.openPath(was.Key), Version: -1})
	}
	slot := -1 // the place of its creation
	held, hold := was.Exclusive && was.Status.Active(), claim.Exclusive && claim.Status.Active()
	if held && !hold {
		ops = append(ops, &zk.DeleteRequest{Path: c.slotPath(was.Job), Version: -1})
	}
	if hold && !held {
		slot = len(ops)
		ops = append(ops, &zk.CreateRequest{Path: c.slotPath(was.Job), Data: []byte(was.Key.String()), Acl: c.acl})
	}
	for doubt := false; ; {
		stats, failed, err := c.multi(ctx, ops)
		switch {
		case err == nil:
			return decode(was.Key, node{data, stats[0]})
		case failed == 0 && errors.Is(err, zk.ErrNoNode):
			return cronlock.Claim{}, cronlock.ErrClaimed // ended and pruned
		case failed == 0 && errors.Is(err, zk.ErrBadVersion):
			n, err := c.get(ctx, c.runPath(was.Key))
			if errors.Is(err, zk.ErrNoNode) {
				return cronlock.Claim{}, cronlock.ErrClaimed
			}
			if err != nil {
				return cronlock.Claim{}, err
			}
			now, err := decode(was.Key, n)
			if err == nil && !(doubt && now.Version == was.Version+1 && bytes.Equal(n.data, data)) {
				err = cronlock.ErrClaimed
			}
			return now, err
		case failed > 0 && failed == slot && errors.Is(err, zk.ErrNodeExists):
			return cronlock.Claim{}, cronlock.ErrBusy
		case passing(err):
			doubt = true
			if err := c.pause(ctx); err != nil {
				return cronlock.Claim{}, err
			}
		default:
			return cronlock.Claim{}, fmt.Errorf("record of %s: %w", was.Key, err)
		}
	}
}

// Get implements cronlock.Claimer.
func (c *Client) Get(ctx context.Context, run cronlock.Key) (cronlock.Claim, error) {
	run.At = run.At.UTC().Truncate(time.Microsecond)
	n, err := c.get(ctx, c.runPath(run))
	if errors.Is(err, zk.ErrNoNode) {
		return cronlock.Claim{}, cronlock.ErrNoClaim
	}
	if err != nil {
		return cronlock.Claim{}, err
	}
	return decode(run, n)
}

// Instants implements cronlock.Claimer.
func (c *Client) Instants(ctx context.Context, job string, from, to time.Time) (list []time.Time, err error) {
	names, err := c.children(ctx, c.jobPath(job)+"/runs")
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	for _, name := range names {
		if at, err := time.Parse(instantForm, name); err == nil && !at.Before(from) && at.Before(to) {
			list = append(list, at)
		}
	}
	slices.SortFunc(list, time.Time.Compare)
	return list, err
}

// Open implements cronlock.Claimer.
func (c *Client) Open(ctx context.Context) (list []cronlock.Key, err error) {
	names, err := c.children(ctx, c.root+"/open")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		i := strings.LastIndexByte(name, '@')
		if i < 0 {
			continue
		}
		job, err := url.PathUnescape(name[:i])
		at, err2 := time.Parse(instantForm, name[i+1:])
		if err == nil && err2 == nil {
			list = append(list, cronlock.Key{Job: job, At: at})
		}
	}
	slices.SortFunc(list, func(a, b cronlock.Key) int { return cmp.Or(strings.Compare(a.Job, b.Job), a.At.Compare(b.At)) })
	return list, nil
}

// Fleet implements cronlock.Claimer.
func (c *Client) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	runners, err := c.children(ctx, c.root+"/runners")
	slices.Sort(runners)
	return cronlock.Fleet{Runners: runners, Skew: c.gauge.ahead(time.Now())}, err
}

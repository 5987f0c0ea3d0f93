package memdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// saved is a transaction as a backup has it. The last line of a backup has its position instead.
type saved struct {
	Origin   string               `json:"origin,omitempty"`
	Seq      uint64               `json:"seq,omitempty"`
	Key      string               `json:"key,omitempty"`
	Value    string               `json:"value,omitempty"`
	Position replication.Position `json:"position,omitempty"`
	End      bool                 `json:"end,omitempty"`
}

// Backup implements replication.Backuper. It writes a line of JSON for each transaction: half of them at once, and the others
// when the time of a copy has passed.
func (c *Cluster) Backup(ctx context.Context, m replication.Member, w io.Writer, progress func(replication.Progress)) (replication.Position, error) {
	var log []txn
	var name string
	enter := func(f func(s *server, now time.Time) (time.Time, bool, error)) error {
		return c.call(ctx, "Backup", m, f)
	}
	err := enter(func(s *server, now time.Time) (time.Time, bool, error) {
		if s.filling {
			return time.Time{}, true, fmt.Errorf("%w: it holds a part of a copy", replication.ErrUnsafe)
		}
		log, name = append(log, s.log[:s.applied]...), s.name
		return time.Time{}, true, nil
	})
	if err != nil {
		return "", err
	}
	lines := json.NewEncoder(w)
	write := func(from, to int) error {
		for _, x := range log[from:to] {
			if err := lines.Encode(saved{Origin: x.origin, Seq: x.seq, Key: x.key, Value: x.value}); err != nil {
				return err
			}
		}
		if progress != nil {
			progress(replication.Progress{Done: int64(to), Total: int64(len(log)), Unit: "rows", What: "transactions"})
		}
		return nil
	}
	if err := write(0, len(log)/2); err != nil {
		return "", err
	}
	var ready time.Time
	err = enter(func(s *server, now time.Time) (time.Time, bool, error) {
		switch {
		case s.name != name:
			return time.Time{}, true, errors.New("it has got other data")
		case ready.IsZero():
			ready = now.Add(c.options.Copy)
		}
		return ready, !now.Before(ready), nil
	})
	if err != nil {
		return "", err
	}
	if err := write(len(log)/2, len(log)); err != nil {
		return "", err
	}
	return position(log), lines.Encode(saved{Position: position(log), End: true})
}

// Restore implements replication.Backuper. The scrub hook changes the copy by Inject.
func (c *Cluster) Restore(ctx context.Context, m replication.Member, r io.Reader, scrub func(context.Context, replication.Member) error,
	progress func(replication.Progress)) (replication.Position, error) {
	var log []txn
	lines := json.NewDecoder(r)
	for {
		var x saved
		if err := lines.Decode(&x); err != nil {
			return "", fmt.Errorf("the backup breaks off: %w", err)
		}
		if x.End {
			if _, err := lines.Token(); !errors.Is(err, io.EOF) {
				return "", fmt.Errorf("the backup does not end where it says: %w", err)
			}
			return x.Position, c.fill(ctx, "Restore", m, log, scrub, progress)
		}
		log = append(log, txn{origin: x.Origin, seq: x.Seq, key: x.Key, value: x.Value})
	}
}

package main

import (
	"context"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"
)

// watch notes when the store has let go of each runner, or a little later, until ctx ends. From then on a run of that runner may be given to
// another one, and its work must have ended.
func (f *fleet) watch(ctx context.Context) error {
	conn, _, err := zk.Connect(f.ensemble.Addrs(), 10*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		return err
	}
	f.group.Go(func() {
		defer conn.Close()
		var before []string
		for {
			now, _, changed, err := conn.ChildrenW(f.Root + "/runners")
			if err != nil { // no server, or no root yet
				if !pause(ctx, 50*time.Millisecond) {
					return
				}
				continue
			}
			seen := time.Now()
			f.mu.Lock()
			for _, name := range before {
				if !slices.Contains(now, name) {
					f.gone[name] = seen
				}
			}
			f.mu.Unlock()
			before = now
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// silent is a logger.
type silent struct{}

func (silent) Printf(string, ...any) {}

package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/scalr-go/scalr/provider"
)

// outputShown is how much of a failed command's output an error has, from its end.
const outputShown = 200

// RunCommand runs a command on servers of the farm, Config.Parallel at once, through the provider of each one's pool
// ([provider.Commands]; provider/ssh gives it to providers that lack it). It gives the results by the server's name. The error
// joins those of the servers on which the command could not be run or ended with another status than 0: each names the server
// and shows the end of the output. A command with streams (Stdin, Stdout) is for one server. It is safe for concurrent use.
//
// The command finds in its environment SCALR_FARM, SCALR_POOL, SCALR_ROLE, SCALR_INDEX and SCALR_NAME ("www-3"), beside what c
// has. The context bounds it all. With [Farm.Servers] it reaches a role or the whole farm; a [Hook] runs one when something happens.
func (f *Farm) RunCommand(ctx context.Context, c provider.Command, servers ...Server) (map[string]provider.CommandResult, error) {
	if len(servers) > 1 {
		for field, is := range map[string]bool{"Stdin": c.Stdin != nil, "Stdout": c.Stdout != nil} {
			if is {
				return nil, fmt.Errorf("the command's %s is set, and there are %d servers: a stream is for one, want it nil or one server at a time",
					field, len(servers))
			}
		}
	}
	results := make(map[string]provider.CommandResult, len(servers))
	errs := make([]error, len(servers))
	var mu sync.Mutex
	g := f.group()
	for i, s := range servers {
		g.add(func() {
			r, err := f.runCommand(ctx, c, s)
			mu.Lock()
			defer mu.Unlock()
			if err == nil || r.Exit != 0 {
				results[s.Name] = r
			}
			if err != nil {
				errs[i] = fmt.Errorf("%s (%s): %w", s.Name, s.ID, err)
			}
		})
	}
	g.wait()
	return results, errors.Join(errs...)
}

func (f *Farm) runCommand(ctx context.Context, c provider.Command, s Server) (provider.CommandResult, error) {
	var none provider.CommandResult
	pool := f.config.pool(s.Pool)
	if pool == nil {
		return none, fmt.Errorf("its pool %q is none of config.Pools", s.Pool)
	}
	commands, ok := provider.As[provider.Commands](pool.Provider)
	if !ok {
		return none, fmt.Errorf("the provider of pool %q runs no commands: %w", s.Pool, errors.ErrUnsupported)
	}
	if err := f.limit(ctx); err != nil {
		return none, err
	}
	c.Env = append(slices.Clone(c.Env), "SCALR_FARM="+f.spec.Name, "SCALR_POOL="+s.Pool, "SCALR_ROLE="+s.Role,
		"SCALR_INDEX="+strconv.Itoa(s.Index), "SCALR_NAME="+s.Name)
	r, err := commands.RunCommand(ctx, s.ID, c)
	if err == nil && r.Exit != 0 {
		shown := r.Output[max(0, len(r.Output)-outputShown):]
		err = fmt.Errorf("%q ended with status %d: %q", c.Args[0], r.Exit, shown)
	}
	return r, err
}

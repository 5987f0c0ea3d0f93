//go:build linux

package local

import (
	"context"
	"maps"
	"slices"
)

// SetStep lets a test look on, and die, at each step of what a cloud does.
func (c *Cloud) SetStep(f func(string)) { c.step = f }

// SetHAProxy sets the name of the program that balancers run.
func (c *Cloud) SetHAProxy(name string) { c.haproxy = name }

// Servers gives the names of the servers that a balancer's HAProxy has.
func (c *Cloud) Servers(ctx context.Context, id string) ([]string, error) {
	servers, err := c.admin(id).servers(ctx)
	return slices.Sorted(maps.Keys(servers)), err
}

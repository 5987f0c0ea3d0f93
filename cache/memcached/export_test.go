package memcached

import "github.com/scalr-go/scalr/cache"

// Pick gives the slot that owns the key.
func Pick(c *Client, key string) string { return c.ring.Load().pick(key).server.Slot }

// PickFrom gives a function like Pick for a set of servers.
func PickFrom(servers []cache.Server) func(key string) string {
	r := newRing(servers, func(s cache.Server) *node { return &node{server: s} })
	return func(key string) string { return r.pick(key).server.Slot }
}

// StandInFrom gives a function that gives the stand-in of a key.
func StandInFrom(servers []cache.Server) func(key string) string {
	r := newRing(servers, func(s cache.Server) *node { return &node{server: s} })
	return func(key string) string { return r.standIn(key).server.Slot }
}

// CloseIdle closes the unused connections.
func CloseIdle(c *Client) {
	for _, s := range c.ring.Load().slots {
		(*s.node.transport.Load()).closeIdle()
	}
}

var Expiration = expiration

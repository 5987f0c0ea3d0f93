package ec2

import "time"

// Hasten makes the pauses between attempts short. It must be called before any other method.
func Hasten(c *Cloud) {
	for _, r := range c.retryers {
		r.shortest, r.longest = 5*time.Millisecond, 40*time.Millisecond
	}
}

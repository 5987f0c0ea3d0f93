//go:build linux

package local

// SetStep lets a test look on, and die, at each step of what a cloud does.
func (c *Cloud) SetStep(f func(string)) { c.step = f }

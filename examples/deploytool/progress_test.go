package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
)

// On a terminal the bars stay below what is said, and what goes well is told by them alone.
func TestBars(t *testing.T) {
	var out strings.Builder
	p := &progress{out: &out, terminal: true}
	half, full := bar{"www", 1, 2, "web-1.0"}, bar{"www", 2, 2, "web-1.0"}
	const a, b = "\033[?7lwww                  ████████████░░░░░░░░░░░░ 1/2  web-1.0\033[?7h\n",
		"\033[?7lwww                  ████████████████████████ 2/2  web-1.0\033[?7h\n"
	took := func(want string) {
		t.Helper()
		require.Equal(t, want, out.String())
		out.Reset()
	}
	p.draw([]bar{half})
	took(a)
	p.event(scalr.Event{Kind: farm.HostUp, Role: "www", Index: 2, Message: "serves"})
	took("")
	p.event(scalr.Event{Kind: farm.HostCrash, Role: "www", Index: 2, Message: "has failed"})
	took("\033[1A\033[J00:00:00.000 host-crash           www-2 has failed\n" + a)
	p.draw([]bar{full})
	took("\033[1A\033[J" + b)
	p.draw(nil)
	took("\033[1A\033[J")
	require.Equal(t, "a                    ████████████████████████ 0/0", bar{role: "a"}.String())
}

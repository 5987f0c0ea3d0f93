package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
)

// bar is how far a role has come.
type bar struct {
	role       string
	done, want int
	note       string
}

func (b bar) String() string {
	const width = 24
	full := width
	if b.want > 0 {
		full = width * min(b.done, b.want) / b.want
	}
	return strings.TrimRight(fmt.Sprintf("%-20s %s%s %d/%d  %s", b.role, strings.Repeat("█", full), strings.Repeat("░", width-full),
		b.done, b.want, b.note), " ")
}

// progress prints what happens: on a terminal as bars that stay below everything else, otherwise a line for each event, or a
// JSON object.
type progress struct {
	out      io.Writer
	asJSON   bool
	terminal bool
	bars     []bar // as they stand on the terminal
}

func newProgress(out io.Writer, asJSON bool) *progress {
	p := &progress{out: out, asJSON: asJSON}
	if f, ok := out.(*os.File); ok && !asJSON && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// say prints text for a person, or v as JSON, above the bars.
func (p *progress) say(v any, text string) {
	if p.asJSON {
		_ = json.NewEncoder(p.out).Encode(v)
		return
	}
	bars := p.bars
	p.draw(nil)
	fmt.Fprintln(p.out, strings.TrimRight(text, "\n"))
	p.draw(bars)
}

// event prints an event. A terminal has the bars for what goes well.
func (p *progress) event(e scalr.Event) {
	bad := e.Err != "" || e.Kind == farm.UpdateFailed || e.Kind == farm.HostCrash || e.Kind == farm.HostUnhealthy
	if bad || !p.terminal {
		p.say(e, e.String())
	}
}

// draw puts bars in the place of the last ones; none takes them away.
func (p *progress) draw(bars []bar) {
	if !p.terminal {
		return
	}
	if n := len(p.bars); n > 0 {
		fmt.Fprintf(p.out, "\033[%dA\033[J", n)
	}
	for _, b := range bars {
		fmt.Fprintf(p.out, "\033[?7l%s\033[?7h\n", b) // clipped at the edge: a line that wraps would not be taken away
	}
	p.bars = bars
}

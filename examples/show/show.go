// Package show prints what happens in an example, for a person or as JSON lines.
package show

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
)

// machineName is a name of a single machine, of private addresses, or of marks.
var machineName = regexp.MustCompile(`^(_scalr|int-|[a-z]+-[0-9]+\.)`)

// Show prints lines. Its methods are safe for concurrent use: it is the sink of events of several emitters.
type Show struct {
	out    io.Writer
	asJSON bool
	colour bool
	start  time.Time

	mu    sync.Mutex
	count map[scalr.Kind]int
	drawn string
}

// New makes a Show that prints to out: a JSON object a line, or text for a person, in colour on a terminal unless NO_COLOR is
// set.
func New(out io.Writer, asJSON bool) *Show {
	s := &Show{out: out, asJSON: asJSON, start: time.Now(), count: map[scalr.Kind]int{}}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		info, err := f.Stat()
		s.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// paint gives the text in a colour of the terminal.
func (s *Show) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\033[" + code + "m" + text + "\033[0m"
}

// Line prints v as JSON, or text after the seconds that have passed.
func (s *Show) Line(v any, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asJSON {
		_ = json.NewEncoder(s.out).Encode(v)
	} else if text != "" {
		fmt.Fprintf(s.out, "%6.2fs  %s\n", time.Since(s.start).Seconds(), text)
	}
}

// Say prints a sentence of the story.
func (s *Show) Say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.Line(map[string]string{"story": text}, s.paint("1", text))
}

// Event prints an event.
func (s *Show) Event(e scalr.Event) {
	s.mu.Lock()
	s.count[e.Kind]++
	s.mu.Unlock()
	_, text, _ := strings.Cut(e.String(), " ")
	switch e.Kind {
	case scalr.Kind(farm.AllocateAddress), scalr.Kind(farm.AssociateAddress), scalr.Kind(farm.CreateVolume):
		text = "" // a person knows that a machine needs these
	case scalr.Kind(farm.ChangeNames):
		text += names(e)
	}
	s.Line(e, text)
}

// names gives the changes of the names of services, a line each: those of machines and the marks of ownership are for machines.
func names(e scalr.Event) string {
	var order []string
	values := map[string]string{}
	for i := 1; e.Attrs[fmt.Sprintf("change-%d", i)] != ""; i++ {
		for line := range strings.Lines(e.Attrs[fmt.Sprintf("change-%d", i)]) {
			f := strings.Fields(line) // sign, name, type, value, TTL
			if len(f) < 4 || f[1] == e.Subject || machineName.MatchString(f[1]) {
				continue
			}
			if values[f[1]] == "" {
				order = append(order, f[1])
			}
			values[f[1]] += " " + f[0] + f[3]
		}
	}
	var text strings.Builder
	for _, name := range order {
		text.WriteString("\n         " + name + values[name])
	}
	return text.String()
}

// Count says how many events of a kind there were.
func (s *Show) Count(kind scalr.Kind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[kind]
}

// Load draws the load and the servers that take it, whenever the picture changes.
func (s *Show) Load(requests float64, servers []farm.Server) {
	ready := 0
	for _, server := range servers {
		if server.Ready {
			ready++
		}
	}
	if s.asJSON {
		s.Line(map[string]any{"requests": requests, "www": ready, "www_pending": len(servers) - ready}, "")
		return
	}
	picture := s.paint("36", fmt.Sprintf("%4.0fk requests/min %-20s www %s%s", requests/1000, strings.Repeat("▆", int(requests/10000)),
		strings.Repeat("●", ready), strings.Repeat("○", len(servers)-ready)))
	if picture != s.drawn {
		s.drawn = picture
		s.Line(nil, picture)
	}
}

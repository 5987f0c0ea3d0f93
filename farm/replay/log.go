package replay

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/scalr-go/scalr/farm/simulate"
)

// entry is a line of the Common Log Format, or of one that goes on behind it: Apache's combined, nginx's default.
var entry = regexp.MustCompile(`^\S+ \S+ .*?\[([^\]]+)\] "((?:[^"\\]|\\.)*)"`)

// steps is how many seconds a log may last: a year.
const steps = 366 * 24 * 3600

// ReadLog reads a web server's access log, in the Common Log Format or one that goes on behind it (combined): the trace has a step for
// each second, and paths are what was asked for, in the order of the log. Only GET is read: what changes something is not to be done
// again, and HEAD asks for nothing. Of a URL the path and the query are kept, and never the host. Lines may be out of order by as much
// as a server's are: the trace begins with the earliest. A line that is no entry is an error, which has its number and not its
// text; one whose request is none (scanners send such) is left out.
func ReadLog(r io.Reader) (trace simulate.Trace, paths []string, err error) {
	var at []time.Time
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for line := 1; in.Scan(); line++ {
		fields := entry.FindStringSubmatch(in.Text())
		if fields == nil {
			return simulate.Trace{}, nil, fmt.Errorf("replay: line %d is no entry of an access log, want the Common Log Format, with or without more behind it", line)
		}
		when, err := time.Parse("02/Jan/2006:15:04:05 -0700", fields[1])
		if err != nil {
			return simulate.Trace{}, nil, fmt.Errorf("replay: line %d: its time is %q, want one such as 10/Oct/2000:13:55:36 -0700", line, fields[1])
		}
		if path := asked(fields[2]); path != "" {
			at, paths = append(at, when.UTC()), append(paths, path)
		}
	}
	if err := in.Err(); err != nil {
		return simulate.Trace{}, nil, fmt.Errorf("replay: %w", err)
	}
	if len(at) == 0 {
		return simulate.Trace{}, nil, fmt.Errorf("replay: the log has no request that could be made again: no GET")
	}
	first, last := at[0], at[0]
	for _, t := range at {
		if t.Before(first) {
			first = t
		}
		if t.After(last) {
			last = t
		}
	}
	n := int64(last.Sub(first)/time.Second) + 1
	if n > steps {
		return simulate.Trace{}, nil, fmt.Errorf("replay: the log goes from %v to %v, want a year at most", first, last)
	}
	trace = simulate.Trace{Start: first, Step: time.Second, Requests: make([]float64, n)}
	for _, t := range at {
		trace.Requests[t.Sub(first)/time.Second]++
	}
	return trace, paths, nil
}

// request is a request line.
var request = regexp.MustCompile(`^([A-Z]+) (\S+)(?: HTTP/[0-9.]+)?$`)

// asked gives the path and the query of a request line, or "".
func asked(line string) string {
	fields := request.FindStringSubmatch(line)
	if fields == nil || fields[1] != http.MethodGet {
		return ""
	}
	u, err := url.ParseRequestURI(fields[2])
	if err != nil || u.Opaque != "" {
		return ""
	}
	u.Scheme, u.Host, u.User = "", "", nil
	if path := u.RequestURI(); path[0] == '/' {
		return path
	}
	return ""
}

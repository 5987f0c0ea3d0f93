package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/replay"
	"github.com/scalr-go/scalr/farm/simulate"
	"github.com/scalr-go/scalr/provider"
)

// replayLoad sends recorded load to the machines of a role, a connection to each in turn, and shows how they took it. The file is a
// trace if it is called .csv (simulate.ReadCSV), and otherwise a web server's access log (replay.ReadLog).
func replayLoad(ctx context.Context, t *tool, doc *document, file string) (summary, error) {
	f, err := os.Open(file)
	if err != nil {
		return summary{}, err
	}
	defer f.Close()
	o := replay.Options{Site: fmt.Sprintf("http://%s:%d/", doc.spec.Name, webPort), Speed: t.speed}
	o.Each = func(r replay.Report) { t.out.say(map[string]any{"second": r}, r.String()) }
	var trace simulate.Trace
	if filepath.Ext(file) == ".csv" {
		trace, err = simulate.ReadCSV(f)
	} else {
		trace, o.Paths, err = replay.ReadLog(f)
	}
	if err != nil {
		return summary{}, fmt.Errorf("%s: %w", file, err)
	}
	return t.with(ctx, doc, false, func(s *site, _ *summary) error {
		machines, err := s.machines(ctx)
		if err != nil {
			return err
		}
		var addrs []string
		for _, m := range machines {
			if m.Tags[farm.TagRole] == t.role && m.State == provider.Running {
				addrs = append(addrs, net.JoinHostPort(m.Private.String(), strconv.Itoa(webPort)))
			}
		}
		if len(addrs) == 0 {
			return fmt.Errorf("-role is %q, want a role of which machines run", t.role)
		}
		var n atomic.Int64
		transport := &http.Transport{MaxIdleConnsPerHost: 256, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addrs[int(n.Add(1))%len(addrs)])
		}}
		defer transport.CloseIdleConnections()
		o.Transport = transport
		r, err := replay.Run(ctx, trace, o)
		t.out.say(map[string]any{"replayed": r}, r.String())
		return err
	})
}

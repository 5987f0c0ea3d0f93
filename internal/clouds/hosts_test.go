package clouds

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
)

// hosts are programs that work one after another, each until the first of its requests that changes a cloud: that takes effect,
// its reply is lost, and the program is killed. It is the layer and the fault of the proxies in front of the clouds, and counts
// what is made there.
type hosts struct {
	mu   sync.Mutex
	kill context.CancelCauseFunc // of the one that works, if it shall be killed
	dead bool
	made map[string]int
	// once lets hosts live on through requests at whose like one has been killed: of what has to be done anew by each. Nil: it does not.
	once map[string]bool
}

var errKilled = errors.New("the host program was killed")

// changes reports whether a request changes a cloud.
func changes(r faultproxy.Request) bool {
	return r.Target != "identity" && !strings.HasPrefix(r.Operation, "Describe") && !strings.HasPrefix(r.Operation, "GET ")
}

func (h *hosts) fault(r faultproxy.Request) faultproxy.Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.dead:
		return faultproxy.Refuse
	case h.kill != nil && changes(r) && !h.once[r.Operation]:
		if h.once != nil {
			h.once[r.Operation] = true
		}
		h.dead = true
		return faultproxy.Lose
	}
	return faultproxy.Fault{}
}

func (h *hosts) layer(next faultproxy.Handler) faultproxy.Handler {
	return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
		reply, err := next(ctx, r)
		h.mu.Lock()
		defer h.mu.Unlock()
		if what := made(r); changes(r) && what != "" && reply.Status < 300 {
			if h.made == nil {
				h.made = map[string]int{}
			}
			h.made[what]++
		}
		if h.dead {
			h.kill(errKilled)
		}
		return reply, err
	}
}

// made says what a request makes: to an OpenStack the last part of its path, and of a server its size too; to EC2 a snapshot.
func made(r faultproxy.Request) string {
	if r.Operation == "CreateSnapshot" { // of which EC2 keeps no token: each makes one
		return r.Operation
	}
	if r.Method != http.MethodPost || r.Form != nil {
		return ""
	}
	path, _, _ := strings.Cut(r.Path, "?")
	what := path[strings.LastIndexByte(path, '/')+1:]
	var body struct {
		Server struct{ Metadata map[string]string }
	}
	if what == "servers" && json.Unmarshal(r.Body, &body) == nil {
		return body.Server.Metadata["scalr:size"] + " servers"
	}
	return what
}

// has reports whether something has been made.
func (h *hosts) has(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.made[what] > 0
}

// work lets hosts work until one has nothing to change any more. It gives how many were killed, and what was made.
func (h *hosts) work(t *testing.T, work func(context.Context) error) (killed int, all map[string]int) {
	t.Helper()
	h.made = map[string]int{}
	for ; ; killed++ {
		require.Less(t, killed, 60, "hosts change something for ever; they have made %v", h.made)
		ctx, kill := context.WithCancelCause(t.Context())
		h.mu.Lock()
		h.kill, h.dead = kill, false
		h.mu.Unlock()
		err := work(ctx)
		died := context.Cause(ctx)
		h.mu.Lock()
		h.kill, h.dead = nil, false
		h.mu.Unlock()
		kill(nil)
		if !errors.Is(died, errKilled) {
			require.NoError(t, err, "%d hosts were killed before", killed)
			t.Logf("killed %d hosts; made %v", killed, h.made)
			return killed, h.made
		}
	}
}

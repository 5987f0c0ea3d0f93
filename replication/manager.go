package replication

import (
	"context"
	"sync"
)

// Manager keeps one set of members in order: see the package doc. Its methods are safe for concurrent use.
type Manager struct {
	config Config

	mu       sync.Mutex
	topology Topology
	changed  chan struct{}
}

// New makes a Manager. It reports every fault of the config at once, by field, and makes no calls.
func New(config Config) (*Manager, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	return &Manager{config: config, changed: make(chan struct{})}, nil
}

// SetMembers says who is there now, and how many the set is meant to have. A fresh set is initialised only when that many
// members answer. Members that are no longer named are watched no more; nothing is done to them. It may be called at any
// time and does not wait for anything.
func (m *Manager) SetMembers(members []Member, expected int) {}

// Run detects, recovers and publishes until the context ends, and returns the context's cause. Whatever it started has
// ended when it returns. It must not be called twice at the same time.
func (m *Manager) Run(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// Topology says what is so now, and gives a channel that is closed at the next change of anything but lags and positions.
func (m *Manager) Topology() (Topology, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topology.clone(), m.changed
}

// Plan says what the Manager would do now. Nothing is done.
func (m *Manager) Plan() Plan { return Plan{} }

// PlanLoss says what the Manager would do if the server of the member with this ID died now; "" is the primary. Nothing
// is done.
func (m *Manager) PlanLoss(id string) Plan { return Plan{} }

// Switchover makes the member with the ID to the primary, or the best replica if to is empty, and returns when the
// topology says so. It needs a Run. The old primary is fenced first and becomes a replica. If the new one cannot take over
// within Config.StepTimeout, the old one stays, and Switchover says why.
func (m *Manager) Switchover(ctx context.Context, to string) error { return nil }

package mysql

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// Two probes in a row are not taken for one that takes long, and one is a probe also while all others wait for a replica.
func TestStalledKnowsItsProbe(t *testing.T) {
	const session = "7"
	processes := []row{{"Id": session, "Command": "Query", "Time": "0", "State": committing}}
	now := time.Now()
	s := &server{engine: &Engine{config: Config{Stall: time.Second, Timeout: time.Minute}}}
	s.probe = &probe{session: session, sent: now}
	require.NoError(t, s.stalled(processes, now))
	s.probe = &probe{session: session, sent: now.Add(time.Second)}
	require.NoError(t, s.stalled(processes, now.Add(1500*time.Millisecond)))
	processes[0]["Time"] = "1"
	require.ErrorIs(t, s.stalled(processes, now.Add(2100*time.Millisecond)), replication.ErrStalled)

	acks := append(processes, row{"Id": "8", "Command": "Query", "Time": "100", "State": ackWaiting}, row{"Id": "9", "Time": "1", "State": committing})
	require.ErrorIs(t, s.stalled(acks, now.Add(2200*time.Millisecond)), replication.ErrStalled)
	s.probe, acks[2]["Time"] = nil, "9"
	require.NoError(t, s.stalled(acks, now.Add(10*time.Second)), "the one after the other waits for it")
}

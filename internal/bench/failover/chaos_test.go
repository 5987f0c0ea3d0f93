package main

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/replication"
)

// Whatever happens to three real servers, no acknowledged row is missing under Durability, no two servers take writes, and
// every recovery has a verdict. SCALR_CHAOS is how long to go on, as "10m"; the short form begins no round after 25 s.
func TestChaos(t *testing.T) {
	testenv.Need(t, "mariadbd", "mariadb-install-db")
	if !apart() && os.Geteuid() == 0 { // partitions need a network of their own
		testenv.Need(t, "ip")
		cmd := exec.Command(os.Args[0], "-test.run=^TestChaos$", "-test.v", "-test.timeout=60m")
		if ok := separate(cmd); ok {
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	o := options{mode: "chaos", policy: replication.Durability, runs: 1 << 30, time: 25 * time.Second, writers: 2, json: true}
	if long := os.Getenv("SCALR_CHAOS"); long != "" {
		d, err := time.ParseDuration(long)
		if err != nil {
			t.Fatal("SCALR_CHAOS is " + strconv.Quote(long) + ", want a duration such as 10m")
		}
		o.time = d
	}
	if err := run(o); err != nil {
		t.Fatal(err)
	}
}

// What is counted in chaos is what it says it is.
func TestAccount(t *testing.T) {
	begin := time.Now()
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	var events []scalr.Event
	say := func(ms int, kind scalr.Kind, subject, message string) {
		events = append(events, scalr.Event{Time: at(ms), Kind: kind, Subject: subject, Message: message})
	}
	const promote, primary, verdict = replication.KindStep, replication.KindPrimary, replication.KindVerdict
	say(10, promote, "db-2", "promote db-2: db-1 refuses connections") // its Manager ends
	say(20, promote, "db-2", "promote db-2: db-1 refuses connections")
	say(30, primary, "db-2", "db-2 takes writes")
	say(31, verdict, "db-2", "db-2 took over from db-1 in 1s: none is known to be missing, some may be (why: so)")
	say(32, verdict, "db-2", "db-2 took over from db-1 in 1s: 2 transactions are missing (why: so)")
	say(40, promote, "db-3", "promote db-3: db-2 does not answer") // and dies
	say(50, promote, "db-1", "promote db-1: db-2 does not answer") // and another Manager goes on
	say(60, primary, "db-1", "db-1 takes writes")
	require.Equal(t, []recovery{{verdict: events[4].Message}, {}}, recoveries(events), "no verdict on db-1")
	say(70, verdict, "db-1", "db-1 took over from db-2 in 1s: no acknowledged transaction can be missing (why)")
	say(80, promote, "db-2", "promote db-2: it takes over from db-1 as planned")
	say(90, primary, "db-2", "db-2 takes writes")
	all := recoveries(events)
	require.Equal(t, []recovery{{verdict: events[4].Message}, {verdict: events[8].Message}, {planned: true}}, all)

	for _, v := range []struct {
		of      string
		n       int
		bounded bool
	}{{events[3].Message, 0, false}, {events[4].Message, 2, true}, {events[8].Message, 0, true}, {"", 0, true},
		{"db-2 took over from db-1 in 1s: at least 2 transactions are missing (why)", 0, false}} {
		n, bounded := promise(v.of)
		require.Equal(t, v.bounded, bounded, v.of)
		require.Equal(t, v.n, n, v.of)
	}

	writes := func(server string, ms int) ack { return ack{server: server, began: at(ms), end: at(ms + 1)} }
	acks := []ack{writes("db-1", 1), writes("db-2", 25), writes("db-2", 35), writes("db-1", 55), writes("db-2", 85)}
	require.Zero(t, usurped(events, acks))
	require.Equal(t, 2, usurped(events, append(slices.Clone(acks), writes("db-1", 27))), "db-1 was not promoted then, and db-2 has been but once")
}

// Command twin measures what it costs a farm to be cloned, to move and to be updated, with real MariaDB servers on this machine: a farm
// whose database has some data and takes writes, and its twin, which gets the data of one moment; then the farm moves to another
// cloud, and its machines are replaced by those of another image.
//
//	go run ./internal/bench/twin -gb 1 -json
//
// With -snapshot the twin's servers start on a snapshot of the volume of the parent's replica, which is locked at their first boot, instead
// of copying the data; what the snapshot costs is part of the clone. (This machine's is a copy of the files, unless the file system can
// share them, during which the replica stands still: with one replica and -policy durability, so do the writers.)
//
// Clone_pause_ms is the longest time in which none of the parent's writers had a commit acknowledged, from the twin's first
// launch until all of its members serve; before_pause_ms is the same before, in 5 s. The twin's servers have a lower priority
// (nice), since they share with the parent's the processors that in a cloud they would not. Rows_equal says that the twin has, to
// the row and the byte, what the parent had at the GTID of the copy: writers note the GTID of each commit, so that what
// there was at that moment is known. Isolated says that nothing of the twin could reach the parent, and nothing of the
// parent the twin.
//
// The servers of a set share one disk, and a replica applies one transaction after another: where the disk is busy with their commits
// before the processors are, replicas fall behind four writers for good, and the move waits for them; -writers 2 leaves them room.
//
// Move_pause_ms is the same as clone_pause_ms, for writers that go through replication/pool, while the farm moves to another
// cloud (which is this machine too) with all of its database, and switch_pause_ms the part of it around the change of primary;
// lost are rows that they were told are there, and that the primary at the end has not. Failed_reads are errors of readers: some
// read through the pool, some take a name of the zone, keep each answer for as long as its TTL allows, and read from the address
// that it gave; those who take the primary's name connect once more, to the same address, when the change of primary cuts
// them off.
//
// Then the farm gets web servers behind a balancer (HAProxy) and a third database server, and all of them are replaced by
// rolling updates while the clients of the database go on and visitors look at pages. When that is done both roles get images
// that do not work: of each one machine may be launched (bad_launches), and the roles must go on whole with what they had
// (rolled_back). Roll_failed_requests are pages, reads and writes that failed meanwhile.
//
// The twin ends by itself, when its time has come: kept are the last snapshots of its volumes, one of each, which are all that there
// is of it then. Left_over are machines, volumes, balancers, addresses that answer, and records that are there besides, then or
// when the parent has been terminated too and these snapshots have been deleted.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/replication"
)

// options are the flags.
type options struct {
	gb      float64
	writers int
	www     int
	policy  replication.Policy
	volumes bool
	json    bool
}

// summary is the result.
type summary struct {
	Summary     bool    `json:"summary"`
	GB          float64 `json:"gb"`
	Policy      string  `json:"policy"`
	Snapshot    bool    `json:"snapshot"`
	Rows        int     `json:"rows"`    // of the twin
	Written     int     `json:"written"` // commits of the parent's writers while it was cloned
	CloneMs     int64   `json:"clone_ms"`
	PauseMs     float64 `json:"clone_pause_ms"`
	BeforeMs    float64 `json:"before_pause_ms"`
	FromReplica bool    `json:"from_replica"`
	RowsEqual   bool    `json:"rows_equal"`
	Scrubbed    bool    `json:"scrubbed"`
	Isolated    bool    `json:"isolated"`
	Kept        int     `json:"kept"`
	Moved
	Rolled
	LeftOver int `json:"left_over"`

	volumes   int // of the twin
	badImages int // that were tried
}

func main() {
	var o options
	var policy string
	flag.Float64Var(&o.gb, "gb", 1, "how much data the parent has, in GB")
	flag.IntVar(&o.writers, "writers", 4, "the parent's writers")
	flag.IntVar(&o.www, "www", 20, "how many web servers are updated beside three database servers; 0 updates nothing")
	flag.StringVar(&policy, "policy", "durability", "the parent's policy: availability or durability")
	flag.BoolVar(&o.volumes, "snapshot", false, "clone by a snapshot of a volume instead of a copy over the network")
	flag.BoolVar(&o.json, "json", false, "print every event as a line of JSON, not only the summary")
	serve := flag.Bool("serve", false, "be a web server (the farm does that)")
	flag.Parse()
	if *serve {
		fmt.Fprintln(os.Stderr, serveWeb())
		os.Exit(1)
	}
	if policy == replication.Durability.String() {
		o.policy = replication.Durability
	}
	err := errors.Join(
		check(o.gb > 0 && o.gb <= 100, "-gb is %v, want more than 0 and at most 100", o.gb),
		check(o.writers > 0, "-writers is %d, want at least 1", o.writers),
		check(o.www == 0 || o.www > 1 && o.www <= 1000, "-www is %d, want 2 to 1000, or 0", o.www),
		check(policy == o.policy.String(), "-policy is %q, want availability or durability", policy))
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		var s summary
		if s, err = run(ctx, o); err == nil {
			print(s)
			err = s.verdict()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func print(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// verdict is nil unless something is wrong that never may be. How long it took is for the reader to judge.
func (s summary) verdict() error {
	return errors.Join(
		check(s.RowsEqual, "the twin's rows are not those of the parent at that moment"),
		check(s.Scrubbed, "the twin has what should have been scrubbed"),
		check(s.Isolated, "the twin and its parent can reach each other"),
		check(s.Kept == s.volumes, "%d snapshots of the twin's %d volumes are left, want one of each", s.Kept, s.volumes),
		check(s.Lost == 0, "%d acknowledged rows were lost in the move and the updates", s.Lost),
		check(s.FailedReads == 0, "%d reads failed during the move", s.FailedReads),
		check(s.RollFailed == 0, "%d requests failed during the updates", s.RollFailed),
		check(s.BadLaunches == s.badImages, "%d machines of bad images were launched, want one of each role", s.BadLaunches),
		check(s.LeftOver == 0, "%d things are left over", s.LeftOver))
}

func run(ctx context.Context, o options) (s summary, err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	s = summary{Summary: true, GB: o.gb, Policy: o.policy.String(), Snapshot: o.volumes}

	parent, err := w.parent(ctx)
	if err != nil {
		return s, err
	}
	rows, err := parent.load(ctx, o.gb)
	if err != nil {
		return s, fmt.Errorf("loading the parent: %w", err)
	}
	t := parent.write(ctx, o.writers, rows)
	defer t.stop()
	before := time.Now()
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return s, context.Cause(ctx)
	}

	began := time.Now()
	twin, err := w.twin(ctx, parent)
	if err != nil {
		return s, err
	}
	ended := time.Now()
	t.stop()
	if t.err != nil {
		return s, fmt.Errorf("a writer of the parent's: %w", t.err)
	}
	s.CloneMs = ended.Sub(began).Milliseconds()
	s.BeforeMs, _ = t.longest(before, began)
	s.PauseMs, s.Written = t.longest(began, ended)

	at, source, err := twin.origin()
	if err != nil {
		return s, err
	}
	old, _ := parent.manager.Topology()
	primary, _ := old.Member(old.Primary)
	if s.FromReplica = source != primary.Member.Addr; o.volumes {
		if source, err = twin.copied(); err != nil {
			return s, err
		}
		s.FromReplica = source != primary.Member.ID
	}
	if s.Rows, s.RowsEqual, err = compare(ctx, parent, twin, t.at(at), rows); err != nil {
		return s, err
	}
	if s.Scrubbed, err = scrubbed(ctx, parent, twin); err != nil {
		return s, err
	}
	reached, err := reaches(ctx, parent, twin)
	if err != nil {
		return s, err
	}
	if s.Isolated = len(reached) == 0; !s.Isolated {
		fmt.Fprintln(os.Stderr, strings.Join(reached, "\n"))
	}
	s.volumes = twin.spec.Roles[0].Min
	var left int
	if s.Kept, left, err = twin.expire(ctx); err != nil {
		return s, fmt.Errorf("the end of the twin: %w", err)
	}
	if s.Moved, err = parent.move(ctx, o.writers); err != nil {
		return s, fmt.Errorf("moving: %w", err)
	}
	if o.www > 0 {
		rolled, lost, err := parent.roll(ctx, o.writers, o.www)
		if err != nil {
			return s, fmt.Errorf("rolling updates: %w", err)
		}
		s.Rolled, s.Lost, s.badImages = rolled, s.Lost+lost, 2
	}
	if err := parent.end(ctx); err != nil {
		return s, err
	}
	s.LeftOver, err = w.left(ctx)
	s.LeftOver += left
	return s, err
}

// expire lets the farm's end come, by its spec. It tells how many last snapshots of its volumes are left, which it deletes, and how many
// other things.
func (s *site) expire(ctx context.Context) (kept, left int, err error) {
	spec := s.spec
	spec.End = &farm.End{At: time.Now().Add(time.Second), TerminateOptions: farm.TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}}
	if err := s.run(spec); err != nil {
		return 0, 0, err
	}
	if err := until(ctx, "it has ended", time.Hour, func() bool { return s.told(farm.Terminated, "") }); err != nil {
		return 0, 0, err
	}
	s.halt()
	s.ended = true
	tags := map[string]string{farm.TagFarm: spec.Name}
	if left, err = s.w.leftIn(ctx, tags, spec.Zone); err != nil {
		return 0, 0, err
	}
	snapshots, err := s.w.cloud.Snapshots(ctx, tags)
	if err != nil {
		return 0, 0, err
	}
	of := map[string]bool{}
	for _, x := range snapshots {
		if x.Ready && x.Tags[farm.TagFinal] != "" && !of[x.Volume] {
			of[x.Volume] = true
			kept++
			left-- // this is what shall be left
		}
		err = errors.Join(err, s.w.cloud.DeleteSnapshot(ctx, x.ID))
	}
	return kept, left, err
}

// end terminates the farm, data included.
func (s *site) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := s.farm.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true})
	s.ended = err == nil
	return err
}

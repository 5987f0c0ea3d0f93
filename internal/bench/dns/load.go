package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/internal/testenv"
)

const (
	zone = "bench.example."
	ours = "ours"
)

// programs are the servers that take turns.
var programs = []string{ours, "named", "knotd"}

// turn is what one server did in one turn.
type turn struct {
	Server  string  `json:"server"`
	Round   int     `json:"round"`
	Queries int     `json:"queries"`
	QPS     float64 `json:"queries_per_second"`
	CPU     float64 `json:"cpu_us_per_query"`
	Lost    int     `json:"lost"`
}

func record(i int) (name, address string) {
	a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return fmt.Sprintf("host%d.%s", i, zone), a.String()
}

// load runs all servers at once and lets dnsperf ask them in turn; those that wait cost nothing.
func load(t testing.TB, o options) ([]turn, error) {
	dnsperf := testenv.Need(t, "dnsperf")[0]
	dir := testenv.Dir(t)
	questions := filepath.Join(dir, "questions")
	if err := os.WriteFile(questions, []byte(questionFile(o.Records)), 0o600); err != nil {
		return nil, err
	}
	addrs, pids := map[string]string{}, map[string]func() []string{}
	file := zoneFile(o.Records)
	for _, program := range programs[1:] {
		s := testenv.NameServer(t, program, testenv.DNS{Zone: strings.TrimSuffix(zone, "."), File: file})
		addrs[program] = s.Addr
		pids[program] = func() []string { return testenv.Processes(s.ID) }
	}
	addr, pid, err := start(t, o.Records)
	if err != nil {
		return nil, err
	}
	addrs[ours], pids[ours] = addr, func() []string { return []string{strconv.Itoa(pid)} }
	for _, program := range programs {
		if err := loaded(t.Context(), addrs[program], o.Records); err != nil {
			return nil, fmt.Errorf("%s: %w", program, err)
		}
	}
	var turns []turn
	for round := range o.Rounds {
		for _, program := range programs {
			before, err := cpu(pids[program]())
			if err != nil {
				return nil, err
			}
			turn, err := ask(t.Context(), dnsperf, addrs[program], questions, o.For)
			if err != nil {
				return nil, fmt.Errorf("dnsperf against %s: %w", program, err)
			}
			after, err := cpu(pids[program]())
			if err != nil {
				return nil, err
			}
			turn.Server, turn.Round = program, round
			turn.CPU = float64((after - before).Microseconds()) / float64(turn.Queries)
			turns = append(turns, turn)
		}
	}
	return turns, nil
}

func zoneFile(records int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%[1]s 3600 IN SOA ns.%[1]s hostmaster.%[1]s 1 3600 600 1209600 20\n%[1]s 3600 IN NS ns.%[1]s\nns.%[1]s 3600 IN A 127.0.0.1\n", zone)
	for i := range records {
		name, address := record(i)
		fmt.Fprintf(&b, "%s 20 IN A %s\n", name, address)
	}
	return b.String()
}

// questionFile asks for every name, in an order that no cache of the processor can use.
func questionFile(records int) string {
	var b strings.Builder
	for i := range records {
		name, _ := record(i * 7919 % records)
		fmt.Fprintf(&b, "%s A\n", name)
	}
	return b.String()
}

// start runs this program with -serve, for its processor time to be its own, and gives the address and the process.
func start(t testing.TB, records int) (addr string, pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	cmd := exec.Command(self, "-serve", "-records", strconv.Itoa(records))
	if p := os.Getenv("CPUPROFILE"); p != "" {
		cmd.Args = append(cmd.Args, "-cpuprofile", p)
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // it ends with its standard input, also when this program is killed
	if err != nil {
		return "", 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("our server: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line), cmd.Process.Pid, err
}

// serveZone is our server: it prints its address, and serves until its standard input ends.
func serveZone(records int, profile string) error {
	s, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: zone}}})
	if err != nil {
		return err
	}
	changes := make([]dnsreg.Change, records)
	for i := range changes {
		name, address := record(i)
		changes[i] = dnsreg.Change{Name: name, Type: "A", New: &dnsreg.RRset{Name: name, Type: "A", TTL: 20 * time.Second, Values: []string{address}}}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := s.Apply(ctx, zone, changes); err != nil {
		return err
	}
	changes = nil
	debug.FreeOSMemory() // what loading has left behind is not what queries cost
	fmt.Println(s.Addr())
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return s.Run(ctx)
}

// loaded waits until a server answers for the zone's last record.
func loaded(ctx context.Context, addr string, records int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	name, want := record(records - 1)
	client := &dns.Client{Timeout: time.Second}
	for {
		m, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), addr)
		if err == nil && len(m.Answer) == 1 && m.Answer[0].(*dns.A).A.String() == want {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it does not answer for %s", name), err)
		}
	}
}

var (
	completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	lost      = regexp.MustCompile(`Queries lost:\s+(\d+)`)
	noError   = regexp.MustCompile(`Response codes:\s+NOERROR (\d+)`)
	rate      = regexp.MustCompile(`Queries per second:\s+([\d.]+)`)
)

// ask runs dnsperf. Every answer must be one.
func ask(ctx context.Context, dnsperf, addr, questions string, d time.Duration) (t turn, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return t, err
	}
	out, err := exec.CommandContext(ctx, dnsperf, "-s", host, "-p", port, "-d", questions, "-l", strconv.Itoa(int(d.Seconds())),
		"-c", "16", "-T", "1", "-q", "100").CombinedOutput()
	if err != nil {
		return t, fmt.Errorf("%w\n%s", err, out)
	}
	number := func(r *regexp.Regexp) (f float64) {
		m := r.FindSubmatch(out)
		if m == nil {
			err = fmt.Errorf("its output has no %s:\n%s", r, out)
			return 0
		}
		f, _ = strconv.ParseFloat(string(m[1]), 64)
		return f
	}
	t.Queries, t.Lost, t.QPS = int(number(completed)), int(number(lost)), number(rate)
	good := int(number(noError))
	if err == nil && (t.Queries == 0 || good != t.Queries) {
		err = fmt.Errorf("%d of %d answers are NOERROR", good, t.Queries)
	}
	return t, err
}

// cpu gives the processor time that the processes have spent, user and system. They are as "pid" or "pid (name)".
func cpu(processes []string) (total time.Duration, err error) {
	for _, p := range processes {
		pid, _, _ := strings.Cut(p, " ")
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 13 {
			return 0, fmt.Errorf("/proc/%s/stat is %q", pid, stat)
		}
		for _, ticks := range f[11:13] { // utime and stime, in hundredths of a second (proc(5))
			n, err := strconv.Atoi(ticks)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * 10 * time.Millisecond
		}
	}
	if len(processes) == 0 {
		return 0, errors.New("the server has no process")
	}
	return total, nil
}

// Deploytool is a command-line deployment tool of the kind that this library is for. It reads a farm from a YAML file and runs
// it on this machine, with nothing installed: the machines are processes that serve a page, in a state directory.
//
//	go build -o /tmp/deploytool ./examples/deploytool && cd examples/deploytool
//	/tmp/deploytool plan               what would be done now, and why
//	/tmp/deploytool apply              do it until the farm rests
//	/tmp/deploytool status             what there is, and what happened last
//	/tmp/deploytool roll -role www web-1.1
//	/tmp/deploytool move -role www other   to the other pool: launched there, then ended here; to go back, move it to local
//	/tmp/deploytool clone twin         a twin with machines of its own, from a copy of the file: twin.yaml
//	/tmp/deploytool clone night -weekdays 9-17 -until "fri 18:00" -scale 0.5 -size www=small
//	/tmp/deploytool -spec twin.yaml -role www -speed 60 replay trace.csv   an hour of recorded load in a minute, or an access.log
//	/tmp/deploytool terminate          end the farm; -delete-volumes deletes its data too
//
// A farm whose spec has hours is put away into snapshots by an apply outside of them, and opened by one within them, and one whose
// spec has an end is ended by an apply after it: a cron job that applies them each quarter of an hour keeps both. The plan says
// when they come next, and what the farm costs then and now, at the prices of a cloud that is made up.
//
// Each command is a program of its own that finds by their tags what earlier ones have launched. Between two of them nobody
// watches: what dies is replaced by the next apply. That is also why a spec has no zone here. A name server would live no
// longer than a command; a tool for a real zone sets Config.DNS to a registrar such as dnsreg/rfc2136 or dnsreg/route53, and
// a program that is to watch, scale and recover calls Farm.Run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "-web" {
		fail(serve(os.Args[2])) // what a machine runs
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends a program that waits for an answer
	fail(run(ctx, os.Args[1:], os.Stdin, os.Stdout))
}

func fail(err error) {
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "deploytool:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// tool is a command with its options.
type tool struct {
	state, spec   string
	yes           bool
	role          string
	deleteVolumes bool
	speed         float64
	twin          twinFlags

	in  io.Reader
	out *progress
}

// commands are what the tool can do, each with the name of its argument.
var commands = map[string]struct {
	argument string
	do       func(context.Context, *tool, *document, string) (summary, error)
}{
	"plan":      {"", plan},
	"apply":     {"", apply},
	"status":    {"", status},
	"roll":      {"IMAGE", roll},
	"move":      {"POOL", move},
	"clone":     {"NAME", clone},
	"replay":    {"FILE", replayLoad},
	"terminate": {"", terminate},
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	t := &tool{in: in}
	flags := flag.NewFlagSet("deploytool", flag.ContinueOnError)
	flags.StringVar(&t.state, "state", ".deploytool", "the directory that keeps the machines and the journal")
	flags.StringVar(&t.spec, "spec", "shop.yaml", "the file that says what the farm is")
	flags.BoolVar(&t.yes, "yes", false, "do not ask before something is done")
	flags.StringVar(&t.role, "role", "", "roll, move, replay: which role; move takes all without it")
	flags.BoolVar(&t.deleteVolumes, "delete-volumes", false, "terminate: delete the volumes, and the data with them")
	flags.Float64Var(&t.speed, "speed", 1, "replay: how many times faster than it was the load comes")
	flags.StringVar(&t.twin.until, "until", "", `clone: when the twin ends, such as "tue 08:00", "tue 08:00 Europe/Paris" or 2026-12-01T08:00:00Z; a last snapshot of each volume is kept`)
	flags.StringVar(&t.twin.weekdays, "weekdays", "", `clone: the hours of Monday to Friday in which the twin is there, such as 9-17 or "8:30-18 Europe/Paris"; outside of them its volumes are snapshots`)
	flags.Float64Var(&t.twin.scale, "scale", 1, "clone: what the numbers of machines are multiplied by; of what there is, one stays")
	flags.Func("size", "clone: ROLE=`SIZE` of the twin's machines; again for another role", t.twin.size)
	asJSON := flags.Bool("json", false, "print a JSON object a line, the last of them a summary")
	timeout := flags.Duration("timeout", 5*time.Minute, "how long a command may take")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "deploytool [flags] plan | apply | status | roll IMAGE | move POOL | clone NAME | replay FILE | terminate")
		flags.PrintDefaults()
	}
	// Flags may stand before the command, behind it and behind its argument.
	var words []string
	for rest := args; ; rest = flags.Args()[1:] {
		if err := flags.Parse(rest); err != nil {
			return err
		}
		if flags.NArg() == 0 {
			break
		}
		words = append(words, flags.Arg(0))
	}
	if len(words) == 0 {
		flags.Usage()
		return errors.New("there is no command, want plan, apply, status, roll, move, clone, replay or terminate")
	}
	command, ok := commands[words[0]]
	if !ok {
		return fmt.Errorf("%q is no command, want plan, apply, status, roll, move, clone, replay or terminate", words[0])
	}
	argument := ""
	if command.argument != "" && len(words) == 2 {
		argument = words[1]
	} else if command.argument != "" || len(words) != 1 {
		return fmt.Errorf("%s: the arguments are %q, want: %[1]s %[3]s", words[0], words[1:], command.argument)
	}
	if *asJSON && !t.yes && words[0] != "plan" && words[0] != "status" && words[0] != "replay" {
		return fmt.Errorf("-json: %s cannot ask then, want -yes too", words[0])
	}
	for _, name := range []string{"until", "weekdays", "scale", "size"} {
		if words[0] != "clone" && given(flags, name) {
			return fmt.Errorf("-%s: is for clone, not for %s", name, words[0])
		}
	}
	t.out = newProgress(out, *asJSON)
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("it took longer than -timeout %v", *timeout))
	defer cancel()
	doc, err := readSpec(t.spec)
	var sum summary
	if err == nil {
		sum, err = command.do(ctx, t, doc, argument)
	}
	sum.Summary, sum.Command = true, words[0]
	if err != nil {
		sum.Err = err.Error()
	}
	if *asJSON || err == nil {
		t.out.say(sum, sum.String())
	}
	return err
}

// given reports whether a flag was set.
func given(flags *flag.FlagSet, name string) (is bool) {
	flags.Visit(func(f *flag.Flag) { is = is || f.Name == name })
	return is
}

// summary is the last line with -json.
type summary struct {
	Summary  bool           `json:"summary"`
	Command  string         `json:"command"`
	Farm     string         `json:"farm,omitempty"`
	Steps    int            `json:"steps"`             // that the plan has, or had before it was done
	Machines int            `json:"machines"`          // that there are now
	Running  int            `json:"running"`           // of these
	Images   map[string]int `json:"images,omitempty"`  // machines by what they run
	Pools    map[string]int `json:"pools,omitempty"`   // machines by where they are
	Volumes  []string       `json:"volumes,omitempty"` // that there are now
	Err      string         `json:"error,omitempty"`
}

func (s summary) String() string {
	return fmt.Sprintf("Farm %s: %d machines, %d of them run, and %d volumes.", s.Farm, s.Machines, s.Running, len(s.Volumes))
}

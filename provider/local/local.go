// Package local is a provider whose instances are real processes on this machine, for development, for tests against real
// servers, and for small sites on one machine. It works on Linux; elsewhere New fails with errors.ErrUnsupported.
//
// # What an instance is
//
// An [Image] says which program an instance runs. Each instance has a directory of its own, a loopback address of its own
// (every address in 127.0.0.0/8 is this machine), and the volumes that it was given, which are directories too. Its
// program runs under a few lines of /bin/sh, apart from the program that launched it: it survives that program and is
// found again by the next one. Its output goes to output.log in its directory, and its exit status is kept.
//
// An instance whose program ends by itself is Failed, with a reason: "killed by signal 9", "exit status 1: " and the last
// line of its output. Reasons are as public as the program's output.
//
// # Nothing escapes
//
// Every process of an instance carries two marks that it hands down to its children: SCALR_INSTANCE in its environment,
// and a peculiar value of RLIMIT_RSS, a resource limit without effect since Linux 2.4.30 (setrlimit(2)), which outlives
// a changed environment, a new session and the death of the parent. Stop and Terminate kill whatever bears a mark,
// and return when a search has found nothing more. No privileges are needed.
//
// # State
//
// All state is small JSON files in Options.Dir, replaced atomically, and locks on files, which the kernel releases when a
// program dies. Several programs may use one Dir at once. A launch writes its intent first; the process waits for the
// record to be complete before it runs the program, and ends if the launching program dies before that. A launch that
// was interrupted is resumed by the next Launch with its token, and until then listed as Failed.
//
// # Balancers
//
// A balancer is an HAProxy (2.6 or later; Debian package haproxy) at a loopback address of its own. It is started, marked,
// found again and ended as an instance is, and started again by the next call if its process has died. It is told of
// targets over its Unix socket, while it runs, so that no connection is lost when targets come and go: it is never
// reloaded. The record of the targets is written first, and HAProxy is brought in line with it; a program that dies in
// between leaves the rest to the next call that concerns the balancer. Without HAProxy, CreateBalancer is
// errors.ErrUnsupported, and everything else works.
//
// A target is checked every second, and every quarter or half a second while it is new, failing or down: one success makes
// it healthy, two failures in a row unhealthy. A connection that a target refuses is tried at another one. In mode "http"
// each request goes to the next target in turn, with X-Forwarded-For, and may take five minutes between two bytes; in mode
// "tcp" a connection goes to the target that has the fewest, and may be idle for an hour.
//
// # What it does not do
//
// It is no isolation: instances share the machine, its users and its file systems. The size of a volume is not enforced.
// An instance's public address is its private one. There are none that move from one instance to another, since a process that has bound one address does
// not answer at another one, so that provider.Addresses would be a pretence. Networks, security groups, keys and spot
// capacity do not exist here, and a Launch that asks for them is ErrInvalid. The only placement is "local".
package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Placement is the only placement that there is.
const Placement = "local"

// Options say where a Cloud keeps its things and what it can run.
type Options struct {
	// Dir is where everything is kept. It is created with mode 0700 if need be. Programs that listen on Unix sockets
	// want it short: a socket's path has at most 108 bytes. Required.
	Dir string
	// Images are what can be launched, by the name that Launch.Image takes. Programs that share a Dir need not have the
	// same ones: listing and ending an instance does without its image, starting it does not.
	Images map[string]Image
	// Prefix is where instances get their loopback addresses, within 127.0.0.0/8; the default is 127.77.0.0/16. Its
	// first and last address are not used. Each Dir begins elsewhere in it, and addresses that are listened on are passed
	// over, so that several Dirs can share a Prefix.
	Prefix netip.Prefix
	// Sizes are the names that Launch.Size takes, beside none. Without any, it takes whatever an image makes of it.
	Sizes []string
	// Quota is how many instances there may be that are not terminated; a Launch beyond it is ErrQuota. 0 is no limit.
	Quota int
}

// Image says what an instance runs.
type Image struct {
	// Prepare lays out files in the machine's directory or its volumes before the first start. It runs again from an
	// empty directory if the program dies meanwhile, but volumes are then as it left them. If it fails, so does the
	// Launch, and nothing is left but the volumes. Optional.
	Prepare func(context.Context, Machine) error
	// Starting is called before each start, when nothing of an earlier one runs any more. If it fails, so does the start. Optional.
	Starting func(context.Context, Machine) error
	// Command says what to run, at each start. Required.
	Command func(Machine) Command
	// Port is the TCP port that must accept a connection before the instance is Running; until then it is Pending. 0: it
	// is Running at once.
	Port int
	// Grace is how long Terminate lets the program end by itself, after a SIGTERM, before it kills it. 0 kills at once.
	Grace time.Duration
}

// Machine is an instance as its image sees it.
type Machine struct {
	ID, Name, Image, Size string
	Dir                   string     // its own directory, 0700, and where its program starts
	Addr                  netip.Addr // its own loopback address
	Volumes               []string   // the directories of its volumes, in the order of Launch.Volumes
	UserData              []byte     // may hold secrets
	Tags                  map[string]string
}

// Command is a program to run. There is no shell.
type Command struct {
	// Args are the program and its arguments, which every user of the machine can see. The program is looked up on PATH
	// if it has no slash, and in the machine's directory if it is relative.
	Args []string
	// Env is "KEY=value". Beside it a program gets PATH, HOME (its directory), SCALR_INSTANCE, SCALR_NAME, SCALR_ADDR,
	// SCALR_DIR and SCALR_VOLUMES (joined by colons), and nothing else of the environment of this program.
	Env []string
}

// Cloud is a provider of local instances. Its methods are safe for concurrent use, within one program and between
// several.
type Cloud struct {
	opts  Options
	store store
	// haproxy is the name of the program that balancers run.
	haproxy string
	// step is called with the name of each step of a launch as it is done. Tests die in it.
	step func(string)
}

var (
	_ provider.Provider  = (*Cloud)(nil)
	_ provider.Volumes   = (*Cloud)(nil)
	_ provider.Snapshots = (*Cloud)(nil)
	_ provider.Balancers = (*Cloud)(nil)
	_ provider.Traffic   = (*Cloud)(nil)
	_ provider.Power     = (*Cloud)(nil)
	_ provider.Tagger    = (*Cloud)(nil)
	_ provider.Commands  = (*Cloud)(nil)
)

// New returns the cloud in o.Dir. It starts no process and finds again what another program launched there.
func New(o Options) (*Cloud, error) {
	if err := supported(); err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	if !o.Prefix.IsValid() {
		o.Prefix = netip.MustParsePrefix("127.77.0.0/16")
	}
	o.Prefix = o.Prefix.Masked()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("local: "+format, args...)) }
	if o.Dir == "" {
		bad("Options.Dir is empty, want a directory")
	}
	loop := netip.MustParsePrefix("127.0.0.0/8")
	if !loop.Contains(o.Prefix.Addr()) || o.Prefix.Bits() < 8 || o.Prefix.Bits() > 30 {
		bad("Options.Prefix is %s, want a part of 127.0.0.0/8 of at least 4 addresses", o.Prefix)
	}
	if o.Quota < 0 {
		bad("Options.Quota is %d, want at least 0", o.Quota)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Images)) {
		im := o.Images[name]
		if name == "" {
			bad("Options.Images has an image without a name")
		}
		if im.Command == nil {
			bad("Options.Images[%s].Command is nil, want a func", name)
		}
		if im.Port < 0 || im.Port > 65535 {
			bad("Options.Images[%s].Port is %d, want 1 to 65535, or 0 for none", name, im.Port)
		}
		if im.Grace < 0 {
			bad("Options.Images[%s].Grace is %s, want at least 0", name, im.Grace)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	o.Images, o.Sizes = maps.Clone(o.Images), slices.Clone(o.Sizes)
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("local: Options.Dir: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return nil, fmt.Errorf("local: Options.Dir: %w", err)
	}
	// As the kernel names it: what processes have open is compared with it, and two hosts shall mean the same.
	if o.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("local: Options.Dir: %w", err)
	}
	return &Cloud{opts: o, store: store{dir: filepath.Join(o.Dir, "state")}, haproxy: "haproxy", step: func(string) {}}, nil
}

// machine gives r as its image sees it.
func (c *Cloud) machine(r instance) Machine {
	m := Machine{
		ID: r.ID, Name: r.Launch.Name, Image: r.Launch.Image, Size: r.Launch.Size, Dir: c.Dir(r.ID), Addr: r.Addr,
		UserData: slices.Clone(r.Launch.UserData), Tags: r.tags(),
	}
	for _, v := range r.Volumes {
		m.Volumes = append(m.Volumes, c.Dir(v))
	}
	return m
}

// environ is what the machine's processes get, with their own variables. These win, but over the mark by which its processes are found.
func environ(m Machine, own []string) []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	env := []string{"PATH=" + path, "HOME=" + m.Dir, "SCALR_NAME=" + m.Name, "SCALR_ADDR=" + m.Addr.String(), "SCALR_DIR=" + m.Dir,
		"SCALR_VOLUMES=" + strings.Join(m.Volumes, ":")}
	return append(append(env, own...), instanceMark(m.ID).env)
}

// freeAddr picks an address that no instance and no balancer has. Those of terminated instances come last: a client that has
// not noticed yet should meet nobody rather than somebody else. A balancer always notices.
func (c *Cloud) freeAddr(op, token string, all []instance) (netip.Addr, error) {
	balancers, err := list[instance](c.store, kindBalancer)
	if err != nil {
		return netip.Addr{}, err
	}
	taken, late := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, r := range balancers {
		taken[r.Addr] = true
		for _, t := range r.Balancer.Targets {
			taken[t.Addr] = true
		}
	}
	for _, r := range all {
		if r.Phase == phaseTerminated {
			late[r.Addr] = true
		} else {
			taken[r.Addr] = true
		}
	}
	for a := range listening() {
		taken[a] = true
	}
	h := fnv.New64a()
	h.Write([]byte(c.opts.Dir))
	n := uint64(1)<<(32-c.opts.Prefix.Bits()) - 2
	start, base := h.Sum64(), binary.BigEndian.Uint32(c.opts.Prefix.Addr().AsSlice())
	var second netip.Addr
	for i := range n {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], base+1+uint32((start+i)%n))
		a := netip.AddrFrom4(b)
		switch {
		case taken[a]:
		case !late[a]:
			return a, nil
		case !second.IsValid():
			second = a
		}
	}
	if !second.IsValid() {
		return second, provider.Errorf(op, token, provider.ErrCapacity, "all addresses of %s are taken", c.opts.Prefix)
	}
	return second, nil
}

// Dir is the directory of an instance, a volume, a snapshot or a balancer. It need not exist.
func (c *Cloud) Dir(id string) string { return filepath.Join(c.opts.Dir, id) }

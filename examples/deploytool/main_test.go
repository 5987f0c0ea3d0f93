package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/journal"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// TestMain makes the test binary the web server as well: it is the program that machines run.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "-web" {
		fail(serve(os.Args[2]))
	}
	os.Exit(m.Run())
}

const two = `name: shop # the farm's name
roles:
- name: store
  image: web-1.0
  port: 8080
  min: 1
  max: 1
  health: {path: /healthz}
  volume: {size_gb: 1}
- name: www
  serves: web
  image: web-1.0 # what roll changes
  port: 8080
  min: 2
  max: 3
  after: [store]
  drain: -1s
  health: {path: /healthz}
  update: {}
  pools: [local] # where
  move: {}
`

// place is a state directory and a spec file in which commands are given, each as if by a program of its own.
type place struct {
	t         *testing.T
	dir, spec string
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	p := &place{t, filepath.Join(dir, "state"), filepath.Join(dir, "shop.yaml")}
	require.NoError(t, os.WriteFile(p.spec, []byte(two), 0o600))
	t.Cleanup(func() { // whatever has gone wrong
		for _, pool := range pools {
			c, err := local.New(local.Options{Dir: filepath.Join(p.dir, pool.dir)})
			require.NoError(t, err)
			all, _ := c.Instances(context.Background(), nil)
			for _, m := range all {
				_ = c.Terminate(context.Background(), m.ID)
			}
		}
	})
	return p
}

// do gives a command, and what it says at its end.
func (p *place) do(args ...string) (sum summary, err error) {
	p.t.Helper()
	var out bytes.Buffer
	err = run(p.t.Context(), append([]string{"-state", p.dir, "-spec", p.spec, "-json", "-yes"}, args...), strings.NewReader(""), &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines {
		require.True(p.t, json.Valid([]byte(line)), line)
	}
	require.NoError(p.t, json.Unmarshal([]byte(lines[len(lines)-1]), &sum))
	require.True(p.t, sum.Summary)
	if err != nil {
		require.Equal(p.t, err.Error(), sum.Err)
	}
	return sum, err
}

func (p *place) cloud() *local.Cloud {
	c, err := local.New(local.Options{Dir: filepath.Join(p.dir, "machines")})
	require.NoError(p.t, err)
	return c
}

// machines gives what there is of a farm, by machine what it runs, having asked each of them.
func (p *place) machines(name string) (ids map[string]string) {
	p.t.Helper()
	all, err := p.cloud().Instances(p.t.Context(), map[string]string{farm.TagFarm: name})
	require.NoError(p.t, err)
	ids = map[string]string{}
	for _, m := range all {
		if m.State.Gone() {
			continue
		}
		require.Equal(p.t, provider.Running, m.State)
		ids[m.ID] = m.Image
		resp, err := http.Get("http://" + m.Private.String() + ":8080/")
		require.NoError(p.t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(p.t, errors.Join(err, resp.Body.Close()))
		require.Equal(p.t, m.Image+" on "+m.Name+"\n", string(body))
	}
	return ids
}

func TestLife(t *testing.T) {
	p := newPlace(t)
	ok := func(args ...string) summary {
		t.Helper()
		sum, err := p.do(args...)
		require.NoError(t, err)
		require.Empty(t, sum.Err)
		return sum
	}
	is := func(sum summary, machines int, images map[string]int, volumes int) {
		t.Helper()
		require.Equal(t, machines, sum.Machines)
		require.Equal(t, machines, sum.Running)
		require.Equal(t, images, sum.Images)
		require.Len(t, sum.Volumes, volumes)
	}
	file := func() string {
		text, err := os.ReadFile(p.spec)
		require.NoError(t, err)
		return string(text)
	}

	is(ok("plan"), 0, nil, 0)
	is(ok("apply"), 3, map[string]int{"web-1.0": 3}, 1)
	first := p.machines("shop")
	require.Len(t, first, 3)
	sum := ok("apply")
	is(sum, 3, map[string]int{"web-1.0": 3}, 1)
	require.Zero(t, sum.Steps)
	require.Equal(t, first, p.machines("shop"), "what is there stays")

	is(ok("roll", "-role", "www", "web-1.1"), 3, map[string]int{"web-1.0": 1, "web-1.1": 2}, 1)
	require.Equal(t, strings.Replace(two, "web-1.0 # what", "web-1.1 # what", 1), file())
	second := p.machines("shop")
	require.Len(t, second, 3)
	for id, image := range second {
		require.Equal(t, image == "web-1.0", first[id] != "", "the store stays, and the web servers are new")
	}
	require.Zero(t, ok("plan").Steps, "the file says what there is")

	_, err := p.do("roll", "-role", "www", "web-broken")
	require.ErrorIs(t, err, errGivenUp)
	require.Equal(t, strings.Replace(two, "web-1.0 # what", "web-1.1 # what", 1), file(), "the file is as before")
	is(ok("status"), 3, map[string]int{"web-1.0": 1, "web-1.1": 2}, 1)
	require.Zero(t, ok("plan").Steps)

	// What dies between two commands is replaced by the next.
	before := p.machines("shop")
	for id, image := range before {
		if image == "web-1.1" {
			require.NoError(t, p.cloud().Terminate(t.Context(), id))
			break
		}
	}
	sum = ok("status")
	require.Equal(t, 2, sum.Machines)
	require.Equal(t, 1, sum.Steps)
	is(ok("apply"), 3, map[string]int{"web-1.0": 1, "web-1.1": 2}, 1)

	// One role moves to the other pool and back, each of its machines being there before those here end.
	sum = ok("move", "-role", "www", "other")
	is(sum, 3, map[string]int{"web-1.0": 1, "web-1.1": 2}, 1)
	require.Equal(t, map[string]int{"local": 1, "other": 2}, sum.Pools)
	require.Equal(t, strings.NewReplacer("web-1.0 # what", "web-1.1 # what", "[local] # where", "[other] # where").Replace(two), file())
	require.Zero(t, ok("plan").Steps)
	sum = ok("move", "-role", "www", "local")
	require.Equal(t, map[string]int{"local": 3}, sum.Pools)
	before = p.machines("shop")

	is(ok("clone", "twin"), 3, map[string]int{"web-1.0": 1, "web-1.1": 2}, 1)
	require.Equal(t, before, p.machines("shop"), "the parent is not touched")
	twin := filepath.Join(filepath.Dir(p.spec), "twin.yaml")
	text, err := os.ReadFile(twin)
	require.NoError(t, err)
	require.Equal(t, strings.Replace(file(), "shop", "twin", 1), string(text))
	_, err = p.do("clone", "twin")
	require.ErrorContains(t, err, "twin.yaml: is there already")

	is(ok("terminate"), 0, nil, 1) // the data stays
	require.Len(t, p.machines("twin"), 3)
	is(ok("terminate", "-delete-volumes"), 0, nil, 0)
	is(ok("terminate", "-delete-volumes", "-spec", twin), 0, nil, 0)
	all, err := p.cloud().Instances(t.Context(), nil)
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(all, func(m provider.Instance) bool { return !m.State.Gone() }), "nothing is left")
	volumes, err := p.cloud().Volumes(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, volumes)

	log := filepath.Join(p.dir, "journal")
	last, err := (&journal.File{Path: log}).Read(t.Context(), journal.Query{Farm: "twin", Last: 1})
	require.NoError(t, err)
	require.Equal(t, farm.Terminated, last[0].Kind)
	for name, mode := range map[string]os.FileMode{log: 0o600, twin: 0o600, p.dir: 0o700} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
}

// Recorded load is sent to the machines of a role, and they take it.
func TestReplay(t *testing.T) {
	p := newPlace(t)
	_, err := p.do("apply")
	require.NoError(t, err)
	trace, log := filepath.Join(t.TempDir(), "trace.csv"), filepath.Join(t.TempDir(), "access.log")
	require.NoError(t, os.WriteFile(trace, []byte("t_s,requests\n0,600\n60,1200\n"), 0o600))
	entry := `192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.1" 200 1` + "\n"
	require.NoError(t, os.WriteFile(log, []byte(strings.Repeat(entry, 30)), 0o600))
	for _, args := range [][]string{{trace, "-speed", "60"}, {log}} {
		var out strings.Builder
		require.NoError(t, run(t.Context(), append([]string{"-state", p.dir, "-spec", p.spec, "-role", "www", "replay"}, args...), strings.NewReader(""), &out))
		require.Contains(t, out.String(), "30 requests in ")
		require.Contains(t, out.String(), " a second: 0 failed\n")
		require.Contains(t, out.String(), "by status 200: 30\n")
	}
	_, err = p.do("replay", log)
	require.ErrorContains(t, err, `-role is "", want a role of which machines run`)
	_, err = p.do("replay", p.spec)
	require.ErrorContains(t, err, "shop.yaml: replay: line 1 is no entry of an access log")
	_, err = p.do("terminate", "-delete-volumes")
	require.NoError(t, err)
}

// Outside of the spec's hours an apply puts the farm away, and within them the next one brings it back.
func TestHours(t *testing.T) {
	p := newPlace(t)
	const always, never = "'* * * * *'", "'0 0 29 2 *'" // the one that came last counts
	for _, c := range []struct {
		open, close       string
		machines, volumes int
	}{{always, never, 3, 1}, {never, always, 0, 0}, {never, always, 0, 0}, {always, never, 3, 1}} {
		require.NoError(t, os.WriteFile(p.spec, []byte(two+"hours: {open: "+c.open+", close: "+c.close+"}\n"), 0o600))
		_, err := p.do("plan")
		require.NoError(t, err)
		sum, err := p.do("apply")
		require.NoError(t, err)
		require.Equal(t, c.machines, sum.Running)
		require.Equal(t, c.machines, sum.Machines)
		require.Len(t, sum.Volumes, c.volumes)
		_, err = p.do("status")
		require.NoError(t, err)
	}
	snapshots, err := p.cloud().Snapshots(t.Context(), map[string]string{farm.TagFarm: "shop"})
	require.NoError(t, err)
	require.Len(t, snapshots, 1)
	volumes, err := p.cloud().Volumes(t.Context(), map[string]string{farm.TagFarm: "shop"})
	require.NoError(t, err)
	require.Len(t, volumes, 1)
	require.Equal(t, snapshots[0].ID, volumes[0].Tags[farm.TagSnapshot], "it has its data back")
}

// A twin has hours, an end, numbers and sizes of its own. Whoever is asked for it reads them and what it costs; outside of its hours it is
// put away, and an apply after its end ends it and keeps a snapshot of its data.
func TestTwin(t *testing.T) {
	p := newPlace(t)
	now := time.Now().UTC()
	tomorrow := strings.ToLower(now.AddDate(0, 0, 1).Weekday().String()[:3])
	args := []string{"-state", p.dir, "-spec", p.spec, "clone", "twin", "-until", tomorrow + " 12:00", "-scale", "0.5", "-size", "www=large"}
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), args, strings.NewReader("n\n"), &out), errDeclined)
	require.Contains(t, out.String(), "T12:00:00Z: the farm ends: it keeps a last snapshot of each volume, the snapshots by schedule\n")
	require.Contains(t, out.String(), "cost of www: 0.00 an hour, 0.00 a day; 0.08 an hour, 1.92 a day in all\n")
	require.NoFileExists(t, filepath.Join(filepath.Dir(p.spec), "twin.yaml"))
	sum, err := p.do(args[4:]...)
	require.NoError(t, err)
	require.Equal(t, 2, sum.Running)
	twin := filepath.Join(filepath.Dir(p.spec), "twin.yaml")
	out.Reset()
	require.NoError(t, run(t.Context(), []string{"-state", p.dir, "-spec", twin, "status"}, nil, &out))
	require.Contains(t, out.String(), "T12:00:00Z: the farm ends")
	require.Contains(t, out.String(), "cost of all: 0.12 an hour, 2.88 a day\n")

	d, err := readSpec(twin)
	require.NoError(t, err)
	ended := strings.Replace(string(d.text), d.spec.End.At.Format(time.RFC3339), now.Add(-time.Hour).Format(time.RFC3339), 1)
	require.NoError(t, os.WriteFile(twin, []byte(ended), 0o600))
	sum, err = p.do("apply", "-spec", twin)
	require.NoError(t, err)
	require.Zero(t, sum.Machines)
	require.Empty(t, sum.Volumes)
	snapshots, err := p.cloud().Snapshots(t.Context(), map[string]string{farm.TagFarm: "twin"})
	require.NoError(t, err)
	require.Len(t, snapshots, 1)

	// One that is not there now is put away before it is launched.
	day := now.Weekday() != time.Saturday && now.Weekday() != time.Sunday
	hours := "0-0:01"
	if day && now.Hour() == 0 {
		hours = "22-23"
	}
	sum, err = p.do("clone", "night", "-weekdays", hours)
	require.NoError(t, err)
	require.Zero(t, sum.Machines)
}

// A person is shown the plan and asked; the answer counts.
func TestAsked(t *testing.T) {
	p := newPlace(t)
	ask := func(answer string, args ...string) (string, error) {
		var out strings.Builder
		err := run(t.Context(), append([]string{"-state", p.dir, "-spec", p.spec}, args...), strings.NewReader(answer), &out)
		return out.String(), err
	}
	for _, command := range [][]string{{"apply"}, {"terminate"}, {"clone", "twin"}, {"roll", "-role", "www", "web-1.1"}, {"move", "-role", "www", "other"}} {
		for _, answer := range []string{"n\n", "\n", ""} {
			out, err := ask(answer, command...)
			require.ErrorIs(t, err, errDeclined)
			require.Contains(t, out, "Go on? [y/N] ")
		}
	}
	require.Empty(t, p.machines("shop"))
	text, err := os.ReadFile(p.spec)
	require.NoError(t, err)
	require.Equal(t, two, string(text))
	require.NoFileExists(t, filepath.Join(filepath.Dir(p.spec), "twin.yaml"))

	out, err := ask("y\n", "apply")
	require.NoError(t, err)
	require.Contains(t, out, "wait www-1: waits for role store: 0 of 1 serve\n")
	require.Contains(t, out, "slot www-2 is empty\n")
	require.True(t, strings.HasSuffix(out, "Farm shop: 3 machines, 3 of them run, and 1 volumes.\n"), out)
	out, err = ask("", "status")
	require.NoError(t, err)
	require.Contains(t, out, "shop-www-1   running    web-1.0      local    http://")
	require.Contains(t, out, "happened: ")
	require.Contains(t, out, "next: nothing to do\n")
	out, err = ask("yes\n", "terminate", "-delete-volumes")
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(out, "Farm shop: 0 machines, 0 of them run, and 0 volumes.\n"), out)
}

// What is asked for wrongly is refused before anything is touched.
func TestRefused(t *testing.T) {
	p := newPlace(t)
	for want, args := range map[string][]string{
		"there is no command, want plan, apply":                                        {},
		`"aply" is no command, want plan, apply`:                                       {"aply"},
		`apply: the arguments are ["now"], want: apply`:                                {"apply", "now"},
		`roll: the arguments are [], want: roll IMAGE`:                                 {"roll"},
		`-role is "", want the name of a role of ` + p.spec:                            {"roll", "web-1.1"},
		p.spec + `:3:3: spec.roles[0] (store).update: is missing`:                      {"roll", "-role", "store", "web-1.1"},
		p.spec + `:12:10: spec.roles[1] (www).image: there is no "web-7", want one of`: {"roll", "-role", "www", "web-7"},
		`spec.roles[0] (store).move: the role has volumes`:                             {"move", "other"},
		`(www).pools: "moon" is no pool of config.Pools`:                               {"move", "-role", "www", "moon"},
		`farm shop has no role "ww"`:                                                   {"move", "-role", "ww", "other"},
		`name: "shop" is the parent's own name, want another one`:                      {"clone", "shop"},
		`name: "a_b" is no DNS label`:                                                  {"clone", "a_b"},
		`-until: "2001-01-01T00:00:00Z" is over, want a time to come`:                  {"clone", "twin", "-until", "2001-01-01T00:00:00Z"},
		`-weekdays: "17-9", want hours of a day such as 9-17`:                          {"clone", "twin", "-weekdays", "17-9"},
		"-scale: -1, want a factor of more than 0 and at most 1000":                    {"clone", "twin", "-scale", "-1"},
		"-size nobody=small: farm shop has no role of that name":                       {"clone", "twin", "-size", "nobody=small"},
		`role www: there is no "huge", want one of ["large" "small"] or none`:          {"clone", "twin", "-size", "www=huge"},
		"want ROLE=SIZE, such as www=small":                                            {"clone", "twin", "-size", "small"},
		`role www has the size "small" already`:                                        {"clone", "twin", "-size", "www=small", "-size", "www=large"},
		"-until: is for clone, not for apply":                                          {"apply", "-until", "tue 08:00"},
		"-json: apply cannot ask then, want -yes too":                                  {"-json", "apply"},
		"it took longer than -timeout 1ns":                                             {"-timeout", "1ns", "-yes", "apply"},
	} {
		var out strings.Builder
		err := run(t.Context(), append([]string{"-state", p.dir, "-spec", p.spec}, args...), strings.NewReader("y\n"), &out)
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, os.MkdirAll(p.dir, 0o700))
	release, err := lock(p.dir)
	require.NoError(t, err)
	_, err = p.do("apply")
	require.ErrorContains(t, err, "another command is at work there")
	_, err = p.do("status")
	require.NoError(t, err, "it changes nothing")
	require.NoError(t, release())
	require.Empty(t, p.machines("shop"))
}

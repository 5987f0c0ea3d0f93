package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/journal"
	"github.com/scalr-go/scalr/provider"
)

// errDeclined: the person did not say yes.
var errDeclined = errors.New("nothing was done")

// with opens the farm of a document for work, and sums up what there is afterwards.
func (t *tool) with(ctx context.Context, doc *document, changes bool, work func(*site, *summary) error) (sum summary, err error) {
	sum.Farm = doc.spec.Name
	if err := os.MkdirAll(t.state, 0o700); err != nil {
		return sum, err
	}
	if changes {
		release, err := lock(t.state)
		if err != nil {
			return sum, err
		}
		defer release()
	}
	s, err := open(t.state, doc, t.out)
	if err != nil {
		return sum, err
	}
	err = work(s, &sum)
	err = errors.Join(err, s.close())
	after := context.WithoutCancel(ctx) // a list of files: it ends soon
	machines, err1 := s.machines(after)
	volumes, err2 := s.volumes(after)
	sum.Machines, sum.Images, sum.Pools = len(machines), map[string]int{}, map[string]int{}
	for _, m := range machines {
		sum.Images[m.Image]++
		sum.Pools[m.Tags[farm.TagPool]]++
		if m.State == provider.Running {
			sum.Running++
		}
	}
	for _, v := range volumes {
		sum.Volumes = append(sum.Volumes, v.ID)
	}
	return sum, errors.Join(err, err1, err2)
}

// agree shows a plan and asks whether it is to be carried out.
func (t *tool) agree(p farm.Plan) error {
	t.out.say(map[string]any{"plan": p}, p.String())
	if t.yes {
		return nil
	}
	fmt.Fprint(t.out.out, "Go on? [y/N] ")
	answer, _ := bufio.NewReader(t.in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errDeclined
	}
	return nil
}

func plan(ctx context.Context, t *tool, doc *document, _ string) (summary, error) {
	return t.with(ctx, doc, false, func(s *site, sum *summary) error {
		p, err := s.farm.Plan(ctx)
		sum.Steps = len(p.Steps)
		t.out.say(map[string]any{"plan": p}, p.String())
		return err
	})
}

func apply(ctx context.Context, t *tool, doc *document, _ string) (summary, error) {
	return t.with(ctx, doc, true, func(s *site, sum *summary) error { return t.change(ctx, s, sum, func() error { return nil }) })
}

// change plans, asks, begins, and makes passes until the farm rests.
func (t *tool) change(ctx context.Context, s *site, sum *summary, begin func() error) error {
	p, err := s.farm.Plan(ctx)
	if err != nil {
		return err
	}
	sum.Steps = len(p.Steps)
	if err := t.agree(p); err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	return s.settle(ctx)
}

// roll writes the image into the spec file, so that whoever applies it later goes on, and puts the file back if the update
// was given up.
func roll(ctx context.Context, t *tool, doc *document, image string) (summary, error) {
	want := doc.spec
	want.Roles = slices.Clone(want.Roles)
	i := slices.IndexFunc(want.Roles, func(r farm.Role) bool { return r.Name == t.role || t.role == "" && len(want.Roles) == 1 })
	if i < 0 {
		return summary{}, fmt.Errorf("-role is %q, want the name of a role of %s", t.role, doc.file)
	}
	role, at := &want.Roles[i], fmt.Sprintf("roles[%d]", i)
	if role.Update == nil {
		return summary{}, doc.fault(doc.at[at], "spec.%s (%s).update: is missing: without it machines keep the image that they have, want update: {} at least", at, role.Name)
	}
	role.Image = image
	next, err := doc.edit(at+".image", image, want)
	if err != nil {
		return summary{}, err
	}
	return t.with(ctx, next, true, func(s *site, sum *summary) error {
		err := t.change(ctx, s, sum, func() error { return replace(doc.file, next.text) })
		if errors.Is(err, errGivenUp) {
			err = errors.Join(err, replace(doc.file, doc.text))
		}
		return err
	})
}

// move writes the pool into the spec file, in the place of the one that each role has, and moves. Whoever applies the file later goes
// on; to move back, before the end or after it, is another move.
func move(ctx context.Context, t *tool, doc *document, pool string) (summary, error) {
	var roles []string
	if t.role != "" {
		roles = []string{t.role}
	}
	moved, err := doc.spec.Move(farm.MoveOptions{Pools: []string{pool}, Roles: roles})
	if err != nil {
		return summary{}, doc.locate(err)
	}
	next := doc
	for i, r := range doc.spec.Roles {
		if t.role != "" && t.role != r.Name {
			continue
		}
		at := fmt.Sprintf("roles[%d]", i)
		if r.Move == nil || len(r.Pools) != 1 {
			return summary{}, doc.fault(doc.at[at], "spec.%s (%s).move: want move: {} and one pool, such as pools: [%s], to write another one into its place", at, r.Name, pools[0].name)
		}
		want := next.spec
		want.Roles = slices.Clone(want.Roles)
		want.Roles[i].Pools = moved.Roles[i].Pools
		if next, err = next.edit(at+".pools[0]", pool, want); err != nil {
			return summary{}, err
		}
	}
	return t.with(ctx, next, true, func(s *site, sum *summary) error {
		return t.change(ctx, s, sum, func() error { return replace(doc.file, next.text) })
	})
}

// clone writes the twin's spec beside its parent's and applies it.
func clone(ctx context.Context, t *tool, doc *document, name string) (summary, error) {
	options, err := t.twin.options(doc.spec, time.Now())
	if err != nil {
		return summary{}, err
	}
	twin, warnings, err := doc.spec.Clone(name, options)
	if err != nil {
		return summary{}, err
	}
	for _, w := range warnings {
		t.out.say(map[string]string{"warning": w}, "warning: "+w)
	}
	file := filepath.Join(filepath.Dir(doc.file), name+".yaml")
	if _, err := os.Lstat(file); err == nil {
		return summary{}, fmt.Errorf("%s: is there already: a twin that was begun goes on with -spec %[1]s apply", file)
	}
	next, err := doc.twin(file, twin)
	if err != nil {
		return summary{}, err
	}
	return t.with(ctx, next, true, func(s *site, sum *summary) error {
		return t.change(ctx, s, sum, func() error { return replace(file, next.text) })
	})
}

// status shows the machines, what happened last, and what an apply would do.
func status(ctx context.Context, t *tool, doc *document, _ string) (summary, error) {
	return t.with(ctx, doc, false, func(s *site, sum *summary) error {
		machines, err := s.machines(ctx)
		if err != nil {
			return err
		}
		for _, m := range machines {
			pool := m.Tags[farm.TagPool]
			t.out.say(map[string]any{"machine": m.Name, "id": m.ID, "pool": pool, "state": m.State, "image": m.Image, "address": m.Private},
				fmt.Sprintf("%-12s %-10s %-12s %-8s http://%s:%d/  %s", m.Name, m.State, m.Image, pool, m.Private, webPort, m.ID))
		}
		last, err := s.journal.Read(ctx, journal.Query{Farm: doc.spec.Name, Last: 5})
		if err != nil {
			return err
		}
		for _, e := range last {
			t.out.say(e, "happened: "+e.String())
		}
		p, err := s.farm.Plan(ctx)
		sum.Steps = len(p.Steps)
		t.out.say(map[string]any{"plan": p}, "next: "+p.String())
		return err
	})
}

func terminate(ctx context.Context, t *tool, doc *document, _ string) (summary, error) {
	return t.with(ctx, doc, true, func(s *site, sum *summary) error {
		o := farm.TerminateOptions{DeleteVolumes: t.deleteVolumes}
		p, err := s.farm.PlanTerminate(ctx, o)
		if err != nil {
			return err
		}
		sum.Steps = len(p.Steps)
		if err := t.agree(p); err != nil {
			return err
		}
		machines, err := s.machines(ctx)
		if err != nil {
			return err
		}
		s.toEnd = len(machines)
		defer t.out.draw(nil)
		return s.farm.Terminate(ctx, o)
	})
}

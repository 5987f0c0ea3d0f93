package providertest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
)

// TestAMethodThatDoesNotWorkIsFound breaks one method at a time, in each of three ways, whatever rule it is that finds it.
func TestAMethodThatDoesNotWorkIsFound(t *testing.T) {
	groups := map[string][]string{
		"Instances": {"Launch", "Instances", "Terminate"},
		"Volumes":   {"CreateVolume", "Volumes", "AttachVolume", "DetachVolume", "DeleteVolume"},
		"Snapshots": {"CreateSnapshot", "Snapshots", "DeleteSnapshot"},
		"Addresses": {"AllocateAddress", "Addresses", "AssociateAddress", "DisassociateAddress", "ReleaseAddress"},
		"Balancers": {"CreateBalancer", "Balancers", "RegisterTarget", "DeregisterTarget", "DeleteBalancer"},
		"Images":    {"CreateImage", "Images", "DeleteImage"},
		"Power":     {"Stop", "Start", "Reboot"},
		"Tagger":    {"TagInstance"},
		"Commands":  {"RunCommand"},
	}
	ways := map[string]func(f func() error) error{
		"does nothing":         func(func() error) error { return nil },
		"fails without effect": func(func() error) error { return errors.New("connection refused") },
		"fails after effect":   func(f func() error) error { f(); return errors.New("connection reset") },
	}
	for way, tamper := range ways {
		for group, methods := range groups {
			for _, m := range methods {
				if m == "Reboot" && way == "does nothing" {
					continue // nobody could tell
				}
				t.Run(m+"_"+strings.ReplaceAll(way, " ", "_"), func(t *testing.T) {
					for _, c := range cases() {
						if !strings.HasPrefix(c.name, group+"/") {
							continue
						}
						r := record(t, c.name, func() Subject {
							w := newWorld(slow)
							s := w.subject()
							s.Provider = tampered{cloud: w.Cloud, method: m, tamper: tamper}
							return s
						})
						if len(r.failures) > 0 {
							require.Contains(t, r.failures[0], "broken rule: ")
							return
						}
					}
					t.Fatalf("a provider whose %s %s passes the cases of %s", m, way, group)
				})
			}
		}
	}
}

// tampered is a cloud with one method that does not work.
type tampered struct {
	cloud
	method string
	tamper func(f func() error) error
}

func (p tampered) call(method string, f func() error) error {
	if method == p.method {
		return p.tamper(f)
	}
	return f()
}

// value calls a method that gives something.
func value[T any](p tampered, method string, f func() (T, error)) (v T, err error) {
	err = p.call(method, func() (err error) { v, err = f(); return err })
	return v, err
}

func (p tampered) TagInstance(ctx context.Context, id string, tags map[string]string) error {
	return p.call("TagInstance", func() error { return p.cloud.TagInstance(ctx, id, tags) })
}

func (p tampered) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	return value(p, "Launch", func() (provider.Instance, error) { return p.cloud.Launch(ctx, l) })
}

func (p tampered) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	return value(p, "Instances", func() ([]provider.Instance, error) { return p.cloud.Instances(ctx, tags) })
}

func (p tampered) Terminate(ctx context.Context, id string) error {
	return p.call("Terminate", func() error { return p.cloud.Terminate(ctx, id) })
}

func (p tampered) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	return value(p, "CreateVolume", func() (provider.Volume, error) { return p.cloud.CreateVolume(ctx, s) })
}

func (p tampered) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	return value(p, "Volumes", func() ([]provider.Volume, error) { return p.cloud.Volumes(ctx, tags) })
}

func (p tampered) AttachVolume(ctx context.Context, volume, instance string) error {
	return p.call("AttachVolume", func() error { return p.cloud.AttachVolume(ctx, volume, instance) })
}

func (p tampered) DetachVolume(ctx context.Context, id string) error {
	return p.call("DetachVolume", func() error { return p.cloud.DetachVolume(ctx, id) })
}

func (p tampered) DeleteVolume(ctx context.Context, id string) error {
	return p.call("DeleteVolume", func() error { return p.cloud.DeleteVolume(ctx, id) })
}

func (p tampered) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	return value(p, "CreateSnapshot", func() (provider.Snapshot, error) { return p.cloud.CreateSnapshot(ctx, s) })
}

func (p tampered) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	return value(p, "Snapshots", func() ([]provider.Snapshot, error) { return p.cloud.Snapshots(ctx, tags) })
}

func (p tampered) DeleteSnapshot(ctx context.Context, id string) error {
	return p.call("DeleteSnapshot", func() error { return p.cloud.DeleteSnapshot(ctx, id) })
}

func (p tampered) AllocateAddress(ctx context.Context, s provider.AddressSpec) (provider.Address, error) {
	return value(p, "AllocateAddress", func() (provider.Address, error) { return p.cloud.AllocateAddress(ctx, s) })
}

func (p tampered) Addresses(ctx context.Context, tags map[string]string) ([]provider.Address, error) {
	return value(p, "Addresses", func() ([]provider.Address, error) { return p.cloud.Addresses(ctx, tags) })
}

func (p tampered) AssociateAddress(ctx context.Context, address, instance string) error {
	return p.call("AssociateAddress", func() error { return p.cloud.AssociateAddress(ctx, address, instance) })
}

func (p tampered) DisassociateAddress(ctx context.Context, id string) error {
	return p.call("DisassociateAddress", func() error { return p.cloud.DisassociateAddress(ctx, id) })
}

func (p tampered) ReleaseAddress(ctx context.Context, id string) error {
	return p.call("ReleaseAddress", func() error { return p.cloud.ReleaseAddress(ctx, id) })
}

func (p tampered) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	return value(p, "CreateBalancer", func() (provider.Balancer, error) { return p.cloud.CreateBalancer(ctx, s) })
}

func (p tampered) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	return value(p, "Balancers", func() ([]provider.Balancer, error) { return p.cloud.Balancers(ctx, tags) })
}

func (p tampered) RegisterTarget(ctx context.Context, balancer, instance string) error {
	return p.call("RegisterTarget", func() error { return p.cloud.RegisterTarget(ctx, balancer, instance) })
}

func (p tampered) DeregisterTarget(ctx context.Context, balancer, instance string) error {
	return p.call("DeregisterTarget", func() error { return p.cloud.DeregisterTarget(ctx, balancer, instance) })
}

func (p tampered) DeleteBalancer(ctx context.Context, id string) error {
	return p.call("DeleteBalancer", func() error { return p.cloud.DeleteBalancer(ctx, id) })
}

func (p tampered) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	return value(p, "CreateImage", func() (provider.Image, error) { return p.cloud.CreateImage(ctx, s) })
}

func (p tampered) Images(ctx context.Context, tags map[string]string) ([]provider.Image, error) {
	return value(p, "Images", func() ([]provider.Image, error) { return p.cloud.Images(ctx, tags) })
}

func (p tampered) DeleteImage(ctx context.Context, id string) error {
	return p.call("DeleteImage", func() error { return p.cloud.DeleteImage(ctx, id) })
}

func (p tampered) Stop(ctx context.Context, id string) error {
	return p.call("Stop", func() error { return p.cloud.Stop(ctx, id) })
}

func (p tampered) Start(ctx context.Context, id string) error {
	return p.call("Start", func() error { return p.cloud.Start(ctx, id) })
}

func (p tampered) Reboot(ctx context.Context, id string) error {
	return p.call("Reboot", func() error { return p.cloud.Reboot(ctx, id) })
}

func (p tampered) RunCommand(ctx context.Context, id string, c provider.Command) (provider.CommandResult, error) {
	return value(p, "RunCommand", func() (provider.CommandResult, error) { return p.cloud.RunCommand(ctx, id, c) })
}

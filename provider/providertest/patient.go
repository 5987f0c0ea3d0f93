package providertest

import (
	"context"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// patient makes calls again that failed in a way that may pass. It has all capabilities; has and as look behind it.
type patient struct {
	provider.Provider
	wait, poll time.Duration
}

// again makes a call until it succeeds, fails for good, or has taken too long.
func again[T any](ctx context.Context, p patient, call func() (T, error)) (T, error) {
	for end := time.Now().Add(p.wait); ; {
		v, err := call()
		if err == nil || ctx.Err() != nil || time.Now().After(end) || is(err, provider.ErrInvalid, provider.ErrNotFound,
			provider.ErrAuth, provider.ErrQuota, provider.ErrCapacity) {
			return v, err
		}
		select {
		case <-time.After(p.poll):
		case <-ctx.Done():
			return v, err
		}
	}
}

func againErr(ctx context.Context, p patient, call func() error) error {
	_, err := again(ctx, p, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

func (p patient) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	return again(ctx, p, func() (provider.Instance, error) { return p.Provider.Launch(ctx, l) })
}

func (p patient) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	return again(ctx, p, func() ([]provider.Instance, error) { return p.Provider.Instances(ctx, tags) })
}

func (p patient) Terminate(ctx context.Context, id string) error {
	return againErr(ctx, p, func() error { return p.Provider.Terminate(ctx, id) })
}

func (p patient) volumes() provider.Volumes { return as[provider.Volumes](p.Provider) }

func (p patient) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	return again(ctx, p, func() (provider.Volume, error) { return p.volumes().CreateVolume(ctx, s) })
}

func (p patient) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	return again(ctx, p, func() ([]provider.Volume, error) { return p.volumes().Volumes(ctx, tags) })
}

func (p patient) AttachVolume(ctx context.Context, volume, instance string) error {
	return againErr(ctx, p, func() error { return p.volumes().AttachVolume(ctx, volume, instance) })
}

func (p patient) DetachVolume(ctx context.Context, volume string) error {
	return againErr(ctx, p, func() error { return p.volumes().DetachVolume(ctx, volume) })
}

func (p patient) DeleteVolume(ctx context.Context, volume string) error {
	return againErr(ctx, p, func() error { return p.volumes().DeleteVolume(ctx, volume) })
}

func (p patient) snapshots() provider.Snapshots { return as[provider.Snapshots](p.Provider) }

func (p patient) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	return again(ctx, p, func() (provider.Snapshot, error) { return p.snapshots().CreateSnapshot(ctx, s) })
}

func (p patient) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	return again(ctx, p, func() ([]provider.Snapshot, error) { return p.snapshots().Snapshots(ctx, tags) })
}

func (p patient) DeleteSnapshot(ctx context.Context, id string) error {
	return againErr(ctx, p, func() error { return p.snapshots().DeleteSnapshot(ctx, id) })
}

func (p patient) addresses() provider.Addresses { return as[provider.Addresses](p.Provider) }

func (p patient) AllocateAddress(ctx context.Context, s provider.AddressSpec) (provider.Address, error) {
	return again(ctx, p, func() (provider.Address, error) { return p.addresses().AllocateAddress(ctx, s) })
}

func (p patient) Addresses(ctx context.Context, tags map[string]string) ([]provider.Address, error) {
	return again(ctx, p, func() ([]provider.Address, error) { return p.addresses().Addresses(ctx, tags) })
}

func (p patient) AssociateAddress(ctx context.Context, address, instance string) error {
	return againErr(ctx, p, func() error { return p.addresses().AssociateAddress(ctx, address, instance) })
}

func (p patient) DisassociateAddress(ctx context.Context, address string) error {
	return againErr(ctx, p, func() error { return p.addresses().DisassociateAddress(ctx, address) })
}

func (p patient) ReleaseAddress(ctx context.Context, address string) error {
	return againErr(ctx, p, func() error { return p.addresses().ReleaseAddress(ctx, address) })
}

func (p patient) balancers() provider.Balancers { return as[provider.Balancers](p.Provider) }

func (p patient) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	return again(ctx, p, func() (provider.Balancer, error) { return p.balancers().CreateBalancer(ctx, s) })
}

func (p patient) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	return again(ctx, p, func() ([]provider.Balancer, error) { return p.balancers().Balancers(ctx, tags) })
}

func (p patient) Requests(ctx context.Context, balancer string) (uint64, error) {
	return again(ctx, p, func() (uint64, error) { return as[provider.Traffic](p.Provider).Requests(ctx, balancer) })
}

func (p patient) RegisterTarget(ctx context.Context, balancer, instance string) error {
	return againErr(ctx, p, func() error { return p.balancers().RegisterTarget(ctx, balancer, instance) })
}

func (p patient) DeregisterTarget(ctx context.Context, balancer, instance string) error {
	return againErr(ctx, p, func() error { return p.balancers().DeregisterTarget(ctx, balancer, instance) })
}

func (p patient) DeleteBalancer(ctx context.Context, id string) error {
	return againErr(ctx, p, func() error { return p.balancers().DeleteBalancer(ctx, id) })
}

func (p patient) images() provider.Images { return as[provider.Images](p.Provider) }

func (p patient) CreateImage(ctx context.Context, s provider.ImageSpec) (provider.Image, error) {
	return again(ctx, p, func() (provider.Image, error) { return p.images().CreateImage(ctx, s) })
}

func (p patient) Images(ctx context.Context, tags map[string]string) ([]provider.Image, error) {
	return again(ctx, p, func() ([]provider.Image, error) { return p.images().Images(ctx, tags) })
}

func (p patient) DeleteImage(ctx context.Context, id string) error {
	return againErr(ctx, p, func() error { return p.images().DeleteImage(ctx, id) })
}

func (p patient) power() provider.Power { return as[provider.Power](p.Provider) }

func (p patient) Stop(ctx context.Context, id string) error {
	return againErr(ctx, p, func() error { return p.power().Stop(ctx, id) })
}

func (p patient) TagInstance(ctx context.Context, id string, tags map[string]string) error {
	return againErr(ctx, p, func() error { return as[provider.Tagger](p.Provider).TagInstance(ctx, id, tags) })
}

func (p patient) Start(ctx context.Context, id string) error {
	return againErr(ctx, p, func() error { return p.power().Start(ctx, id) })
}

func (p patient) Reboot(ctx context.Context, id string) error {
	return againErr(ctx, p, func() error { return p.power().Reboot(ctx, id) })
}

func (p patient) RunCommand(ctx context.Context, id string, c provider.Command) (provider.CommandResult, error) {
	if c.Stdin != nil || c.Stdout != nil { // which can be used once: the case tries again
		return as[provider.Commands](p.Provider).RunCommand(ctx, id, c)
	}
	return again(ctx, p, func() (provider.CommandResult, error) {
		return as[provider.Commands](p.Provider).RunCommand(ctx, id, c)
	})
}

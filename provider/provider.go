// Package provider is a cloud as scalr sees it: a thing that launches instances, lists them and ends them, with
// optional capabilities beside (volumes, snapshots, addresses, balancers, images, power, commands).
//
// # For callers
//
// A [Provider] is used as it is; a capability is asked for with [As], which looks through wrappers:
//
//	volumes, ok := provider.As[provider.Volumes](p)
//
// Whatever is created carries tags, and lists are filtered by tags on the cloud's side. The tags are the only record: a
// program that forgets everything finds its things again by listing.
//
// # For drivers
//
// A driver implements the three methods of Provider and each capability that its cloud really has, and passes
// providertest.Run. The rules that the suite checks:
//
//   - Every create call carries a token. The same token with the same parameters meets the same thing, however often and
//     from whichever process it is called, also when earlier replies were lost. The same token with other parameters is
//     ErrInvalid, and the message names the one that differs. (Of a thing that was deleted, clouds remember the token or
//     do not: only the token of an instance may be used after its end.)
//   - Every call that ends something is idempotent: ending what is gone is no error.
//   - A list is complete or an error: pages are followed, a half-read list is never returned. Lists are sorted by ID, and
//     the slices and maps in them belong to the caller. What was just created may be missing from a list for a while.
//   - Errors have kinds (see [Error]). A call that may or may not have taken effect fails with ErrAmbiguous.
//   - Every wait is bounded by the context. Methods are safe for concurrent use. Nothing starts a goroutine that
//     outlives its call.
//   - Only what a caller names or tags is touched.
//
// A wrapper (a limiter, a fault injector, a recorder) embeds the Provider that it wraps and has an Unwrap method.
package provider

import (
	"context"
	"io"
	"net/netip"
	"time"
)

// Provider launches, lists and ends instances.
type Provider interface {
	// Launch starts one instance and returns it as soon as the cloud has taken the request, usually Pending. It is
	// idempotent by l.Token. If the token's instance has been terminated since, that terminated instance is returned:
	// the caller takes a new token for a new one.
	//
	// ErrCapacity and ErrQuota are never retried inside: the caller knows other placements and sizes. An unknown size or
	// placement is ErrInvalid; an image or a volume that is unknown may not be known yet, and so may be ErrNotFound.
	Launch(ctx context.Context, l Launch) (Instance, error)

	// Instances lists the instances that bear all of the given tags, sorted by ID, in one logical call whatever their
	// number. Terminated instances may be listed for a while. Nil tags list everything.
	Instances(ctx context.Context, tags map[string]string) ([]Instance, error)

	// Terminate ends the instance for good; its volumes stay. It returns nil when the cloud has accepted, and for an
	// instance that is terminated or unknown already. The instance may be listed as Terminating for a while.
	Terminate(ctx context.Context, id string) error
}

// Launch says what to launch. Image, Size and Placement are names in the provider's own terms.
type Launch struct {
	// Token makes the launch idempotent: 1 to 64 letters, digits, '-' or '_'. Required.
	Token string
	// Name is the human-readable name and, where the cloud sets one, the host name: a DNS label.
	Name string
	// Image is what to boot. Required.
	Image string
	// Size is the machine type ("m7g.large", a flavor). Empty takes the provider's default, where it has one.
	Size string
	// Placement is the zone within the provider. Empty lets the cloud choose.
	Placement string
	// Network is the subnet or network to be in. Empty takes the provider's default.
	Network string
	// SecurityGroups are the packet filters' names or IDs. Empty takes the provider's default.
	SecurityGroups []string
	// KeyPair is the name of the SSH key to install. Empty installs none.
	KeyPair string
	// Spot asks for interruptible capacity. A provider without it fails with ErrInvalid.
	Spot bool
	// UserData is handed to the instance at its first boot. It may hold secrets: it prints as its length, and a driver
	// never logs it and never puts it into an error.
	UserData Secret
	// Volumes are the IDs of the volumes that the instance is to have. A provider that can attaches them before the
	// instance starts; another one leaves it to the caller to call AttachVolume once the instance runs. The list of
	// volumes says which happened.
	Volumes []string
	// Tags are set on the instance at its creation, never in a second call. Keys and values: at most 128 and 255 bytes.
	Tags map[string]string
}

// State is where an instance is in its life.
type State string

const (
	Pending     State = "pending"     // accepted, not booted yet
	Running     State = "running"     // the machine runs; whether what it serves works is another question
	Stopped     State = "stopped"     // switched off or switching off, and can be started again
	Terminating State = "terminating" // will be Terminated
	Terminated  State = "terminated"  // gone for good
	Failed      State = "failed"      // the cloud gave up on it: it does not run, and holds quota until terminated
)

// Gone reports whether the instance has ended or is about to.
func (s State) Gone() bool { return s == Terminated || s == Terminating }

// Instance is one machine, as a list or a launch showed it.
type Instance struct {
	ID        string
	Name      string
	State     State
	Reason    string // why it is Failed, Stopped or Terminated, in the cloud's words; may be empty
	Image     string
	Size      string
	Placement string
	Private   netip.Addr // the address inside the cloud; invalid while the instance has none
	Public    netip.Addr // the address outside; invalid while it has none
	Launched  time.Time
	Spot      bool
	Tags      map[string]string
}

// Volumes is the capability to keep disks apart from instances.
type Volumes interface {
	// CreateVolume is idempotent by s.Token, like Launch.
	CreateVolume(ctx context.Context, s VolumeSpec) (Volume, error)
	// Volumes lists the volumes that bear all of the tags, sorted by ID.
	Volumes(ctx context.Context, tags map[string]string) ([]Volume, error)
	// AttachVolume gives the volume to the instance. Nil if it has it already; ErrInvalid while another instance has it
	// or if the two are in different placements; ErrNotFound if there is no such volume; an error of no kind while the
	// volume is not Ready or the instance does not run yet. It returns when the instance has the volume.
	AttachVolume(ctx context.Context, volume, instance string) error
	// DetachVolume takes the volume from whichever instance has it and returns when it is free. Nil if it is free.
	DetachVolume(ctx context.Context, volume string) error
	// DeleteVolume deletes a free volume and its data. Nil if it is gone; ErrInvalid while it is attached.
	DeleteVolume(ctx context.Context, volume string) error
}

// VolumeSpec says what volume to create.
type VolumeSpec struct {
	Token     string
	Name      string
	SizeGB    int    // at least 1, or 0 with a Snapshot: as large as that
	Type      string // "gp3", a Cinder type; empty takes the provider's default
	Placement string // a volume can be attached in its own placement only
	Snapshot  string // the snapshot to fill it from; empty makes an empty volume
	Tags      map[string]string
}

// Volume is one disk.
type Volume struct {
	ID        string
	Name      string
	SizeGB    int
	Type      string
	Placement string
	Instance  string // who has it; empty if it is free
	Device    string // where the instance finds it, in the provider's terms: a device, a directory
	Ready     bool   // false while it is being created or filled
	Created   time.Time
	Tags      map[string]string
}

// Snapshots is the capability to keep a copy of a volume as it was at one instant.
type Snapshots interface {
	// CreateSnapshot starts a snapshot of a volume, attached or not; the instant is within the call. It is idempotent
	// by s.Token. The copy may be completed later: see Snapshot.Ready.
	CreateSnapshot(ctx context.Context, s SnapshotSpec) (Snapshot, error)
	// Snapshots lists the snapshots that bear all of the tags, sorted by ID.
	Snapshots(ctx context.Context, tags map[string]string) ([]Snapshot, error)
	// DeleteSnapshot deletes a snapshot; volumes made from it stay. Nil if it is gone.
	DeleteSnapshot(ctx context.Context, id string) error
}

// SnapshotSpec says what to take a snapshot of.
type SnapshotSpec struct {
	Token  string
	Name   string
	Volume string
	Tags   map[string]string
}

// Snapshot is a copy of a volume.
type Snapshot struct {
	ID      string
	Name    string
	Volume  string // the volume it was taken of
	SizeGB  int
	Ready   bool   // false while the copy is under way
	Failed  bool   // the cloud gave up on the copy: it never becomes Ready, and is there until it is deleted
	Reason  string // why it Failed, in the cloud's words; may be empty
	Created time.Time
	Tags    map[string]string
}

// Addresses is the capability to keep public addresses apart from instances (Elastic IP, floating IP).
type Addresses interface {
	// AllocateAddress takes an address out of the provider's stock. It is idempotent by s.Token as far as the cloud
	// allows; where a lost reply leaves two, both bear the tags and the caller releases one.
	AllocateAddress(ctx context.Context, s AddressSpec) (Address, error)
	// Addresses lists the allocated addresses that bear all of the tags, sorted by ID.
	Addresses(ctx context.Context, tags map[string]string) ([]Address, error)
	// AssociateAddress points the address to the instance, taking it from another one if need be. An error of no kind
	// while the instance does not run yet.
	AssociateAddress(ctx context.Context, address, instance string) error
	// DisassociateAddress takes the address from whichever instance has it. Nil if none has.
	DisassociateAddress(ctx context.Context, address string) error
	// ReleaseAddress gives the address back, disassociating it first. Nil if it is gone.
	ReleaseAddress(ctx context.Context, address string) error
}

// AddressSpec says what address to allocate.
type AddressSpec struct {
	Token   string
	Name    string
	Network string // the external network, where the provider has several; empty takes its default
	Tags    map[string]string
}

// Address is a public address that was allocated.
type Address struct {
	ID       string
	Addr     netip.Addr
	Instance string // who has it; empty if it is free
	Tags     map[string]string
}

// Balancers is the capability to spread connections over instances.
type Balancers interface {
	// CreateBalancer makes a balancer, idempotent by s.Token. It may take a while to become Ready.
	CreateBalancer(ctx context.Context, s BalancerSpec) (Balancer, error)
	// Balancers lists the balancers that bear all of the tags, sorted by ID, each with its targets.
	Balancers(ctx context.Context, tags map[string]string) ([]Balancer, error)
	// RegisterTarget adds the instance to those that get connections. Nil if it is there already.
	RegisterTarget(ctx context.Context, balancer, instance string) error
	// DeregisterTarget gives the instance no new connections and lets the open ones end: it is listed as
	// TargetDraining until they have or the balancer's Drain time has passed. Nil if it is not there.
	DeregisterTarget(ctx context.Context, balancer, instance string) error
	// DeleteBalancer deletes it. Nil if it is gone.
	DeleteBalancer(ctx context.Context, id string) error
}

// Traffic is the capability to say how much balancers have to do.
type Traffic interface {
	// Requests counts what the balancer has taken: connections, or, where the cloud counts them and its protocol is http,
	// requests. The count begins anew at 0 when what runs the balancer does.
	Requests(ctx context.Context, balancer string) (uint64, error)
}

// BalancerSpec says what balancer to make.
type BalancerSpec struct {
	Token      string
	Name       string
	Protocol   string // "http" or "tcp"
	Port       int    // where clients connect
	TargetPort int    // where instances listen; 0 means Port
	HealthPath string // GET of this path must answer 200–399; empty checks that the port accepts a connection
	Drain      time.Duration
	Networks   []string // the subnets it stands in, where the cloud wants to know
	Tags       map[string]string
}

// Balancer is a balancer and its targets.
type Balancer struct {
	ID      string
	Name    string
	Host    string // the DNS name or address that clients use
	Port    int
	Ready   bool
	Targets []Target // sorted by instance
	Tags    map[string]string
}

// TargetState is how a balancer sees an instance.
type TargetState string

const (
	TargetInitial   TargetState = "initial" // registered, not checked yet
	TargetHealthy   TargetState = "healthy"
	TargetUnhealthy TargetState = "unhealthy"
	TargetDraining  TargetState = "draining" // deregistered, open connections remain
)

// Target is an instance behind a balancer.
type Target struct {
	Instance string
	State    TargetState
	Reason   string // why it is unhealthy; may be empty
}

// Images is the capability to make an image from an instance.
type Images interface {
	// CreateImage makes an image of the instance, idempotent by s.Token. It may take a while to become Ready.
	CreateImage(ctx context.Context, s ImageSpec) (Image, error)
	// Images lists the images that bear all of the tags, sorted by ID.
	Images(ctx context.Context, tags map[string]string) ([]Image, error)
	// DeleteImage deletes an image; instances made from it stay. Nil if it is gone.
	DeleteImage(ctx context.Context, id string) error
}

// ImageSpec says what to make an image of.
type ImageSpec struct {
	Token    string
	Name     string
	Instance string
	Tags     map[string]string
}

// Image is what instances boot from. Its ID is what Launch.Image takes.
type Image struct {
	ID      string
	Name    string
	Ready   bool
	Created time.Time
	Tags    map[string]string
}

// Power is the capability to switch an instance off and on. Whoever must be sure that a machine does nothing any more
// (to fence a database that cannot be reached) uses Stop.
type Power interface {
	// Stop switches the instance off at once, without asking its operating system. It returns nil only when the machine
	// no longer runs; its disks stay. Nil if it is stopped or gone; ErrNotFound is not an error here.
	Stop(ctx context.Context, id string) error
	// Start switches a stopped instance on again. Nil if it runs.
	Start(ctx context.Context, id string) error
	// Reboot restarts the instance's operating system, by force where it does not answer.
	Reboot(ctx context.Context, id string) error
}

// Tagger is the capability to tag an instance that is there.
type Tagger interface {
	// TagInstance gives the instance these tags, in the place of what it has under the same keys; its other tags stay. Nil if it
	// has them already, ErrNotFound if there is no such instance or it is terminated. What lists show may lag behind. A Launch by
	// the instance's token still meets it, with the tags of that launch.
	TagInstance(ctx context.Context, id string, tags map[string]string) error
}

// Commands is the capability to run a command on an instance.
type Commands interface {
	// RunCommand runs the command, without a shell, and waits for its end. A command that ran and failed is no error:
	// see CommandResult.Exit. When the context ends, the command is killed with its children.
	RunCommand(ctx context.Context, id string, c Command) (CommandResult, error)
}

// Command is a program to run on an instance. It prints and marshals without its environment and input.
type Command struct {
	Args []string // the program and its arguments
	Env  []string // "KEY=value", added to the instance's own; may hold secrets
	// Stdin is what the command reads, no faster than it does; nil is nothing. Where it fails, the command is killed before
	// it can take what it has got for all of it, and RunCommand returns that error. A Read may still be under way when
	// RunCommand returns: whoever gives a reader that can block forever closes it then.
	Stdin io.Reader
	// Stdout takes the standard output, however much it is, no faster than it writes; nil leaves it to CommandResult.Output.
	// Where it fails, the command is killed, and RunCommand returns that error. A Write may still be under way when
	// RunCommand returns because the context has ended.
	Stdout io.Writer
}

// CommandResult is how a command ended.
type CommandResult struct {
	Exit   int    // the exit status; -1 if a signal ended it
	Output []byte // standard output, unless Command.Stdout took it, then standard error; each cut after 1 MiB
}

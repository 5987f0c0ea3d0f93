package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// keep is how long the record of a terminated instance is kept and listed, and its token remembered.
const keep = time.Hour

// phase is what an instance is meant to be. What it is, is for the processes to show.
type phase string

const (
	phaseOn          phase = "on"
	phaseStopping    phase = "stopping" // off, but some of its processes may live
	phaseOff         phase = "off"
	phaseTerminating phase = "terminating"
	phaseTerminated  phase = "terminated"
)

// gone: it has been terminated, or is about to be.
func (p phase) gone() bool { return p == phaseTerminating || p == phaseTerminated }

// instance is the record of an instance. It alone says which volumes the instance has, so that a volume cannot be half
// attached.
type instance struct {
	ID       string
	Launch   launch
	Tags     map[string]string `json:",omitempty"` // beside those of the launch, or in their place
	UserSum  string            // tells one UserData from another after it has been dropped
	Addr     netip.Addr
	Volumes  []string // volume IDs
	Launched time.Time
	Ended    time.Time // when it was terminated
	Port     int       // of its image
	Grace    time.Duration
	Phase    phase
	Prepared bool   // Image.Prepare has succeeded
	Boot     int    // counts the starts
	Proc     procID // its supervisor, as of the last start
	Ready    bool   // its port has accepted since the last start

	// Balancer makes it the machine of a balancer, which has an ID of its own kind and is no instance to anybody else.
	Balancer *balancer `json:",omitempty"`
}

// balancer is what HAProxy on a balancer's machine is to do.
type balancer struct {
	Spec    provider.BalancerSpec
	Targets []target
}

// target is an instance behind a balancer. It is here until HAProxy is to give it no connection at all.
type target struct {
	Instance string
	Addr     netip.Addr
	Draining bool
	Until    time.Time // with Draining: when connections that are open still are cut
}

// launch is a provider.Launch that keeps its user data in JSON: it is in a file of mode 0600 until the instance ends.
type launch struct {
	provider.Launch
	UserData []byte
}

// volume is the record of a volume. It is Ready once its directory is complete.
type volume struct {
	ID      string
	Spec    provider.VolumeSpec
	SizeGB  int
	Created time.Time
	Ready   bool
	Doomed  bool `json:",omitzero"` // it is being deleted
}

// snapshot is the record of a snapshot. It is Ready once its directory is complete.
type snapshot struct {
	ID      string
	Spec    provider.SnapshotSpec
	SizeGB  int
	Created time.Time
	Ready   bool
}

// record is what is kept in a file of its own.
type record interface {
	key() string
	// is reports whether an ID is that of a record of this kind.
	is(id string) bool
}

func (r instance) key() string { return r.ID }
func (r volume) key() string   { return r.ID }
func (r snapshot) key() string { return r.ID }

func (instance) is(id string) bool { return isInstance(id) || isBalancer(id) }
func (volume) is(id string) bool   { return strings.HasPrefix(id, kindVolume) }
func (snapshot) is(id string) bool { return strings.HasPrefix(id, kindSnapshot) }

// Kinds of records, as the first letter of an ID.
const (
	kindInstance = "i-"
	kindVolume   = "v-"
	kindSnapshot = "s-"
	kindBalancer = "b-" // an instance too, with its Balancer set
)

func isInstance(id string) bool { return strings.HasPrefix(id, kindInstance) }
func isBalancer(id string) bool { return strings.HasPrefix(id, kindBalancer) }

// store keeps records as JSON files in one directory. A record is read without a lock, since it is replaced as a whole; it
// is changed under the lock only.
type store struct{ dir string }

func (s store) file(id, ext string) string { return filepath.Join(s.dir, id+ext) }

// locked runs f while nobody else changes records. f must not wait for anything.
func (s store) locked(ctx context.Context, f func() error) error {
	unlock, err := lockFile(ctx, s.file("all", ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	return f()
}

// lock is held over the long operations on one thing: booting an instance, copying a volume. It gives an error that is
// fs.ErrNotExist if there is no such thing.
func (s store) lock(ctx context.Context, id string) (unlock func(), err error) {
	if !s.has(id) {
		return nil, fs.ErrNotExist
	}
	unlock, err = lockFile(ctx, s.file(id, ".lock"))
	return s.still(id, unlock, err)
}

// tryLock is lock without waiting.
func (s store) tryLock(id string) (unlock func(), ok bool) {
	if !s.has(id) {
		return nil, false
	}
	unlock, err := tryLockFile(s.file(id, ".lock"))
	unlock, err = s.still(id, unlock, err)
	return unlock, err == nil
}

// still gives up a lock that was made anew after its thing had been removed.
func (s store) still(id string, unlock func(), err error) (func(), error) {
	if err == nil && !s.has(id) {
		os.Remove(s.file(id, ".lock"))
		unlock()
		return nil, fs.ErrNotExist
	}
	return unlock, err
}

func (s store) has(id string) bool {
	if id == "" || strings.ContainsAny(id, "/\x00") {
		return false
	}
	_, err := os.Stat(s.file(id, ".json"))
	return err == nil
}

// get reads a record, or gives an error that is fs.ErrNotExist. The ID of a thing of another kind is that of nothing.
func get[T record](s store, id string) (r T, err error) {
	if !r.is(id) || strings.ContainsAny(id, "/\x00") {
		return r, fs.ErrNotExist
	}
	data, err := os.ReadFile(s.file(id, ".json"))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("record %s is damaged: %w", s.file(id, ".json"), err)
	}
	return r, nil
}

// list reads all records of a kind, sorted by ID.
func list[T record](s store, kind string) ([]T, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var all []T
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !strings.HasPrefix(id, kind) {
			continue
		}
		r, err := get[T](s, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// put writes a record so that a reader, or a machine that loses its power, sees the old one or the new one. A volume or a
// snapshot is not forgotten once that has been acknowledged; of instances, a loss of power leaves nothing that runs.
func (s store) put(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := s.file(r.key(), ".json")
	if err := writeFile(path, data); err != nil || strings.HasPrefix(r.key(), kindInstance) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// remove drops a record and all that belongs to it.
func (s store) remove(id string) error {
	for _, ext := range []string{".json", ".json.tmp", ".exit", ".exit.tmp", ".lock"} {
		if err := os.Remove(s.file(id, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writeFile replaces a file of mode 0600 atomically. Nobody else may write the same path meanwhile.
func writeFile(path string, data []byte) error {
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// newID gives an ID that no other Dir has either.
func newID(kind string) string {
	var b [6]byte
	rand.Read(b[:])
	return kind + hex.EncodeToString(b[:])
}

// userSum tells user data apart without keeping it. The ID salts it.
func userSum(id string, data []byte) string {
	sum := sha256.Sum256(append([]byte(id+"\x00"), data...))
	return hex.EncodeToString(sum[:])
}

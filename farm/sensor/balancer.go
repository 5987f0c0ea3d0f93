package sensor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
)

// relist is how long a list of balancers is good for, where none of them is missed.
const relist = time.Minute

// Requests reads how many requests a second the balancers of a role take, between two readings: one value for the role as a
// whole, for which policies set Total. They are the balancers that the farm of that name has in the clouds, each of which must
// have the capability [provider.Traffic]; what it counts, requests or connections, is in the documentation of the cloud. Amazon's
// do not have it: see package aws. The value is missing where one balancer's is.
func Requests(farmName string, clouds ...provider.Provider) farm.Sensor {
	r := &requests{farm: farmName, clouds: clouds, roles: map[string]*traffic{}}
	return farm.SensorFunc(r.read)
}

type requests struct {
	farm   string
	clouds []provider.Provider

	mu    sync.Mutex
	roles map[string]*traffic
}

// traffic is what is known of the balancers of a role. Its lock is held while they are asked.
type traffic struct {
	mu     sync.Mutex
	listed time.Time
	ids    [][]string // of each cloud
	counts map[string]uint64
	at     time.Time // of the counts
}

func (r *requests) read(ctx context.Context, role string, _ []farm.Server) ([]scale.Sample, error) {
	r.mu.Lock()
	t := r.roles[role]
	if t == nil {
		t = &traffic{}
		r.roles[role] = t
	}
	r.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	counts, err := r.counts(ctx, role, t, now)
	if err != nil {
		t.listed = time.Time{} // the next reading looks for them again
		return nil, fmt.Errorf("balancers of %s: %w", role, err)
	}
	before, since := t.counts, now.Sub(t.at).Seconds()
	t.counts, t.at = counts, now
	sum := 0.0
	for id, n := range counts {
		old, known := before[id]
		switch {
		case before == nil || since <= 0:
			return nil, nil // a count wants two readings
		case known && n >= old:
			n -= old
		}
		sum += float64(n) // of one that is new or has begun anew
	}
	return []scale.Sample{{Value: sum / since, At: now}}, nil
}

// counts asks every balancer of the role.
func (r *requests) counts(ctx context.Context, role string, t *traffic, now time.Time) (map[string]uint64, error) {
	fresh := now.Sub(t.listed) < relist
	if !fresh {
		ids := make([][]string, len(r.clouds))
		for i, cloud := range r.clouds {
			balancers, ok := provider.As[provider.Balancers](cloud)
			if !ok {
				return nil, fmt.Errorf("cloud %d has no balancers: %w", i, errors.ErrUnsupported)
			}
			list, err := balancers.Balancers(ctx, map[string]string{farm.TagFarm: r.farm, farm.TagRole: role})
			if err != nil {
				return nil, err
			}
			for _, b := range list {
				ids[i] = append(ids[i], b.ID)
			}
		}
		t.ids, t.listed = ids, now
	}
	counts := map[string]uint64{}
	for i, cloud := range r.clouds {
		counter, ok := provider.As[provider.Traffic](cloud)
		if !ok {
			return nil, fmt.Errorf("cloud %d does not count what its balancers take: %w", i, errors.ErrUnsupported)
		}
		for _, id := range t.ids[i] {
			n, err := counter.Requests(ctx, id)
			if errors.Is(err, provider.ErrNotFound) && fresh {
				t.listed = time.Time{}
				return r.counts(ctx, role, t, now)
			}
			if err != nil {
				return nil, err
			}
			counts[fmt.Sprint(i, " ", id)] = n
		}
	}
	if len(counts) == 0 {
		return nil, errors.New("there are none")
	}
	return counts, nil
}

package replication

import (
	"fmt"
	"slices"
	"time"
)

// Role is what a member is in its set now.
type Role string

// The roles of a member.
const (
	RoleUnknown     Role = "unknown"     // no look at it has ended yet
	RolePrimary     Role = "primary"     // takes the writes
	RoleReplica     Role = "replica"     // follows the primary
	RoleJoining     Role = "joining"     // answers, and does not follow the primary yet
	RoleSeeding     Role = "seeding"     // receives a copy of the data
	RoleDown        Role = "down"        // does not answer
	RoleQuarantined Role = "quarantined" // holds data that nobody may overwrite; Error says which and what to do
)

// Topology is what is so now: plain data, a copy that belongs to the caller.
type Topology struct {
	// Epoch counts the primaries that this Manager has published: it rises whenever Primary becomes another member, or
	// the same one again after there was none.
	Epoch uint64 `json:"epoch"`
	// Primary is the ID of the member that takes writes, and empty while there is none.
	Primary string `json:"primary"`
	// Members are all members, sorted by ID.
	Members []MemberState `json:"members"`
	// Held says, in words, what should be done and is not, and why.
	Held []string `json:"held,omitempty"`
	// Verdict is about the last recovery, nil if there was none that is known. A Manager that begins anew learns of it from the
	// members, if the Engine is a Recorder.
	Verdict *Verdict `json:"verdict,omitempty"`
	// Backup is when the newest of Config.Backups was taken; zero if there is none, or that is not known.
	Backup time.Time `json:"backup,omitzero"`
	// Restored is the backup that the set got its first data from, if this Manager has restored it.
	Restored *Backup `json:"restored,omitempty"`
}

// MemberState is what is known of one member.
type MemberState struct {
	Member   Member        `json:"member"` // without its Fence
	Role     Role          `json:"role"`
	Serves   bool          `json:"serves"` // it may serve reads: the primary, or a replica within Config.MaxLag; again, once it is within half of it
	Lag      time.Duration `json:"lag"`    // how far a replica is behind, at the last look
	Position Position      `json:"position,omitempty"`
	Progress Progress      `json:"progress,omitzero"` // of the seed, import or backup that is under way
	Error    string        `json:"error,omitempty"`   // why it is not what it should be
}

// Why says why the member is not what it should be, or does not serve; empty if its role says that.
func (s MemberState) Why() string {
	if s.Error == "" && s.Role == RoleReplica && !s.Serves && s.Lag > 0 {
		return s.Lag.Round(time.Millisecond).String() + " behind"
	}
	return s.Error
}

// Member gives the state of the member with this ID.
func (t Topology) Member(id string) (MemberState, bool) {
	i, ok := slices.BinarySearchFunc(t.Members, id, func(s MemberState, id string) int {
		switch {
		case s.Member.ID < id:
			return -1
		case s.Member.ID > id:
			return 1
		}
		return 0
	})
	if !ok {
		return MemberState{}, false
	}
	return t.Members[i], true
}

func (t Topology) clone() Topology {
	t.Members = slices.Clone(t.Members)
	t.Held = slices.Clone(t.Held)
	if t.Verdict != nil {
		v := *t.Verdict
		t.Verdict = &v
	}
	if t.Restored != nil {
		b := *t.Restored
		t.Restored = &b
	}
	return t
}

// Loss is how sure a [Verdict] is of its number.
type Loss string

const (
	// LossNone: no acknowledged transaction can be missing.
	LossNone Loss = "none"
	// LossAtLeast: so many transactions are known to be missing; there may be more, which shows when the old primary
	// comes back.
	LossAtLeast Loss = "at-least"
	// LossExact: the old primary has come back, and so many of its transactions are missing.
	LossExact Loss = "exact"
)

// Verdict says how a recovery ended. Under Availability there may be one without a recovery: a Manager takes on the primary that it finds
// when it begins, and should another member have been the primary meanwhile, that shows when it is back.
type Verdict struct {
	Epoch  uint64        `json:"epoch"`  // the epoch that it began, as counted by the Manager that told it
	From   string        `json:"from"`   // the ID of the primary that was lost, its address where it is no member
	To     string        `json:"to"`     // the ID of the member that was promoted
	Reason string        `json:"reason"` // what happened and, where nothing is lost, why that is certain
	Began  time.Time     `json:"began"`  // when the trouble was first seen
	Took   time.Duration `json:"took"`   // from then until the new primary took writes
	Lost   uint64        `json:"lost"`   // acknowledged transactions that are missing
	Loss   Loss          `json:"loss"`   // how sure that is
	// Until bounds a loss that is LossAtLeast: all that From acknowledged until then is there. It is the Manager's last look at
	// From that found nothing which To lacks, so an Interval or so before Began unless To lagged; zero if the Manager had not
	// seen From before.
	Until time.Time `json:"until,omitzero"`
	// Saved is the file in Config.Salvage with what the old primary had and To lacks, when it has come back.
	Saved string `json:"saved,omitempty"`
}

// String gives the verdict in one line.
func (v Verdict) String() string {
	lost := "no acknowledged transaction can be missing"
	switch v.Loss {
	case LossAtLeast:
		lost = fmt.Sprintf("at least %d transactions are missing", v.Lost)
		if v.Lost == 0 {
			lost = "none is known to be missing, some may be"
		}
		if !v.Until.IsZero() {
			lost += fmt.Sprintf(", none that was acknowledged until %s, %v before the trouble was seen",
				v.Until.UTC().Format("15:04:05.000"), v.Began.Sub(v.Until).Round(time.Millisecond))
		}
	case LossExact:
		lost = fmt.Sprintf("%d transactions are missing", v.Lost)
	}
	if v.Saved != "" {
		lost += ", which are in " + v.Saved
	}
	if v.From == v.To {
		return fmt.Sprintf("%s took writes again after %v: %s (%s)", v.To, v.Took.Round(time.Millisecond), lost, v.Reason)
	}
	return fmt.Sprintf("%s took over from %s in %v: %s (%s)", v.To, v.From, v.Took.Round(time.Millisecond), lost, v.Reason)
}

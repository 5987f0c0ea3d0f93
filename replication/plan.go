package replication

import (
	"fmt"
	"strings"
)

// StepKind is what a step does.
type StepKind string

// The kinds of steps.
const (
	StepFence       StepKind = "fence"        // Engine.Fence
	StepStop        StepKind = "stop-machine" // Member.Fence
	StepDrain       StepKind = "drain"        // Engine.Drain
	StepPromote     StepKind = "promote"      // Engine.Promote
	StepFollow      StepKind = "follow"       // Engine.Follow, Other is the primary
	StepSeed        StepKind = "seed"         // Engine.Seed, Other is the source
	StepSave        StepKind = "save"         // Rewinder.Save, Other is the primary
	StepRewind      StepKind = "rewind"       // Rewinder.Rewind, Other is the source
	StepImport      StepKind = "import"       // Importer.Import, Adopter.Adopt or Backuper.Restore, from Config.Origin
	StepBackup      StepKind = "backup"       // Backuper.Backup, to a file in Config.Backups
	StepSemiSyncOn  StepKind = "semisync-on"  // Engine.SetSemiSync
	StepSemiSyncOff StepKind = "semisync-off" // Engine.SetSemiSync
)

// Step is one action on one member.
type Step struct {
	Kind     StepKind `json:"kind"`
	Member   string   `json:"member"`             // the ID of the member that it acts on
	Other    string   `json:"other,omitempty"`    // the ID of the member to follow or to copy from
	SemiSync bool     `json:"semisync,omitempty"` // for StepPromote: with semi-synchronous acknowledgement
	Phase    int      `json:"phase"`              // steps of one phase run at the same time, after those of the one before
	Reason   string   `json:"reason"`             // in words
}

// String gives the step in one line.
func (s Step) String() string {
	var b strings.Builder
	if s.Phase > 0 {
		fmt.Fprintf(&b, "%d. ", s.Phase)
	}
	fmt.Fprintf(&b, "%s %s", s.Kind, s.Member)
	switch s.Kind {
	case StepFollow, StepSave:
		b.WriteString(" -> " + s.Other)
	case StepSeed, StepRewind:
		b.WriteString(" <- " + s.Other)
	}
	if s.SemiSync {
		b.WriteString(" (semi-sync)")
	}
	return b.String() + ": " + s.Reason
}

// Plan is what a Manager would do, as far as it can be foreseen: after each phase it looks again and plans anew.
type Plan struct {
	Steps []Step `json:"steps"`
	// Held says, in words, what should be done and is not, and why.
	Held []string `json:"held,omitempty"`
}

// String gives the plan, a line for each step and for each thing that is held.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String() + "\n")
	}
	for _, h := range p.Held {
		b.WriteString("held: " + h + "\n")
	}
	return b.String()
}

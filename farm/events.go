package farm

import "github.com/scalr-go/scalr"

// The kinds of a farm's events. A step that was done is told by the kind of its action's name, a step that failed by
// StepFailed.
const (
	HostUp         scalr.Kind = "host-up"         // a machine serves for the first time
	HostUnhealthy  scalr.Kind = "host-unhealthy"  // a machine that served does not serve now
	HostCrash      scalr.Kind = "host-crash"      // a machine ended by itself
	HostDown       scalr.Kind = "host-down"       // a machine is gone
	UpdateFailed   scalr.Kind = "update-failed"   // the first machine of a changed role came to nothing
	UpdateDone     scalr.Kind = "update-done"     // all machines of a role are made of what it has now
	MoveDone       scalr.Kind = "move-done"       // no machine of a role is left where the role may not be
	CalledUp       scalr.Kind = "called-up"       // a machine of the warm pool serves
	HostDoomed     scalr.Kind = "host-doomed"     // its cloud has announced to take a machine back
	HostStarting   scalr.Kind = "host-starting"   // a machine runs, and hooks are to let it serve: see Hook
	HostStopping   scalr.Kind = "host-stopping"   // a machine that worked has drained, and hooks are to let it end: see Hook
	StopTimedOut   scalr.Kind = "stop-timed-out"  // hooks did not let a machine end in time
	HookDone       scalr.Kind = "hook-done"       // a hook has returned without an error
	HookFailed     scalr.Kind = "hook-failed"     // it has not
	PrimaryChanged scalr.Kind = "primary-changed" // another machine is the primary of a database
	Quarantined    scalr.Kind = "quarantined"     // a machine that no slot wants is kept for the grace period
	ScaleUp        scalr.Kind = "scale-up"        // a policy wants more machines
	ScaleDown      scalr.Kind = "scale-down"      // a policy wants fewer
	ViewDistrusted scalr.Kind = "view-distrusted" // too many machines vanished from a list at once
	ViewTrusted    scalr.Kind = "view-trusted"    // they are back, or have been gone for long enough
	SnapshotDone   scalr.Kind = "snapshot-done"   // a snapshot of a volume is complete
	SnapshotFailed scalr.Kind = "snapshot-failed" // the cloud gave up on a snapshot; it is deleted, and taken again
	DataAtRisk     scalr.Kind = "data-at-risk"    // told by New: a database is kept where it goes with its machines
	StepFailed     scalr.Kind = "step-failed"
	PassFailed     scalr.Kind = "pass-failed"     // facts of a pass could not be had
	LeaseHeld      scalr.Kind = "lease-held"      // this program runs the farm now
	LeaseLost      scalr.Kind = "lease-lost"      // it does not any more
	Closed         scalr.Kind = "farm-closed"     // only the snapshots of the farm's volumes are left, until it opens
	Opened         scalr.Kind = "farm-opened"     // the farm is launched from them
	Terminated     scalr.Kind = "farm-terminated" // nothing is left of the farm
)

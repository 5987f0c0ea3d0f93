package scale

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Forecast provides for the load of the moment when an instance that is launched now will serve, and aims at the share
// Budget of the load, and no more, meeting too little capacity; where a load is harder to foretell than it was in the last week, more
// does. It makes eight simple forecasts of that load: from what is there now, from the last three minutes and their trend, from the mean
// of the last minutes, from that of the last hours, from that of the last days, from what the load did at this minute of the last
// hours, and, from what is there now and from the trend, at this time of day on each of the last days. Of each it knows how far the
// load has been from it of late, and so how much of the time each instance would be used. What they say is averaged: the cheaper a
// forecast would have been over the last days, an instance-minute too many counted at the share below and one that was lacking at 1,
// the more it counts. One that has not seen the like of what is there now does not count until the load is again what it knows.
//
// An instance is wanted if it would be used for at least a certain share of the time, the same at every time of day, which is the
// least cost for a given load that meets too little. What that share has to be the past says: it is the highest at which the budget
// would have been kept over the last two weeks or so, but not more than a half. If more was lacking than that, less of the budget is
// aimed at, down to a half of it; if less was, up to a quarter more. Once a day is known, never more is wanted than a fifth beyond the
// highest load of the last weeks, or twice the present one.
//
// An instance goes if it is not used now, no decision of the last three minutes wanted it and it would be used for less than that share,
// or than a twentieth, of the next quarter of an hour; but none for a quarter of an hour after the role grew, or for five minutes where
// many go at once, two fifths of the role and more or, where launches are slow, a smaller part, and shrinkings are seldom undone. A role
// that has to grow within a quarter of an hour after it shrank leaves a little more when it shrinks again, and does not shrink by
// little, and so it is for the first hour. This is forgiven once a day, or where launches are slow once a day for every two minutes
// beyond the first: the longer a launch, the less well what follows is foretold, and never to undo anything would keep too much.
//
// A jump that nobody could foretell may take the budget of days: it makes the policy careful for as long.
//
// What it has learned it keeps in memory for two weeks. It begins anew after a restart, with the trend and a wide margin: with the
// default Budget more than twice the load at first, two thirds more than it or a little over that an hour later and hardly more after
// some hours.
type Forecast struct {
	// Metric is the name of a sensor in the farm's Config.
	Metric string `json:"metric"`
	// Value is the metric of an instance that is fully used, beyond which clients notice; greater than 0. A margin need not be
	// part of it.
	Value float64 `json:"value"`
	// Total says that a sample is of the role as a whole: it is divided by the instances that serve.
	Total bool `json:"total,omitempty"`
	// Budget is the share of the load that may meet too little capacity, an aim and no bound: less is dearer. More
	// than 0, less than 1; default 0.001. What is lacked is seen only if the metric goes beyond Value then: a CPU's utilisation ends at 100, and wants a
	// lower Value.
	Budget float64 `json:"budget,omitempty"`
	// Boot is how long an instance takes from its launch until it serves, while it has not been measured; default 3 minutes.
	Boot time.Duration `json:"boot,omitempty"`
}

const (
	forecastWindow  = 3 * time.Minute  // a lull must last so long
	forecastHold    = 15 * time.Minute // and what was launched is kept so long,
	forecastDrop    = 5 * time.Minute  // or so long if more goes than
	forecastFew     = 3                // so many beyond
	forecastLow     = 0.4              // this share of the role, and what shrinkings leave beyond what is wanted is
	forecastTorn    = 0.1              // less than this; both for quick launches
	forecastRegret  = 0.02             // of the load: what each shrinking that had to be undone adds to what the next ones leave,
	forecastForgive = 2                // minutes of a launch, beyond the first, for which one of them a day is forgiven; but one in any case
	forecastCap     = 0.35             // at most
	forecastFirst   = 0.06             // and at first,
	forecastNew     = 0.15             // and more while less than an hour is known
	forecastLeast   = 0.8              // of what is left, as a share of the role: the least by which it shrinks
	forecastSeen    = 1.2              // of the highest load of the last weeks, or
	forecastJump    = 2                // of the present one: more is never wanted once a day is known
)

// Check reports every fault of the policy's fields.
func (f Forecast) Check() error {
	var errs []error
	if f.Metric == "" {
		errs = append(errs, errors.New("metric is empty, want the name of a sensor"))
	}
	if !(f.Value > 0) || math.IsInf(f.Value, 0) {
		errs = append(errs, fmt.Errorf("value is %v, want more than 0", f.Value))
	}
	if !(f.Budget >= 0 && f.Budget < 1) {
		errs = append(errs, fmt.Errorf("budget is %v, want more than 0 and less than 1", f.Budget))
	}
	if f.Boot < 0 || f.Boot > 6*time.Hour {
		errs = append(errs, fmt.Errorf("boot is %v, want 0 to 6h", f.Boot))
	}
	return errors.Join(errs...)
}

// Memory is how far back the policy wants to see its own advice.
func (f Forecast) Memory() time.Duration { return forecastWindow }

// Desired implements [Policy].
func (f Forecast) Desired(in Input) Decision {
	mean, ok := in.Of(f.Metric).Mean()
	switch {
	case !ok:
		return in.Hold("%s is missing: hold at %d", f.Metric, in.Count)
	case in.Ready == 0 && !f.Total:
		return in.Hold("nothing serves yet: hold at %d", in.Count)
	case !f.Total:
		mean *= float64(in.Ready)
	}
	load := max(min(mean/f.Value, 1e6), 0)
	boot := min(defaultTo(in.Boot, defaultTo(f.Boot, 3*time.Minute)), 6*time.Hour)
	m := remembered(in.Memory).learn(in, load, int(math.Ceil(boot.Minutes()))+1, defaultTo(f.Budget, 0.001))

	in.Max = m.limit(in.Max)
	expected, by := m.mixed(grow, 0)
	up := expected.most(m.use, in)
	d := Decision{Desired: in.Count, Raw: up, Memory: m}
	why := fmt.Sprintf("%s is worth %.1f instances; over the %v of a launch, judged most of all by %v,", f.Metric, load, boot.Round(time.Second), by)
	if up > in.Count {
		if in.LastDown.After(in.LastUp) && in.Now.Sub(in.LastDown) <= forecastHold {
			m.regret = min(m.regret+forecastRegret, forecastCap)
		}
		d.Desired, d.Reason = up, fmt.Sprintf("%s %d would be used: grow from %d", why, up, in.Count)
		return d
	}
	spare := m.spare()
	soon, _ := m.mixed(grow, spare)
	rest, _ := m.mixed(stay, spare)
	used := min(int(load+1-m.use), in.Max) // now: it would be lacking at once, whatever follows
	d.Raw = max(soon.most(m.use, in), rest.most(max(m.use, forecastKeep), in), used)
	needed := max(in.highest(forecastWindow, d.Raw), in.Min)
	hold := forecastHold
	if float64(needed+forecastFew) < m.low()*float64(in.Count) {
		hold = forecastDrop
	}
	watched := in.Now.Sub(in.Since)
	least := int(math.Ceil(forecastLeast * spare * float64(in.Count)))
	switch {
	case needed >= in.Count:
		d.Reason = fmt.Sprintf("%s %d would be used: stay at %d", why, needed, in.Count)
	case in.Count-needed < least && needed > in.Min:
		d.Reason = fmt.Sprintf("%s %d would be used, but the role shrinks by no less than %d: stay at %d", why, needed, least, in.Count)
	case !in.LastUp.IsZero() && in.Now.Sub(in.LastUp) <= hold:
		d.Reason = fmt.Sprintf("%s %d would be used, but the role grew less than %v ago: stay at %d", why, needed, hold, in.Count)
	case !in.Since.IsZero() && watched < forecastWindow:
		d.Reason = fmt.Sprintf("%s %d would be used, but the load has been watched for %v of %v only: stay at %d", why, needed, watched.Round(time.Second), forecastWindow, in.Count)
	default:
		d.Desired, d.Reason = needed, fmt.Sprintf("%s %d would be used: shrink from %d", why, needed, in.Count)
	}
	return d
}

// spare is what is left beyond what is wanted when the role shrinks, in the logarithm of the load.
func (m *memory) spare() float64 {
	return m.regret + forecastNew*max(0, 1-m.ladder.minutes/ladderUnseen)
}

// patience is how many undone shrinkings a day are put up with.
func (m *memory) patience() float64 {
	return max(1, float64(m.ahead-2)/forecastForgive)
}

// low is the share of the role below which the load has to fall for what was launched to be kept for a short time only: the longer a
// launch, the more is launched for what does not come. Who has had to undo shrinkings, or knows less than an hour, keeps all of it
// longer.
func (m *memory) low() float64 {
	if m.ladder.minutes < ladderUnseen || m.regret >= forecastTorn*m.patience() {
		return 0
	}
	return 1 - forecastLow/m.patience()
}

// limit is the most instances that are wanted: what is far beyond anything seen is the tail of a distribution, which is only guessed.
func (m *memory) limit(most int) int {
	if m.ladder.minutes < 1440 {
		return most
	}
	limit := forecastSeen * m.highest
	if now := math.Exp(float64(m.now.bases[present])) - forecastFloor; now > 0 { // not where nothing is known of this minute
		limit = max(limit, forecastJump*now)
	}
	return min(most, int(math.Ceil(limit))+1)
}

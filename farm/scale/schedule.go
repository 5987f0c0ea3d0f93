package scale

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Schedule has at least so many instances at certain times of certain days. It needs no metric. On its own it is a role of a
// size that changes by the clock; in a [MaxOf] it is the floor under a policy that follows the load.
type Schedule struct {
	// Zone is the time zone of the windows, as "Europe/Paris"; default UTC.
	Zone string `json:"zone,omitempty"`
	// Windows may overlap: the most counts. Outside all of them the role has its Min.
	Windows []Window `json:"windows"`
	// Ahead begins each window earlier, so that what is launched serves when it begins; default what launches took of late.
	Ahead time.Duration `json:"ahead,omitempty"`
}

// Window is a time of day, on some days.
type Window struct {
	// Days are the days on which the window begins, as "mon" or "mon-fri"; none stands for every day.
	Days []string `json:"days,omitempty"`
	// From and To are times on the clock of the zone, as "08:00"; To is not part of it, and may be "24:00". If To is not
	// after From, the window ends on the next day.
	From string `json:"from"`
	To   string `json:"to"`
	// Least is how many instances there are at least.
	Least int `json:"least"`
}

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// on reports whether the window begins on the day.
func (w Window) on(day time.Weekday) (bool, error) {
	found := len(w.Days) == 0
	for _, text := range w.Days {
		first, last, ranged := strings.Cut(strings.ToLower(text), "-")
		if !ranged {
			last = first
		}
		a, b := slices.Index(days, first), slices.Index(days, last)
		if a < 0 || b < 0 {
			return false, fmt.Errorf("days has %q, want one of %s, or two of them with a - between", text, strings.Join(days, ", "))
		}
		for d := a; ; d = (d + 1) % 7 {
			found = found || d == int(day)
			if d == b {
				break
			}
		}
	}
	return found, nil
}

// clock reads a time of day, in minutes.
func clock(text string) (int, error) {
	if text == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("is %q, want a time such as 08:00", text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// Check reports every fault of the policy's fields.
func (s Schedule) Check() error {
	var errs []error
	if _, err := time.LoadLocation(s.Zone); err != nil {
		errs = append(errs, fmt.Errorf("zone is %q, want the name of a time zone such as Europe/Paris", s.Zone))
	}
	if len(s.Windows) == 0 {
		errs = append(errs, errors.New("windows is empty, want at least one"))
	}
	for i, w := range s.Windows {
		if _, err := w.on(time.Sunday); err != nil {
			errs = append(errs, fmt.Errorf("windows[%d].%w", i, err))
		}
		if _, err := clock(w.From); err != nil {
			errs = append(errs, fmt.Errorf("windows[%d].from %w", i, err))
		}
		if _, err := clock(w.To); err != nil {
			errs = append(errs, fmt.Errorf("windows[%d].to %w", i, err))
		}
		if w.Least < 1 {
			errs = append(errs, fmt.Errorf("windows[%d].least is %d, want at least 1", i, w.Least))
		}
	}
	if s.Ahead < 0 || s.Ahead > 12*time.Hour {
		errs = append(errs, fmt.Errorf("ahead is %v, want 0 to 12h", s.Ahead))
	}
	return errors.Join(errs...)
}

// zoned is what a schedule remembers: its time zone, which is read from files.
type zoned struct {
	name string
	zone *time.Location
}

// Desired implements [Policy].
func (s Schedule) Desired(in Input) Decision {
	mem, ok := in.Memory.(zoned)
	if !ok || mem.name != s.Zone {
		zone, err := time.LoadLocation(s.Zone)
		if err != nil {
			return in.Hold("the time zone %q is not known: hold at %d", s.Zone, in.Count)
		}
		mem = zoned{s.Zone, zone}
	}
	zone := mem.zone
	ahead := min(defaultTo(s.Ahead, in.Boot), 12*time.Hour)
	// A window that lies within the time ahead begins to count too: what it wants is launched for all of it.
	least, which := 0, Window{}
	for at := in.Now; ; at = at.Add(min(time.Minute, in.Now.Add(ahead).Sub(at))) {
		for _, w := range s.Windows {
			if w.Least > least && w.holds(at.In(zone)) {
				least, which = w.Least, w
			}
		}
		if !at.Before(in.Now.Add(ahead)) {
			break
		}
	}
	want := max(min(max(least, in.Min), in.Max), 0)
	if least == 0 {
		return Decision{Desired: want, Raw: want, Memory: mem, Reason: fmt.Sprintf("no window of the schedule at %s: %d", in.Now.In(zone).Format("Mon 15:04"), want)}
	}
	text := which.From + "-" + which.To
	if len(which.Days) > 0 {
		text = strings.Join(which.Days, ",") + " " + text
	}
	return Decision{Desired: want, Raw: want, Memory: mem, Reason: fmt.Sprintf("the schedule has at least %d %s, and it is %s: %d", least, text, in.Now.In(zone).Format("Mon 15:04"), want)}
}

// holds reports whether the window is open, by the clock on the wall.
func (w Window) holds(at time.Time) bool {
	from, err1 := clock(w.From)
	to, err2 := clock(w.To)
	today, err3 := w.on(at.Weekday())
	yesterday, err4 := w.on((at.Weekday() + 6) % 7)
	if errors.Join(err1, err2, err3, err4) != nil {
		return false
	}
	now := at.Hour()*60 + at.Minute()
	if from < to {
		return today && from <= now && now < to
	}
	return today && from <= now || yesterday && now < to
}

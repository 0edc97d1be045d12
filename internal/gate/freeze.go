package gate

import (
	"fmt"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Window is a time in which nothing is deployed. Its fields are those of
// release.Window, which converts to it.
type Window struct {
	Days  []string // mon to sun, by the day on which it begins; empty: every day
	From  string   // 15:04
	To    string   // 15:04, of the next day if not after From; itself no longer frozen
	Zone  string   // IANA name
	Until string   // last day on which it begins, 2006-01-02; empty: for ever
}

// horizon is how many windows that follow one another without a gap are looked at.
const horizon = 1000

// Frozen tells whether now is within a window: until when, windows that touch or
// overlap it included, and why in words. Outside all windows both are zero.
// Where the clock is changed, a time that a day has not is taken as Go's time.Date
// does, an hour off; a time that it has twice is the first.
//
// zone finds a time zone by name, as time.LoadLocation does. A window that cannot be
// read is a fault of kind Invalid.
func Frozen(windows []Window, now time.Time, zone func(string) (*time.Location, error)) (until time.Time, why string, err error) {
	for at := range horizon {
		from := now
		if at > 0 {
			from = until
		}
		end, words, err := latest(windows, from, zone)
		if err != nil {
			return time.Time{}, "", err
		}
		if !end.After(from) {
			break
		}
		until = end
		if why == "" {
			why = words
		}
	}
	return until, why, nil
}

// latest is the end of that window around at that ends last.
func latest(windows []Window, at time.Time, zone func(string) (*time.Location, error)) (end time.Time, why string, err error) {
	for _, w := range windows {
		clock, err := w.clock(zone)
		if err != nil {
			return time.Time{}, "", err
		}
		if e := clock.end(at); e.After(end) {
			end, why = e, w.String()
		}
	}
	return end, why, nil
}

// String is the window in words.
func (w Window) String() string {
	days := "every day"
	if len(w.Days) > 0 {
		days = strings.Join(w.Days, ", ")
	}
	text := fmt.Sprintf("%s from %s to %s %s", days, w.From, w.To, w.Zone)
	if w.Until != "" {
		text += " until " + w.Until
	}
	return text
}

// clock is a window that was read.
type clock struct {
	days     map[time.Weekday]bool
	from, to time.Time // their hour and minute count
	night    bool      // to is of the next day
	zone     *time.Location
	until    time.Time // last day, at 0:00; zero: for ever
}

var weekdays = map[string]time.Weekday{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}

func (w Window) clock(zone func(string) (*time.Location, error)) (c clock, err error) {
	bad := func(what, text, fix string) (clock, error) {
		return clock{}, fault.New(fault.Invalid, "the freeze window has the %s %q", what, text).Mend("%s", fix)
	}
	if c.from, err = time.Parse("15:04", w.From); err != nil {
		return bad("time", w.From, "write  a time such as 18:00")
	}
	if c.to, err = time.Parse("15:04", w.To); err != nil {
		return bad("time", w.To, "write  a time such as 06:00")
	}
	c.night = !c.to.After(c.from)
	if w.Until != "" {
		if c.until, err = time.Parse(time.DateOnly, w.Until); err != nil {
			return bad("last day", w.Until, "write  a day such as 2027-01-02")
		}
	}
	if c.zone, err = zone(w.Zone); err != nil || w.Zone == "" || w.Zone == "Local" {
		return bad("time zone", w.Zone, "write  the IANA name of a zone, such as UTC or Europe/Berlin")
	}
	if len(w.Days) > 0 {
		c.days = map[time.Weekday]bool{}
	}
	for _, name := range w.Days {
		day, ok := weekdays[name]
		if !ok {
			return bad("day", name, "write  mon, tue, wed, thu, fri, sat or sun")
		}
		c.days[day] = true
	}
	return c, nil
}

// end is when the window around at ends, the later one if two of its days meet
// there; zero outside.
func (c clock) end(at time.Time) (end time.Time) {
	local := at.In(c.zone)
	for back := range 2 { // it began today, or yesterday
		y, m, d := local.Year(), local.Month(), local.Day()-back
		day := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
		if c.days != nil && !c.days[day.Weekday()] || !c.until.IsZero() && day.After(c.until) {
			continue
		}
		begins := time.Date(y, m, d, c.from.Hour(), c.from.Minute(), 0, 0, c.zone)
		if c.night {
			d++
		}
		ends := time.Date(y, m, d, c.to.Hour(), c.to.Minute(), 0, 0, c.zone)
		if !at.Before(begins) && at.Before(ends) && ends.After(end) {
			end = ends
		}
	}
	return end
}

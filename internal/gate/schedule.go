package gate

import (
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Schedule is when a job is due: five fields as crontab(5) of Debian's cron has them, in
// UTC. Each field is a set of bits.
type Schedule struct {
	minute, hour, day, month, weekday uint64
	both                              bool // day and weekday both have to match, as one of them begins with *
}

// field is what one of the five may hold.
type field struct {
	name      string
	low, high int
	names     string // three letters each, the first being low
}

var fields = [5]field{
	{"minute", 0, 59, ""},
	{"hour", 0, 23, ""},
	{"day of the month", 1, 31, ""},
	{"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
	{"day of the week", 0, 7, "sunmontuewedthufrisat"}, // 0 and 7 are Sunday
}

// gregorian is after how many years the calendar repeats, weekdays included.
const gregorian = 400

// ParseSchedule reads the five fields. What it cannot read, or what never comes, such as
// the 30th of February, is a fault of kind Invalid.
func ParseSchedule(text string) (Schedule, error) {
	parts := strings.Fields(text)
	if len(parts) != len(fields) || len(text) > 200 {
		return Schedule{}, fault.New(fault.Invalid, "the schedule %.200q has %d fields", text, len(parts)).
			Mend("write  minute, hour, day of the month, month and day of the week, such as  0 3 * * *")
	}
	var sets [5]uint64
	for i, f := range fields {
		set, ok := f.parse(strings.ToLower(parts[i]))
		if !ok {
			return Schedule{}, fault.New(fault.Invalid, "the schedule %q has the %s %q", text, f.name, parts[i]).
				Mend("write  numbers from %d to %d, such as  %d  or  %d-%d  or  */2", f.low, f.high, f.low+1, f.low+1, f.low+3)
		}
		sets[i] = set
	}
	sets[4] = sets[4]&0x7f | sets[4]>>7 // 7 is Sunday
	s := Schedule{sets[0], sets[1], sets[2], sets[3], sets[4], parts[2][0] == '*' || parts[4][0] == '*'}
	if s.Next(time.Unix(0, 0)).IsZero() {
		return Schedule{}, fault.New(fault.Invalid, "the schedule %q never comes: no such day is in a calendar", text).
			Mend("write  a day that the month has")
	}
	return s, nil
}

// Next is the first time at which the job is due after a time, in UTC. The zero
// Schedule is never due: then it is the zero time.
func (s Schedule) Next(after time.Time) time.Time {
	t := after.UTC().Truncate(time.Minute).Add(time.Minute)
	for end := t.Year() + gregorian; t.Year() <= end; {
		switch {
		case s.month>>t.Month()&1 == 0:
			t = time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, time.UTC)
		case !s.onDay(t):
			t = time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, time.UTC)
		case s.hour>>t.Hour()&1 == 0:
			t = t.Truncate(time.Hour).Add(time.Hour)
		default:
			if rest := s.minute >> t.Minute(); rest != 0 {
				return t.Add(time.Duration(bits.TrailingZeros64(rest)) * time.Minute)
			}
			t = t.Truncate(time.Hour).Add(time.Hour)
		}
	}
	return time.Time{}
}

// onDay tells whether a day is one of the schedule's. crontab(5): if both fields are
// restricted, that is neither begins with *, one that matches is enough.
func (s Schedule) onDay(t time.Time) bool {
	day, weekday := s.day>>t.Day()&1 == 1, s.weekday>>t.Weekday()&1 == 1
	if s.both {
		return day && weekday
	}
	return day || weekday
}

// parse reads a list such as "1,5-9,*/15".
func (f field) parse(text string) (set uint64, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(part, "/")
		every := 1
		if stepped {
			if every, ok = number(step); !ok || every < 1 {
				return 0, false
			}
		}
		low, high, ok := f.span(span)
		if !ok || stepped && span != "*" && !strings.Contains(span, "-") {
			return 0, false // crontab(5) has steps after ranges and * alone
		}
		for i := low; i <= high; i += every {
			set |= 1 << i
		}
	}
	return set, true
}

// span reads "*", "5" or "5-9".
func (f field) span(text string) (low, high int, ok bool) {
	if text == "*" {
		return f.low, f.high, true
	}
	first, last, ranged := strings.Cut(text, "-")
	if low, ok = f.value(first); !ok {
		return 0, 0, false
	}
	if !ranged {
		return low, low, true
	}
	high, ok = f.value(last)
	return low, high, ok && low <= high
}

// value reads a number or a name.
func (f field) value(text string) (int, bool) {
	if i := strings.Index(f.names, text); len(text) == 3 && i >= 0 && i%3 == 0 {
		return f.low + i/3, true
	}
	n, ok := number(text)
	return n, ok && n >= f.low && n <= f.high
}

func number(text string) (int, bool) {
	if !digits(text) || len(text) > 3 {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

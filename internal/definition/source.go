package definition

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// span is a stretch of one line of the source. The zero span is no place at all.
type span struct {
	line  int // from 1
	col   int // from 1, in characters
	width int // in characters, at least 1
}

// source is the text of a definition, for showing where a mistake is.
type source struct {
	name  string
	lines []string
	split [][]rune // the same lines as characters, made when first asked for
}

func newSource(name, text string) *source {
	return &source{name: name, lines: strings.Split(text, "\n")}
}

// line gives the text of a line, empty when there is none.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// chars gives the characters of a line, none when there is no such line.
func (s *source) chars(n int) []rune {
	if n < 1 || n > len(s.lines) {
		return nil
	}
	if s.split == nil {
		s.split = make([][]rune, len(s.lines))
	}
	if s.split[n-1] == nil {
		s.split[n-1] = []rune(s.lines[n-1])
	}
	return s.split[n-1]
}

// where renders a place as file:line:column.
func (s *source) where(at span) string {
	return fmt.Sprintf("%s:%d:%d", s.name, max(at.line, 1), max(at.col, 1))
}

// excerptWidth is how much of a long line an excerpt shows, in characters.
const excerptWidth = 100

// excerpt renders the line of a span and underlines it:
//
//	14 | strategy: cannary
//	   |           ^^^^^^^
func (s *source) excerpt(at span) []string {
	line := s.chars(at.line)
	if len(line) == 0 {
		return nil
	}
	start := min(max(at.col-1, 0), len(line))
	end := min(start+max(at.width, 1), max(len(line), start+1))
	from, to := window(len(line), start)
	var under strings.Builder
	for i := from; i < start; i++ {
		if line[i] == '\t' {
			under.WriteRune('\t')
		} else {
			under.WriteRune(' ')
		}
	}
	under.WriteString(strings.Repeat("^", max(min(end, max(to, start+1))-start, 1)))
	number := fmt.Sprint(at.line)
	return []string{
		number + " | " + strings.TrimRight(clean(string(line[from:to])), " \t"),
		strings.Repeat(" ", len(number)) + " | " + under.String(),
	}
}

// window chooses the part of a long line that shows the character at start.
func window(length, start int) (from, to int) {
	if length <= excerptWidth {
		return 0, length
	}
	from = max(start-excerptWidth/3, 0)
	to = min(from+excerptWidth, length)
	return from, max(to, from)
}

// maxFaults is how many mistakes are reported at most.
const maxFaults = 100

// faults collects the mistakes of one source.
type faults struct {
	src   *source
	found []finding
	seen  map[string]bool
}

type finding struct {
	at   span
	err  *fault.Error
	want []string // further details, below the excerpt
}

// add reports a mistake at a place. The same mistake at the same place counts once.
func (f *faults) add(at span, want []string, fix, format string, args ...any) {
	e := fault.New(fault.Invalid, "%s", clean(fmt.Sprintf(format, args...))).At(f.src.where(at))
	key := e.Where + "\x00" + e.What
	if f.seen[key] {
		return
	}
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[key] = true
	e.Fix = clean(fix)
	f.found = append(f.found, finding{at, e, want})
}

// list gives what was found, by place; nil when there is nothing.
func (f *faults) list() fault.List {
	slices.SortStableFunc(f.found, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.at.line, b.at.line), cmp.Compare(a.at.col, b.at.col), cmp.Compare(a.err.What, b.err.What))
	})
	var out fault.List
	for i, one := range f.found {
		if i == maxFaults {
			more := fault.New(fault.Invalid, "%d more mistakes are not shown", len(f.found)-maxFaults)
			return append(out, more.At(f.src.name).Mend("mend those above first"))
		}
		one.err.Detail(f.src.excerpt(one.at)...)
		for _, line := range one.want {
			one.err.Detail(clean(line))
		}
		out = append(out, one.err)
	}
	return out
}

// clean makes text of the user fit for a terminal: characters that would act rather
// than show are replaced.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && (unicode.IsControl(r) || turns(r)) {
			return utf8.RuneError
		}
		return r
	}, text)
}

// turns says that a character changes the direction of the text after it, so that it
// reads differently from what it is.
func turns(r rune) bool { return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 }

// short clips a text of the user for use within a sentence.
func short(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}

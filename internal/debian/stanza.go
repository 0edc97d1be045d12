package debian

import (
	"fmt"
	"strings"
)

// stanza is one paragraph of a control file (deb-control(5)): fields in order,
// as slices of the text they were read from.
type stanza []field

type field struct {
	name  string
	value string // first line's leading blanks and the last newline removed; continuation lines kept as written
}

// maxFields bounds one stanza; Debian's largest have about 40.
const maxFields = 256

// get returns the value of a field, compared without case as policy 5.1 says.
func (s stanza) get(name string) string {
	for i := range s {
		if len(s[i].name) == len(name) && strings.EqualFold(s[i].name, name) {
			return s[i].value
		}
	}
	return ""
}

// nextStanza reads one stanza from the start of text into buf (which is reused)
// and returns it with what remains. At the end it returns an empty stanza.
// A line that is neither field, continuation nor comment is an error; so is a
// field that stands twice.
func nextStanza(text string, buf stanza) (s stanza, rest string, err error) {
	s = buf[:0]
	for text != "" {
		line, after := cutLine(text)
		if blank(line) {
			text = after
			if len(s) > 0 {
				return s, text, nil
			}
			continue
		}
		switch {
		case line[0] == '#':
			text = after
			continue
		case line[0] == ' ' || line[0] == '\t':
			if len(s) == 0 {
				return nil, "", fmt.Errorf("a continuation line before any field: %s", clip(line))
			}
			// Only reached after a comment between: takeValue takes the others.
			last := &s[len(s)-1]
			last.value += "\n" + strings.TrimRight(line, " \t\r")
			text = after
			continue
		}
		colon := strings.IndexByte(line, ':')
		if colon <= 0 || strings.ContainsAny(line[:colon], " \t") {
			return nil, "", fmt.Errorf("neither a field nor a continuation: %s", clip(line))
		}
		name := line[:colon]
		for i := range s {
			if strings.EqualFold(s[i].name, name) {
				return nil, "", fmt.Errorf("field %s stands twice", clip(name))
			}
		}
		if len(s) == maxFields {
			return nil, "", fmt.Errorf("more than %d fields", maxFields)
		}
		value, after := takeValue(line[colon+1:], after)
		s = append(s, field{name: name, value: value})
		text = after
	}
	return s, "", nil
}

// takeValue joins a field's first line with its continuation lines. A long value
// is built once rather than line by line.
func takeValue(first, after string) (value, rest string) {
	value = strings.Trim(first, " \t\r")
	if after == "" || after[0] != ' ' && after[0] != '\t' {
		return value, after
	}
	var b strings.Builder
	b.WriteString(value)
	for after != "" && (after[0] == ' ' || after[0] == '\t') {
		line, next := cutLine(after)
		if blank(line) {
			break
		}
		b.WriteByte('\n')
		b.WriteString(strings.TrimRight(line, " \t\r"))
		after = next
	}
	return b.String(), after
}

func cutLine(text string) (line, rest string) {
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, ""
}

func blank(line string) bool {
	for i := 0; i < len(line); i++ {
		if c := line[i]; c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// clip makes a piece of hostile text fit for an error message.
func clip(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return fmt.Sprintf("%q", s)
}

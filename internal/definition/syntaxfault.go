package definition

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

// syntax reports that the text is not YAML.
func (f *faults) syntax(err error) {
	at, message := span{1, 1, 1}, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		message = y.GetMessage()
		if t := y.GetToken(); t != nil {
			at = (&reader{f: f}).place(t)
		}
	}
	message, _, _ = strings.Cut(message, "\n")
	for n := at.line; n <= at.line+1; n++ {
		line := f.src.line(n)
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if i := strings.IndexByte(indent, '\t'); i >= 0 {
			f.add(span{n, i + 1, 1}, nil, "indent with spaces", "a tab is used for indentation")
			return
		}
	}
	if strings.Contains(message, "mapping value is not allowed in this context") {
		f.secondColon(at)
		return
	}
	for _, known := range syntaxMessages {
		if strings.Contains(message, known.part) {
			f.add(at, nil, known.fix, "%s", known.what)
			return
		}
	}
	f.add(at, nil, "check the indentation and the quotes around this place", "this is not valid YAML: %s", message)
}

// secondColon reports a value that seems to be a key: it has a colon itself, or the
// line below it is indented further.
func (f *faults) secondColon(at span) {
	line := f.src.chars(at.line)
	rest := strings.TrimSpace(string(line[min(max(at.col-1, 0), len(line)):]))
	if strings.Contains(rest, ": ") || strings.HasSuffix(rest, ":") {
		at.width = utf8.RuneCountInString(rest)
		f.add(at, nil, "put the text in quotes, or the key on a line of its own", "there is a second colon in this value")
		return
	}
	for n := at.line + 1; n <= len(f.src.lines); n++ {
		if text := strings.TrimSpace(f.src.line(n)); text != "" && text[0] != '#' {
			indent := len(f.src.line(n)) - len(strings.TrimLeft(f.src.line(n), " "))
			f.add(span{n, indent + 1, utf8.RuneCountInString(text)}, nil, "line it up with the key it belongs beside", "this line is indented further than the line above, which has a value already")
			return
		}
	}
	f.add(at, nil, "put the text in quotes", "this value is taken for a key")
}

// syntaxMessages says in our words what the YAML library finds.
var syntaxMessages = []struct{ part, what, fix string }{
	{"double-quoted text", "text in double quotes does not end", `close it with "`},
	{"single-quoted text", "text in single quotes does not end", "close it with '"},
	{"sequence end token ']' not found", "the list that begins here does not end", "close it with ]"},
	{"flow mapping end token '}'", "the map that begins here does not end", "close it with }"},
	{"',' or '}' must be specified", "the map in braces before this does not end", "close it with }, or put a comma between its keys"},
	{"',' or ']' must be specified", "the list in brackets before this does not end", "close it with ], or put a comma between its items"},
	{"is a reserved character", "text cannot begin with this character", "put the text in quotes"},
	{"unexpected directive value", "text cannot begin with %", "put the text in quotes"},
	{"unexpected key name", "this key is joined to the line before it", "line keys of one map up, and put a colon and a space after each"},
	{"non-map value is specified", "this line is not a key with a value", "put a colon and a space after the key, or indent the line under the one it belongs to"},
	{"unknown escape character", "text in double quotes has an unknown escape", `write \\ for a backslash, or use single quotes`},
	{"block sequence entries are not allowed", "a list cannot begin on the line of its key", "put each - on a line of its own, or write [a, b]"},
	{"value is not allowed in this context", "this line does not fit what is above it", "line it up: either all items of a list, or all keys of a map"},
	{"invalid key for this map", "this cannot be a key", "write the key as plain text"},
}

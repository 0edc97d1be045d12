package docs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// command is one command of a document and what it is said to print.
type command struct {
	line   int // of the document, from 1
	text   string
	output string
}

// parse finds the commands in the console blocks of a Markdown document.
func parse(document string) ([]command, error) {
	var commands []command
	var c *command // nil: outside of a block, or before its first command
	inside := false
	for i, line := range strings.Split(document, "\n") {
		switch {
		case !inside:
			inside = line == "```console"
			c = nil
		case line == "```":
			inside = false
		case strings.HasPrefix(line, "$ "):
			commands = append(commands, command{line: i + 1, text: line[2:]})
			c = &commands[len(commands)-1]
		case c == nil:
			return nil, fmt.Errorf("line %d: a console block begins with a command", i+1)
		case c.output == "" && (line == ">" || strings.HasPrefix(line, "> ")):
			c.text += "\n" + strings.TrimPrefix(line[1:], " ")
		default:
			c.output += line + "\n"
		}
	}
	if inside {
		return nil, fmt.Errorf("the last console block does not end")
	}
	return commands, nil
}

// render gives the document with other outputs of its commands.
func render(document string, commands []command) string {
	byLine := map[int]command{}
	for _, c := range commands {
		byLine[c.line] = c
	}
	var out []string
	var within *command // the command whose old output is left out
	for i, line := range strings.Split(document, "\n") {
		if c, ok := byLine[i+1]; ok {
			within = &c
			text := strings.ReplaceAll(c.text, "\n", "\n> ")
			out = append(out, "$ "+strings.ReplaceAll(text, "\n> \n", "\n>\n"))
			if c.output != "" {
				out = append(out, strings.TrimRight(c.output, "\n"))
			}
			continue
		}
		if line == "```" {
			within = nil
		}
		if within == nil {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func TestParse(t *testing.T) {
	got, err := parse("text\n$ not a command\n```console\n$ cat <<E\n> a\n>\n> E\na\n\n$ true\n```\n```sh\n$ nor this\n```\n")
	want := []command{{line: 4, text: "cat <<E\na\n\nE", output: "a\n\n"}, {line: 10, text: "true"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(command{})); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []string{"```console\noutput\n```\n", "```console\n$ true\n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

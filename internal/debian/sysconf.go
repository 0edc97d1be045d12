package debian

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
)

// confLines are the lines of a tmpfiles.d or sysusers.d file, in words.
func (a *assembly) confLines(dir, name string) ([][]string, error) {
	text, err := a.read("usr/lib/" + dir + "/" + name)
	if err != nil {
		return nil, err
	}
	var out [][]string
	for line := range strings.Lines(string(text)) {
		if words := confWords(line); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			out = append(out, words)
		}
	}
	return out, nil
}

// confWords splits at blanks outside quotes.
func confWords(line string) []string {
	var out []string
	var word strings.Builder
	quote, in := rune(0), false
	flush := func() {
		if in {
			out = append(out, word.String())
		}
		word.Reset()
		in = false
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			flush()
		default:
			in = true
			word.WriteRune(c)
		}
	}
	flush()
	return out
}

func unknownLine(file string, words []string) error {
	return fault.New(fault.Invalid, "the line %s is not understood", clip(strings.Join(words, " "))).At("/usr/lib/" + file).
		Mend("waive the package if it does not matter")
}

// at gives word i, or "-".
func at(words []string, i int) string {
	if i < len(words) && words[i] != "" {
		return words[i]
	}
	return "-"
}

// tmpfiles applies a tmpfiles.d(5) file: directories, empty files and links.
// Lines that only act at boot or clean up do nothing; any other is an error.
func (a *assembly) tmpfiles(name string) error {
	lines, err := a.confLines("tmpfiles.d", name)
	if err != nil {
		return err
	}
	for _, w := range lines {
		kind := strings.TrimRight(w[0], "!-=~^+$")
		if strings.Contains(w[0], "!") || strings.Contains("rRxXDe", kind) && kind != "D" {
			continue
		}
		if err := a.tmpfile(kind, w); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembly) tmpfile(kind string, w []string) error {
	owner, group := at(w, 3), at(w, 4)
	if owner == "-" {
		owner = "root"
	}
	if group == "-" {
		group = "root"
	}
	p := usrPath(image.CleanPath(at(w, 1)))
	if !strings.HasPrefix(at(w, 1), "/") || strings.ContainsAny(p, "%*?[") || p == "." {
		return unknownLine("tmpfiles.d", w)
	}
	mode, err := tmpMode(at(w, 2), kind)
	if err != nil {
		return unknownLine("tmpfiles.d", w)
	}
	switch kind {
	case "d", "D", "v", "q", "Q":
		return a.dir(Dir{Path: p, Mode: mode, Owner: owner, Group: group})
	case "f":
		if at(w, 6) == "-" {
			return a.file(File{Path: p, Mode: mode, Owner: owner, Group: group})
		}
	case "L":
		if to := at(w, 6); to != "-" {
			a.link(Link{Path: p, To: to})
			return nil
		}
	}
	return unknownLine("tmpfiles.d", w)
}

func tmpMode(word, kind string) (uint32, error) {
	if word == "-" {
		if kind == "f" {
			return 0o644, nil
		}
		return 0o755, nil
	}
	m, err := strconv.ParseUint(strings.TrimLeft(word, "~:"), 8, 12)
	return uint32(m), err
}

// sysusers adds the accounts of a sysusers.d(5) file.
func (a *assembly) sysusers(name string) error {
	lines, err := a.confLines("sysusers.d", name)
	if err != nil {
		return err
	}
	for _, w := range lines {
		if err := a.sysuser(w); err != nil {
			return fmt.Errorf("/usr/lib/sysusers.d/%s: %w", name, err)
		}
	}
	return nil
}

func (a *assembly) sysuser(w []string) error {
	id, err := strconv.Atoi(at(w, 2))
	if at(w, 2) == "-" {
		id, err = 0, nil
	}
	switch kind := strings.TrimRight(w[0], "!"); {
	case kind == "r":
		return nil
	case kind == "m" && len(w) >= 3:
		a.accounts.member[w[2]] = append(a.accounts.member[w[2]], w[1])
		return a.accounts.addGroup(Group{Name: w[2]})
	case kind == "g" && len(w) >= 2 && err == nil:
		return a.accounts.addGroup(Group{w[1], id})
	case kind == "u" && len(w) >= 2 && err == nil:
		u := User{Name: w[1], UID: id}
		for to, i := range map[*string]int{&u.Gecos: 3, &u.Home: 4, &u.Shell: 5} {
			if v := at(w, i); v != "-" {
				*to = v
			}
		}
		return a.accounts.addUser(u)
	}
	return unknownLine("sysusers.d", w)
}

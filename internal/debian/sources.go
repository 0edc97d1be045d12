package debian

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// DefaultKeyring is where the package debian-archive-keyring puts its keys.
const DefaultKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// HostArchives finds the archives of a Debian suite in the host's own apt
// sources (sources.list(5), both forms): the suite, its -updates and its
// -security. apt is /etc/apt; readFile reads a keyring by absolute path, as
// os.ReadFile does. Only sources that Debian's own keys sign are taken: a
// third-party repository may use the same suite names.
func HostArchives(apt fs.FS, readFile func(path string) ([]byte, error), suite string) ([]Archive, error) {
	if suite == "" || strings.ContainsAny(suite, "/ \t\n") {
		return nil, fault.New(fault.Invalid, "suite %q is not a Debian release", suite).Mend("write e.g.  suite: bookworm")
	}
	entries, err := readSources(apt)
	if err != nil {
		return nil, err
	}
	var out []Archive
	var seen []string
	for _, want := range []string{suite, suite + "-updates", suite + "-security"} {
		for _, e := range entries {
			seen = append(seen, e.suite)
			if e.suite != want || !e.fromDebian() || has(out, e) {
				continue
			}
			key, err := readFile(e.keyring())
			if err != nil {
				return nil, fault.New(fault.Unavailable, "the archive's keys cannot be read: %w", err).At(e.keyring()).
					Mend("apt-get install debian-archive-keyring")
			}
			out = append(out, Archive{URL: e.url, Suite: e.suite, Areas: e.areas, Keyring: key})
		}
	}
	if len(out) == 0 || out[0].Suite != suite {
		slices.Sort(seen)
		return nil, fault.New(fault.NotFound, "the host's apt sources have no Debian archive of suite %s", suite).At("/etc/apt").
			Detail("known: " + strings.Join(slices.Compact(seen), " ")).
			Mend("add the suite to /etc/apt/sources.list.d, or name an archive in ashlar.yaml with  archive: URL")
	}
	return out, nil
}

func has(out []Archive, e source) bool {
	return slices.ContainsFunc(out, func(a Archive) bool { return a.URL == e.url && a.Suite == e.suite })
}

// source is one URL and suite of apt's configuration.
type source struct {
	url, suite string
	areas      []string
	signedBy   string // absolute path; "-" for a key that stands in the file or a fingerprint
}

func (s source) keyring() string {
	if s.signedBy == "" {
		return DefaultKeyring
	}
	return s.signedBy
}

var debianAreas = []string{"main", "contrib", "non-free", "non-free-firmware", "updates/main"}

func (s source) fromDebian() bool {
	if !strings.HasPrefix(s.url, "http://") && !strings.HasPrefix(s.url, "https://") {
		return false
	}
	if s.signedBy != "" {
		return strings.HasPrefix(path.Base(s.signedBy), "debian-archive-")
	}
	return !slices.ContainsFunc(s.areas, func(a string) bool { return !slices.Contains(debianAreas, a) })
}

// readSources reads sources.list, then sources.list.d in apt's order.
func readSources(apt fs.FS) ([]source, error) {
	names := []string{"sources.list"}
	list, err := fs.ReadDir(apt, "sources.list.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading apt's sources: %w", err)
	}
	for _, e := range list {
		if ext := path.Ext(e.Name()); ext == ".list" || ext == ".sources" {
			names = append(names, "sources.list.d/"+e.Name())
		}
	}
	var out []source
	for _, name := range names {
		data, err := fs.ReadFile(apt, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading apt's sources: %w", err)
		}
		parse := parseOneLine
		if path.Ext(name) == ".sources" {
			parse = parseDeb822
		}
		entries, err := parse(string(data))
		if err != nil {
			return nil, fault.New(fault.Invalid, "apt's sources are malformed: %w", err).At("/etc/apt/" + name)
		}
		out = append(out, entries...)
	}
	return out, nil
}

// parseOneLine reads  deb [options] uri suite area…
func parseOneLine(text string) ([]source, error) {
	var out []source
	for text != "" {
		var line string
		line, text = cutLine(text)
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "deb" {
			continue
		}
		words = words[1:]
		var options []string
		if len(words) > 0 && strings.HasPrefix(words[0], "[") {
			end := slices.IndexFunc(words, func(w string) bool { return strings.HasSuffix(w, "]") })
			if end < 0 {
				return nil, fmt.Errorf("options without a closing bracket: %s", clip(line))
			}
			options = strings.Fields(strings.Trim(strings.Join(words[:end+1], " "), "[]"))
			words = words[end+1:]
		}
		if len(words) < 2 {
			return nil, fmt.Errorf("no suite: %s", clip(line))
		}
		s := source{url: strings.TrimRight(words[0], "/"), suite: words[1], areas: words[2:]}
		for _, o := range options {
			if v, ok := strings.CutPrefix(o, "signed-by="); ok {
				s.signedBy = oneKeyring(v)
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func parseDeb822(text string) ([]source, error) {
	var out []source
	for {
		s, rest, err := nextStanza(text, nil)
		if err != nil {
			return nil, err
		}
		if len(s) == 0 {
			return out, nil
		}
		text = rest
		if slices.Contains([]string{"no", "false", "without", "off", "disable"}, strings.ToLower(s.get("Enabled"))) ||
			!slices.Contains(strings.Fields(s.get("Types")), "deb") {
			continue
		}
		for _, uri := range strings.Fields(s.get("URIs")) {
			for _, suite := range strings.Fields(s.get("Suites")) {
				out = append(out, source{
					url: strings.TrimRight(uri, "/"), suite: suite,
					areas: strings.Fields(s.get("Components")), signedBy: oneKeyring(s.get("Signed-By")),
				})
			}
		}
	}
}

// oneKeyring takes the path of a Signed-By value, which may also be several, a
// fingerprint or a whole key.
func oneKeyring(v string) string {
	words := strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
	switch {
	case len(words) == 0:
		return ""
	case strings.HasPrefix(words[0], "/"):
		return words[0]
	default:
		return "-"
	}
}

package debian

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// releaseFile is what a Release file says, as far as it matters here.
type releaseFile struct {
	suite, codename, version string
	date                     time.Time
	validUntil               time.Time // zero: no end
	byHash                   bool
	allApart                 bool // Architecture: all packages have an index of their own
	files                    map[string]indexFile
}

// indexFile is one line of the SHA256 field.
type indexFile struct {
	digest digest.Digest
	size   int64
}

// clockSkew is how far ahead of this machine an archive's clock may be.
const clockSkew = time.Hour

func parseRelease(text string) (*releaseFile, error) {
	s, rest, err := nextStanza(text, nil)
	if err != nil {
		return nil, err
	}
	if more, _, err := nextStanza(rest, nil); err != nil || len(more) > 0 {
		return nil, fmt.Errorf("it has more than one paragraph")
	}
	r := &releaseFile{
		suite:    s.get("Suite"),
		codename: s.get("Codename"),
		version:  s.get("Version"),
		byHash:   s.get("Acquire-By-Hash") == "yes",
	}
	for _, arch := range strings.Fields(s.get("Architectures")) {
		r.allApart = r.allApart || arch == "all"
	}
	if strings.Contains(s.get("No-Support-for-Architecture-all"), "Packages") {
		r.allApart = false
	}
	if r.date, err = releaseTime(s.get("Date")); err != nil {
		return nil, fmt.Errorf("field Date: %w", err)
	}
	if v := s.get("Valid-Until"); v != "" {
		if r.validUntil, err = releaseTime(v); err != nil {
			return nil, fmt.Errorf("field Valid-Until: %w", err)
		}
	}
	r.files, err = indexFiles(s.get("SHA256"))
	return r, err
}

// releaseTime reads the form of RFC 2822 that archives use, in UTC alone.
func releaseTime(v string) (time.Time, error) {
	for _, layout := range []string{"Mon, 2 Jan 2006 15:04:05 UTC", "Mon, 2 Jan 2006 15:04:05 GMT", "Mon, 2 Jan 2006 15:04:05 +0000"} {
		if t, err := time.Parse(layout, v); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is not a time in UTC", clip(v))
}

func indexFiles(field string) (map[string]indexFile, error) {
	files := map[string]indexFile{}
	for field != "" {
		var line string
		line, field = cutLine(field)
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return nil, fmt.Errorf("in the SHA256 field: %s is not a digest, a size and a name", clip(line))
		}
		d := digest.NewDigestFromEncoded(digest.SHA256, words[0])
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 || d.Validate() != nil {
			return nil, fmt.Errorf("in the SHA256 field: %s is not a digest, a size and a name", clip(line))
		}
		if _, twice := files[words[2]]; twice {
			return nil, fmt.Errorf("in the SHA256 field: %s stands twice", clip(words[2]))
		}
		files[words[2]] = indexFile{d, size}
	}
	return files, nil
}

func (r *releaseFile) check(suite string, now time.Time) *fault.Error {
	if r.suite != suite && r.codename != suite {
		return fault.New(fault.Refused, "the archive signed another suite: %s (%s) instead of %s", r.codename, r.suite, suite).
			Mend("write the suite by its code name, and check the mirror")
	}
	if !r.validUntil.IsZero() && now.After(r.validUntil) {
		return fault.New(fault.Refused, "the signed index expired on %s", r.validUntil.Format(time.RFC3339)).
			Detail("now: " + now.UTC().Format(time.RFC3339)).
			Mend("use a mirror that is up to date, and check this machine's clock")
	}
	if r.date.After(now.Add(clockSkew)) {
		return fault.New(fault.Refused, "the signed index is from the future: %s", r.date.Format(time.RFC3339)).
			Detail("now: " + now.UTC().Format(time.RFC3339)).
			Mend("set this machine's clock")
	}
	return nil
}

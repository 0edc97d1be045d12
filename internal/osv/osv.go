// Package osv reads databases of vulnerabilities in the OSV format
// (https://ossf.github.io/osv-schema/) and matches packages with them: Debian's by the
// source package and Debian's order of versions, Go's modules by semantic versions. A
// database is one file, as a collection of records: a JSON array, or one record a line,
// or a ZIP archive of one record a file, as osv.dev publishes them.
//
// It is pure. Start at [Parse] and [Database.Match]; TestMatch shows what is found.
package osv

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Limits of a database.
const (
	MaxSize    = 1 << 30 // bytes of the file
	maxRecord  = 16 << 20
	maxRecords = 2_000_000
	maxEvents  = 10_000 // of one range
)

// Database is one that was read.
type Database struct {
	Digest  digest.Digest // of the file
	Date    time.Time     // of the newest change of a record
	Records int

	affected map[Name][]affected
}

// Name is what a package is called in one ecosystem.
type Name struct {
	Ecosystem string // such as "Debian:12" or "Go"
	Package   string
}

// affected is what one record says of one package.
type affected struct {
	*Vulnerability
	ranges   [][]event // each in the order of versions
	versions []string
}

// Vulnerability is one record.
type Vulnerability struct {
	ID        string
	Aliases   []string
	Severity  string // critical, high, medium, low; or unknown: it may be any of them
	Published time.Time
}

// event is one end of a range of versions; one of its fields is set.
type event struct{ introduced, fixed, lastAffected string }

func (e event) version() string { return cmp.Or(e.introduced, e.fixed, e.lastAffected) }

// Found is a vulnerability of a package.
type Found struct {
	Vulnerability
	Fixed string // version in which it is mended; empty: in none that is known
}

// The JSON of a record, as far as it is read.
type record struct {
	ID        string     `json:"id"`
	Aliases   []string   `json:"aliases"`
	Modified  time.Time  `json:"modified"`
	Published time.Time  `json:"published"`
	Withdrawn *time.Time `json:"withdrawn"`
	Severity  []score    `json:"severity"`
	Affected  []struct {
		Package struct {
			Ecosystem string `json:"ecosystem"`
			Name      string `json:"name"`
		} `json:"package"`
		Severity []score `json:"severity"`
		Ranges   []struct {
			Type   string              `json:"type"`
			Events []map[string]string `json:"events"`
		} `json:"ranges"`
		Versions          []string       `json:"versions"`
		EcosystemSpecific map[string]any `json:"ecosystem_specific"`
		DatabaseSpecific  map[string]any `json:"database_specific"`
	} `json:"affected"`
	DatabaseSpecific map[string]any `json:"database_specific"`
}

type score struct {
	Type  string `json:"type"`
	Score string `json:"score"`
}

// Parse reads a database. A record that cannot be read is an error: what it would have
// said would be missed.
func Parse(name string, file []byte) (*Database, error) {
	d := &Database{Digest: digest.FromBytes(file), affected: map[Name][]affected{}}
	var err error
	switch text := bytes.TrimLeft(file, " \t\r\n"); {
	case len(file) > MaxSize:
		err = fmt.Errorf("it has more than %d bytes", MaxSize)
	case bytes.HasPrefix(file, []byte("PK\x03\x04")):
		err = d.zip(file)
	case bytes.HasPrefix(text, []byte("[")):
		err = d.array(text)
	default:
		err = d.lines(text)
	}
	if err == nil && d.Records == 0 {
		err = errors.New("it has no records")
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "the database of vulnerabilities cannot be read: %w", err).At(name).
			Mend("give records of the OSV format: a JSON array, one record a line, or the ZIP archive of an ecosystem that osv.dev publishes")
	}
	return d, nil
}

func (d *Database) array(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		if err := d.next(dec); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the records")
	}
	return nil
}

func (d *Database) lines(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	for {
		err := d.next(dec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *Database) zip(file []byte) error {
	r, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return err
	}
	for _, f := range r.File {
		if path.Ext(f.Name) != ".json" {
			continue
		}
		if f.UncompressedSize64 > maxRecord {
			return fmt.Errorf("%s has more than %d bytes", f.Name, maxRecord)
		}
		if err := d.file(f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

func (d *Database) file(f *zip.File) (err error) {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return d.next(json.NewDecoder(io.LimitReader(in, maxRecord)))
}

// next reads one record.
func (d *Database) next(dec *json.Decoder) error {
	var r record
	if err := dec.Decode(&r); err != nil {
		return err
	}
	if r.ID == "" || r.Modified.IsZero() {
		return fmt.Errorf("record %d has no id or no time", d.Records+1)
	}
	if d.Records++; d.Records > maxRecords {
		return fmt.Errorf("it has more than %d records", maxRecords)
	}
	if r.Modified.After(d.Date) {
		d.Date = r.Modified.UTC()
	}
	if r.Withdrawn != nil {
		return nil
	}
	if r.Published.IsZero() {
		r.Published = r.Modified
	}
	return d.add(r)
}

func (d *Database) add(r record) error {
	for _, a := range r.Affected {
		v := &Vulnerability{ID: r.ID, Aliases: r.Aliases, Published: r.Published.UTC(), Severity: "unknown"}
		for _, said := range []string{word(a.EcosystemSpecific), word(a.DatabaseSpecific), scored(a.Severity), word(r.DatabaseSpecific), scored(r.Severity)} {
			if said != "" {
				v.Severity = said
				break
			}
		}
		out := affected{Vulnerability: v, versions: a.Versions}
		for _, g := range a.Ranges {
			if g.Type != "ECOSYSTEM" && g.Type != "SEMVER" {
				continue // GIT: what is built names no commits
			}
			if len(g.Events) > maxEvents {
				return fmt.Errorf("%s has a range of %d events", r.ID, len(g.Events))
			}
			var events []event
			for _, e := range g.Events {
				events = append(events, event{e["introduced"], e["fixed"], e["last_affected"]})
			}
			sortEvents(events, order(a.Package.Ecosystem))
			out.ranges = append(out.ranges, events)
		}
		key := Name{a.Package.Ecosystem, a.Package.Name}
		d.affected[key] = append(d.affected[key], out)
	}
	return nil
}

// sortEvents puts events into the order of their versions: a record may have them in any
// (https://ossf.github.io/osv-schema/, "Evaluation"). With a version that cannot be read
// they stay as they came.
func sortEvents(events []event, compare func(a, b string) (int, bool)) {
	for _, e := range events {
		if _, known := compare(e.version(), e.version()); !known && e.version() != "0" {
			return
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		x, y := a.version(), b.version()
		switch {
		case x == y:
			return 0
		case x == "0":
			return -1
		case y == "0":
			return 1
		}
		c, _ := compare(x, y)
		return c
	})
}

// Match gives the vulnerabilities of one version of a package, sorted by ID.
func (d *Database) Match(n Name, version string) []Found {
	var out []Found
	for _, a := range d.affected[n] {
		fixed, hit := a.hits(n, version)
		if hit && !slices.ContainsFunc(out, func(f Found) bool { return f.ID == a.ID }) {
			out = append(out, Found{*a.Vulnerability, fixed})
		}
	}
	slices.SortFunc(out, func(a, b Found) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// hits says whether a version is affected, and in which it is mended.
func (a affected) hits(n Name, version string) (fixed string, hit bool) {
	compare := order(n.Ecosystem)
	hit = slices.Contains(a.versions, version)
	for _, r := range a.ranges {
		in := false
		for _, e := range r {
			switch {
			case e.introduced != "":
				c, known := compare(version, e.introduced)
				in = in || e.introduced == "0" || c >= 0 || !known
			case e.fixed != "" && in:
				if c, known := compare(version, e.fixed); c < 0 || !known {
					return e.fixed, true
				}
				in = false
			case e.lastAffected != "" && in:
				if c, known := compare(version, e.lastAffected); c <= 0 || !known {
					return "", true
				}
				in = false
			}
		}
		hit = hit || in
	}
	return "", hit
}

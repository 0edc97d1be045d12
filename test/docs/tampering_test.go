package docs_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tables are the headings in docs/security.md under which each row of the table says
// what is done, as what it is refused, and which tests do it.
var tables = []string{"## What is refused", "## Tampering, and what refuses it"}

// row is one row of such a table.
type row struct {
	line     int
	done     string
	verdicts []string // what stands in backticks in the second column
	tests    []named
}

// named is a test by its package, seen from the repository.
type named struct{ pkg, name string }

// refusals are what one test was seen to refuse: by verdict, how many times.
type refusals map[string]int

// TestTampering runs the tables: every test that a row names has to be there, to run and
// to pass, and to tell that it saw a refusal for each verdict that the row names. Tests
// tell it by the attribute "refused", whose value is "VERDICT <- WHAT WAS DONE".
//
// Among all tests of the repository it leaves out the rows that need running servers: the
// tests of these rows run then anyway, beside this one, and take long. Asked for by name
// it leaves out nothing.
func TestTampering(t *testing.T) {
	rows, err := tampering(readDocument(t, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	if f := flag.Lookup("test.run"); f.Value.String() == "" {
		all := len(rows)
		rows = slices.DeleteFunc(rows, func(r row) bool { return slices.ContainsFunc(r.tests, func(n named) bool { return n.pkg == servers }) })
		t.Logf("%d of %d rows need running servers: they are run by  go test -run TestTampering", all-len(rows), all)
	}
	seen, failed := runTests(t, rows)
	var out strings.Builder
	for _, r := range rows {
		problems := r.check(seen)
		word := "refused"
		for _, p := range problems {
			t.Errorf("docs/security.md:%d: %s: %s", r.line, r.done, p)
			word = "NOT SEEN"
		}
		fmt.Fprintf(&out, "\n%-8s  %s\n", word, r.done)
		for _, n := range r.tests {
			for _, v := range slices.Sorted(maps.Keys(seen[n])) {
				if slices.ContainsFunc(r.verdicts, func(w string) bool { return is(v, w) }) {
					fmt.Fprintf(&out, "            %s: %d, %s %s\n", v, seen[n][v], strings.TrimPrefix(n.pkg, "internal/"), n.name)
				}
			}
		}
	}
	t.Logf("%d rows:\n%s", len(rows), out.String())
	if failed != "" {
		t.Errorf("tests of the tables failed:\n%s", failed)
	}
}

// check says what a row claims and was not seen.
func (r row) check(seen map[named]refusals) []string {
	var out []string
	for _, n := range r.tests {
		if seen[n] == nil {
			out = append(out, fmt.Sprintf("%s of %s did not run and pass", n.name, n.pkg))
		}
	}
	for _, w := range r.verdicts {
		if !slices.ContainsFunc(r.tests, func(n named) bool {
			return slices.ContainsFunc(slices.Collect(maps.Keys(seen[n])), func(v string) bool { return is(v, w) })
		}) {
			out = append(out, fmt.Sprintf("none of its tests saw a refusal as %q", w))
		}
	}
	return out
}

// is says whether a test's verdict is the one in a row, or is an error that has the
// row's words in it.
func is(verdict, word string) bool {
	return verdict == word || strings.Contains(word, " ") && strings.Contains(verdict, word)
}

var (
	quoted   = regexp.MustCompile("`([^`]+)`")
	testName = regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`)
)

// tampering reads the tables of the document.
func tampering(document string) ([]row, error) {
	var rows []row
	heading, found := "", map[string]bool{}
	for i, line := range strings.Split(document, "\n") {
		if strings.HasPrefix(line, "#") {
			heading = line
		}
		if !slices.Contains(tables, heading) || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| done |") {
			continue
		}
		found[heading] = true
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 3 {
			return nil, fmt.Errorf("line %d: a row has three columns", i+1)
		}
		r := row{line: i + 1, done: strings.TrimSpace(cells[0])}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			r.verdicts = append(r.verdicts, m[1])
		}
		for part := range strings.SplitSeq(cells[2], ";") {
			pkg, names, ok := strings.Cut(part, ":")
			m := quoted.FindStringSubmatch(pkg)
			if !ok || m == nil {
				return nil, fmt.Errorf("line %d: a test is named as  `package`: TestName", i+1)
			}
			for name := range strings.SplitSeq(names, ",") {
				n := named{directory(m[1]), strings.TrimSpace(name)}
				if !testName.MatchString(n.name) {
					return nil, fmt.Errorf("line %d: %q is no test", i+1, n.name)
				}
				r.tests = append(r.tests, n)
			}
		}
		if len(r.verdicts) == 0 {
			return nil, fmt.Errorf("line %d: the row names no verdict", i+1)
		}
		rows = append(rows, r)
	}
	if len(found) != len(tables) {
		return nil, fmt.Errorf("there are tables under %d of the headings %q", len(found), tables)
	}
	return rows, nil
}

// servers is the package whose tests run real servers.
const servers = "test"

// directory is that of a package as the document calls it.
func directory(pkg string) string {
	if pkg == servers {
		return pkg
	}
	return "internal/" + pkg
}

// runTests runs what the rows name, and gives what each test that ran and passed was
// seen to refuse, and the output of those that did not pass.
func runTests(t *testing.T, rows []row) (map[named]refusals, string) {
	t.Helper()
	wanted := map[named]bool{}
	pkgs, names := map[string]bool{}, map[string]bool{}
	for _, r := range rows {
		for _, n := range r.tests {
			wanted[n], pkgs["./"+n.pkg], names[n.name] = true, true, true
		}
	}
	args := append([]string{"test", "-count=1", "-timeout=30m", "-json", "-run", "^(" + strings.Join(slices.Sorted(maps.Keys(names)), "|") + ")$"}, slices.Sorted(maps.Keys(pkgs))...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = repository
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	seen, failed := readEvents(t, out)
	maps.DeleteFunc(seen, func(n named, _ refusals) bool { return !wanted[n] })
	return seen, failed + errs.String()
}

// readEvents reads what `go test -json` tells.
func readEvents(t *testing.T, out []byte) (map[named]refusals, string) {
	t.Helper()
	all, seen, output, failed := map[named]refusals{}, map[named]refusals{}, map[named]string{}, ""
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var e struct{ Action, Package, Test, Key, Value, Output string }
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, s.Bytes())
		}
		_, pkg, _ := strings.Cut(e.Package, "/ashlar/")
		top, _, inner := strings.Cut(e.Test, "/")
		n := named{pkg, top}
		switch e.Action {
		case "attr":
			if e.Key == "refused" {
				all[n] = all[n].with(e.Value)
			}
		case "build-output":
			failed += e.Output
		case "output":
			output[n] += e.Output
		case "pass":
			if top != "" && !inner {
				seen[n] = all[n].with("")
			}
		case "fail", "skip":
			if !inner {
				failed += output[n]
			}
		}
	}
	return seen, failed
}

var times = regexp.MustCompile(`, (\d+) times$`)

// with adds what one attribute says; nothing for an empty one.
func (r refusals) with(value string) refusals {
	if r == nil {
		r = refusals{}
	}
	verdict, what, ok := strings.Cut(value, " <- ")
	if !ok {
		return r
	}
	n := 1
	if m := times.FindStringSubmatch(what); m != nil {
		n, _ = strconv.Atoi(m[1]) //nolint:errcheck // they are digits
	}
	r[verdict] += n
	return r
}

// TestTamperingCanFail: a row whose test is not there, did not pass or refused something
// else is found.
func TestTamperingCanFail(t *testing.T) {
	const table = "## What is refused\n| done | refused as | test |\n|---|---|---|\n| a bit | `digest` | `object`: TestA, TestB |\n" +
		"## Tampering, and what refuses it\n| a key | `revoked` | `trust`: TestC |\n"
	rows, err := tampering(table)
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	events := func(texts ...string) map[named]refusals {
		seen, _ := readEvents(t, []byte(strings.Join(texts, "\n")))
		return seen
	}
	const (
		a       = `{"Action":"pass","Package":"x.example/ashlar/internal/object","Test":"TestA"}`
		b       = `{"Action":"pass","Package":"x.example/ashlar/internal/object","Test":"TestB"}`
		refused = `{"Action":"attr","Package":"x.example/ashlar/internal/object","Test":"TestB/one","Key":"refused","Value":"digest <- a bit, 7 times"}`
	)
	if problems := rows[0].check(events(a, refused, b)); len(problems) > 0 {
		t.Error(problems)
	}
	for name, seen := range map[string]map[named]refusals{
		"TestA of internal/object did not run": events(refused, b),
		"TestB of internal/object did not run": events(a, refused, strings.Replace(b, "pass", "fail", 1)),
		"TestB of internal/object did not":     events(a, refused, strings.Replace(b, "pass", "skip", 1)),
		`a refusal as "digest"`:                events(a, strings.Replace(refused, "digest", "other", 1), b),
	} {
		if problems := rows[0].check(seen); len(problems) != 1 && len(problems) != 2 || !strings.Contains(problems[0], name) {
			t.Errorf("%s: %v", name, problems)
		}
	}
	for _, bad := range []string{
		strings.Replace(table, "TestA", "the same", 1), strings.Replace(table, "`digest`", "digest", 1),
		strings.Replace(table, "`object`: ", "", 1), strings.Replace(table, "## What is refused", "## What", 1), strings.Replace(table, "| a key |", "| a | key |", 1),
	} {
		if rows, err := tampering(bad); err == nil {
			t.Errorf("%s is read as %v", bad, rows)
		}
	}
}

// TestNamedTestsExist: a document that names a test of a package names one that there is.
func TestNamedTestsExist(t *testing.T) {
	declared := declaredTests(t)
	documents, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatal(documents, err)
	}
	word := regexp.MustCompile("`([a-z/]+)`:|\\b(?:Test|Fuzz|Benchmark)[A-Z]\\w*|[|.;)]")
	names := 0
	for _, path := range append(documents, filepath.Join(repository, "README.md")) {
		pkg := "" // that the names which follow are of
		for _, m := range word.FindAllStringSubmatch(readDocument(t, strings.TrimPrefix(path, repository+"/")), -1) {
			switch {
			case m[1] != "":
				pkg = m[1]
			case len(m[0]) == 1:
				pkg = ""
			default:
				names++
				if in := declared[m[0]]; !in["internal/"+pkg] && !in[pkg] && (pkg != "" || len(in) == 0) {
					t.Errorf("%s names %s of %q, which is not there", filepath.Base(path), m[0], pkg)
				}
			}
		}
	}
	if names < 100 {
		t.Errorf("only %d names of tests were found in the documents", names)
	}
}

// declaredTests are the directories that declare a test of a name.
func declaredTests(t *testing.T) map[string]map[string]bool {
	t.Helper()
	declared := map[string]map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
	err := filepath.WalkDir(repository, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if declared[name] == nil {
				declared[name] = map[string]bool{}
			}
			declared[name][strings.TrimPrefix(filepath.Dir(path), repository+"/")] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return declared
}

func readDocument(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

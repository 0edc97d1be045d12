package definition

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// mend says what to write in place of a value that is wrong: what was probably
// meant, or an example.
func mend(n *node, r *rule) string {
	switch {
	case n.scalar() && r.wants("string"):
		if good := candidate(n.raw, r); good != "" {
			return "write  " + put(n, good)
		}
		if n.kind != kindText && r.Pattern == "" {
			return "write  " + put(n, quote(n.raw))
		}
	case n.scalar() && r.wants("integer") && plainDecimal.MatchString(strings.TrimSpace(n.raw)):
		return "write  " + put(n, strings.TrimSpace(n.raw))
	case n.scalar() && r.wants("array") && len(n.raw) <= 40 && n.raw != "":
		return "write  " + put(n, "["+quoteIfNeeded(n.raw)+"]")
	}
	return example(n, r)
}

// example says how such a value is written.
func example(n *node, r *rule) string {
	if len(r.Examples) == 0 {
		return "write the keys  " + strings.Join(r.Properties.names(), ":, ") + ":"
	}
	return "write it like  " + put(n, flow(firstExample(r)))
}

func firstExample(r *rule) any {
	if len(r.Examples) == 0 {
		return "…"
	}
	return r.Examples[0]
}

// put renders a value behind the node's key; an item of a list stands alone.
func put(n *node, value string) string {
	if n.label.item > 0 {
		return value
	}
	return n.label.key + ": " + value
}

// candidate changes a text in the ways that people get it wrong until it is
// allowed; it is rendered as YAML. Empty when none of the ways helps.
func candidate(text string, r *rule) string {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > 80 {
		return ""
	}
	joined := strings.Join(strings.Fields(text), "")
	dashed := strings.Join(strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return c == ' ' || c == '_' || c == '.' }), "-")
	ways := []string{text, joined, strings.ToLower(joined), dashed, strings.ToUpper(joined), "/" + joined, strings.TrimRight(joined, "/"),
		unitLetter.ReplaceAllString(strings.ToLower(joined), "$1$2"), joined + "s", joined + "MiB", joined + "iB", joined + "B"}
	if len(r.Enum) > 0 {
		ways = append(ways, "SIG"+strings.ToUpper(joined), "CAP_"+strings.ToUpper(joined))
	}
	for _, way := range ways {
		if len(r.Enum) > 0 && slices.Contains(r.known(), way) {
			return quoteIfNeeded(way)
		}
		if len(r.Enum) == 0 && r.Pattern != "" && matches(r.Pattern, way) {
			return quoteIfNeeded(way)
		}
	}
	return ""
}

// unitLetter finds a duration whose unit is spelt out: 10sec, 5minutes.
var unitLetter = regexp.MustCompile(`^([0-9.]+)([smh])[a-z]+$`)

// bare is text that YAML reads as text without quotes.
var bare = regexp.MustCompile(`^(\./)?[A-Za-z/][A-Za-z0-9_./*+-]*(:[A-Za-z0-9_-]+)?$|^[0-9]+(\.[0-9]+)?[A-Za-z][A-Za-z0-9]*$`)

func quoteIfNeeded(text string) string {
	if bare.MatchString(text) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off"}, strings.ToLower(text)) {
		return text
	}
	return quote(text)
}

func quote(text string) string {
	b, err := json.Marshal(text)
	if err != nil {
		return fmt.Sprintf("%q", text)
	}
	return string(b)
}

// flow renders a value of an example as YAML on one line.
func flow(v any) string {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for i, k := range keys {
			keys[i] = k + ": " + flow(v[k])
		}
		return "{" + strings.Join(keys, ", ") + "}"
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = flow(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case string:
		return quoteIfNeeded(v)
	default:
		return fmt.Sprint(v)
	}
}

// nearest gives the known word that a misspelt one was probably meant to be, or nothing.
func nearest(word string, known []string) string {
	best, distance := "", max(1, len(word)/3)+1
	for _, k := range known {
		if d := fault.Edits(strings.ToLower(word), strings.ToLower(k), distance); d < distance {
			best, distance = k, d
		}
	}
	if distance >= max(len(word), 2) || distance >= max(len(best), 2) {
		return ""
	}
	return best
}

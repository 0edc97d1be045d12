package definition

import (
	"cmp"
	"strings"
)

// unknownKey reports a key that the map n must not have, and which one was meant.
func (e *explainer) unknownKey(n *node, r *rule, path []string, name string) {
	at := n.keyAt(name)
	in := ""
	if len(path) > 0 {
		in = " in " + n.label.String()
	}
	known := "known: " + cmp.Or(strings.Join(r.Properties.names(), ", "), "none")
	if len(path) == 4 && path[0] == "environments" && e.s.root.Defs.get("component").Properties.get(name) != nil {
		e.f.add(at, []string{known}, "remove it; what differs belongs into one of those", "an environment cannot change %s of a component: the same artifact runs everywhere", name)
		return
	}
	fix := "remove it"
	if where := e.home(r, path, name); where != "" {
		fix = "move it " + where
	} else if near := nearest(name, r.Properties.names()); near != "" {
		fix = "write  " + near + ":"
		e.mistook[n] = append(e.mistook[n], near)
	} else if near, under := e.below(r, name); near != "" {
		fix = "write  " + near + ":  and move it under  " + under + ":"
	}
	e.f.add(at, []string{known}, fix, "unknown key %q%s", short(name), in)
}

// home says where a key belongs that stands in the wrong map, or nothing.
func (e *explainer) home(r *rule, path []string, name string) string {
	if under := e.holder(r, name); under != "" {
		return "under  " + under + ":"
	}
	for i := len(path) - 1; i >= 0; i-- {
		if up := e.s.at(path[:i]); up != nil && up.Properties.get(name) != nil {
			if i == 0 {
				return "to the left margin, beside  " + path[0] + ":"
			}
			return "out, beside  " + path[i] + ":"
		} else if up != nil && i > 0 {
			if under := e.holder(up, name); under != "" {
				return "under  " + under + ":"
			}
		}
	}
	return ""
}

// holder gives the key of what r describes whose map has a key of that name.
func (e *explainer) holder(r *rule, name string) string {
	for _, p := range r.Properties {
		if child := e.s.resolve(p.rule); child.Properties.get(name) != nil {
			return p.name
		} else if of := e.s.resolve(child.Others); of != nil && of.Properties.get(name) != nil {
			return p.name + ": " + flow(firstKey(child))
		}
	}
	return ""
}

// below finds the key of a map below what r describes that a name was meant to be.
func (e *explainer) below(r *rule, name string) (near, under string) {
	for _, p := range r.Properties {
		if near := nearest(name, e.s.resolve(p.rule).Properties.names()); near != "" {
			return near, p.name
		}
	}
	return "", ""
}

// firstKey gives a name as the example of a map has it.
func firstKey(r *rule) string {
	if m, ok := firstExample(r).(map[string]any); ok {
		for key := range m {
			return key
		}
	}
	return "name"
}

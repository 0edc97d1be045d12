package definition

// merge lays an environment's override over a component's settings and gives the
// result. Maps are merged key by key, everything else replaces, and null takes a
// key away. Neither argument is changed, and every value keeps its own place.
//
// Some keys say the same thing in two ways; setting one of them takes the other away.
func merge(base, over *node) *node {
	if over == nil {
		return base
	}
	if base == nil || base.kind != kindMap || over.kind != kindMap {
		return prune(over)
	}
	out := base
	for _, p := range over.pairs {
		if p.val.kind == kindNull {
			out = out.without(p.key)
			continue
		}
		for _, rival := range rivals[p.key] {
			if over.get(rival) == nil {
				out = out.without(rival)
			}
		}
		out = out.with(pair{p.key, p.at, merge(out.get(p.key), p.val)})
	}
	merged := *out
	merged.at, merged.label = over.at, over.label
	merged.broken = base.broken || over.broken
	return &merged
}

// rivals are the keys that a key replaces.
var rivals = map[string][]string{
	"http": {"tcp", "exec"}, "tcp": {"http", "exec", "host", "path"}, "exec": {"http", "tcp"}, // of a health check and a route
	"host": {"tcp", "listen"}, "path": {"tcp", "listen"},
	"from": {"content"}, "content": {"from"},
}

// prune takes away the keys that are null: there is nothing they could remove.
func prune(n *node) *node {
	if n.kind != kindMap {
		return n
	}
	out := *n
	out.pairs = nil
	for _, p := range n.pairs {
		if p.val.kind != kindNull {
			out.pairs = append(out.pairs, pair{p.key, p.at, prune(p.val)})
		}
	}
	return &out
}

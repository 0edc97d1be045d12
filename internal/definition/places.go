package definition

import "strings"

// place is a path that an instance finds something at.
type place struct {
	path string
	at   span
	what string // "the tmpfs /tmp"
	file bool   // nothing can be below it
}

// places checks the paths of config files, tmpfs, volumes and secrets against each
// other.
func (k *checker) places(run *node) {
	var mounts, all []place
	for _, p := range pairs(run.get("tmpfs")) {
		mounts = append(mounts, place{p.key, p.at, "the tmpfs " + p.key, false})
	}
	for _, p := range pairs(run.get("volumes")) {
		if path := p.val.get("path"); usable(path) {
			mounts = append(mounts, place{path.raw, path.at, "the volume " + short(p.key), false})
		}
	}
	secrets := k.secretPlaces(run.get("secrets"))
	all = append(append(all, mounts...), secrets...)
	files := pairs(run.get("files"))
	for _, p := range files {
		all = append(all, place{p.key, p.at, "the config file " + p.key, true})
	}
	for _, p := range all {
		for _, own := range []string{"/proc", "/sys", "/dev"} {
			if below(p.path, own) {
				k.add(p.at, nil, "choose another path", "path "+p.path+" belongs to the system: "+own+" is made for each instance")
			}
		}
	}
	for i, m := range mounts {
		k.apart(m, mounts[:i])
	}
	for i, s := range secrets {
		k.apart(s, secrets[:i])
		for _, m := range mounts {
			if below(m.path, s.path) {
				k.add(m.at, nil, "move one of them", m.what+" would be below "+s.what)
			}
		}
	}
	for _, p := range files {
		k.file(p, files, mounts, secrets)
	}
}

func (k *checker) secretPlaces(secrets *node) []place {
	var out []place
	for _, p := range pairs(secrets) {
		one := place{secretsDir + "/" + p.key, p.at, "the secret " + short(p.key), true}
		if path := p.val.get("path"); usable(path) {
			one.path, one.at = path.raw, path.at
		}
		out = append(out, one)
	}
	return out
}

// apart checks that a place is not the place of another, and that of two mounts
// neither hides the other.
func (k *checker) apart(one place, others []place) {
	for _, other := range others {
		switch {
		case one.path == other.path:
			k.add(one.at, nil, "move one of them", one.what+" and "+other.what+" are both at "+short(one.path))
		case below(one.path, other.path) && other.file, below(other.path, one.path) && one.file:
			k.add(one.at, nil, "move one of them", one.what+" and "+other.what+" are in each other's way")
		}
	}
}

func (k *checker) file(p pair, files []pair, mounts, secrets []place) {
	for _, m := range mounts {
		if below(p.key, m.path) {
			k.add(p.at, nil, "move the file, or take the mount away", "config file "+p.key+" would be hidden by "+m.what)
		} else if below(m.path, p.key) {
			k.add(p.at, nil, "move one of them", "config file "+p.key+" is in the way of "+m.what)
		}
	}
	for _, s := range secrets {
		if below(p.key, s.path) || below(s.path, p.key) {
			k.add(p.at, nil, "move one of them", "config file "+p.key+" is in the way of "+s.what)
		}
	}
	for _, other := range files {
		if other.key != p.key && below(other.key, p.key) {
			k.add(p.at, nil, "move one of them", "config file "+p.key+" would be the directory of "+other.key)
		}
	}
	if n := p.val; n.kind == kindMap && !n.broken && !n.holes && n.get("from") == nil && n.get("content") == nil {
		k.add(p.at, []string{"want:  exactly one of from and content"}, "add  from: and a file name, or  content: and the text", "config file "+p.key+" has no content")
	}
}

// below says that an absolute path is dir or beneath it.
func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// pairs gives the keys of a map, none if it is not one.
func pairs(n *node) []pair {
	if n == nil || n.kind != kindMap {
		return nil
	}
	return n.pairs
}

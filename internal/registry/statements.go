package registry

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/referrer"
)

// Statements gives the statements about something that are in the store, whichever way they
// came: those that were attached here or brought by [FetchStatements] first, then what was
// pushed to any repository as a referrer of it, sorted by digest. Each bundle is there
// once. What cannot be read is passed over, and so are pushed ones beyond a thousand: it is
// others who push, and what a statement is worth is judged elsewhere.
func Statements(objects *object.Store, about digest.Digest) ([]referrer.Referrer, error) {
	attached, err := referrer.Of(objects, about)
	if err != nil {
		return nil, err
	}
	pushed, err := pushedAbout(objects, about)
	if err != nil {
		return nil, err
	}
	var out []referrer.Referrer
	seen := map[digest.Digest]bool{"": true}
	for _, r := range append(attached, pushed...) {
		if !seen[r.Bundle] {
			out = append(out, r)
		}
		seen[r.Bundle] = true
	}
	return out, nil
}

// pushedAbout reads what was pushed and refers to something.
func pushedAbout(objects *object.Store, about digest.Digest) ([]referrer.Referrer, error) {
	repositories, err := objects.RefNames(kindRepository)
	if err != nil {
		return nil, err
	}
	manifests := map[digest.Digest]bool{}
	for _, id := range repositories {
		found, err := repository{objects: objects, id: id}.subjects(about)
		if err != nil {
			return nil, err
		}
		for _, stored := range found {
			manifests[stored] = true
		}
	}
	all := slices.Sorted(maps.Keys(manifests))
	var out []referrer.Referrer
	for _, d := range all[:min(len(all), maxStatements)] {
		if r, err := referrer.Read(objects, d, about); err == nil {
			out = append(out, r)
		}
	}
	return out, nil
}

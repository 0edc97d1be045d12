package build

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// refTrial is the kind of references from a run test (the hex over all that it depends
// on) to the document that says so, set once it has passed.
const refTrial = "trial"

// Trial is the run test of a component that was minimised: Spec.Command over the
// artifact alone.
type Trial struct {
	Component string        `json:"component"`
	Spec      release.Spec  `json:"spec"`
	Timeout   time.Duration `json:"timeout"`
	Where     string        `json:"-"` // of the source in the definition
}

// Trials are the run tests that the components of a release have to pass and did not
// yet, each as the component runs before an environment says otherwise.
func Trials(objects *object.Store, def *definition.Definition, artifacts map[string]release.Spec) ([]Trial, error) {
	var out []Trial
	for _, c := range def.Components {
		for _, src := range c.Build {
			if src.Debian == nil || src.Debian.Minimise == nil {
				continue
			}
			t, err := trial(objects, c, src, artifacts[c.Name])
			if err != nil {
				return nil, at(err, src.Where)
			}
			if _, passed := recall(objects, refTrial, t.document().Encoded()); !passed {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

func trial(objects *object.Store, c definition.Component, src definition.Source, made release.Spec) (Trial, error) {
	root, err := seal.Read(objects, made.Tree)
	if err != nil {
		return Trial{}, err
	}
	s := c.Settings
	uid, gid, err := resolveUser(objects, root, s.User)
	if err != nil {
		return Trial{}, err
	}
	spec := release.Spec{
		Artifact: made.Artifact, Tree: made.Tree, Command: src.Debian.Minimise.Test, WorkDir: s.WorkDir, UID: uid, GID: gid, Env: s.Env,
		MilliCPU: s.Resources.MilliCPU, Memory: s.Resources.Memory, PIDs: s.Resources.PIDs,
	}
	return Trial{Component: c.Name, Spec: spec, Timeout: src.Debian.Minimise.Timeout, Where: src.Where}, nil
}

func (t Trial) text() []byte {
	b, err := json.Marshal(t)
	if err != nil {
		panic("build: a trial must marshal: " + err.Error())
	}
	return b
}

func (t Trial) document() digest.Digest { return digest.FromBytes(t.text()) }

// Passed remembers that a trial has passed, so that it is not run again.
func (t Trial) Passed(objects *object.Store) error {
	d, err := objects.PutBytes(t.text())
	if err != nil {
		return err
	}
	return objects.SetRef(refTrial, d.Encoded(), d)
}

// Failed gives an error its place in the definition.
func (t Trial) Failed(err error) error { return at(err, t.Where) }

package local

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// fencesDir holds, in an environment's directory of volumes, a file for each singleton:
// the token of its last holder. No volume has a name that begins with a dot.
const fencesDir = ".fences"

// lastFence is what such a file says.
type lastFence struct {
	Token    int64  `json:"token"`
	Instance string `json:"instance"`
}

// fence refuses an instance whose token is not greater than the last that was given
// out for its component, by whichever server, and remembers its own: a start that comes
// late, or from a server with an old state, must not take the place of its successor.
func (p *Platform) fence(env rollout.Key, in rollout.Instance) error {
	if in.Fence == 0 {
		return nil
	}
	p.fences.Lock()
	defer p.fences.Unlock()
	dir := filepath.Join(p.cfg.VolumeDir, env.App, env.Env, fencesDir)
	file := filepath.Join(dir, in.Component)
	var last lastFence
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &last)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Unavailable, "read the last fencing token of %s: %w", in.Component, err).At(file)
	}
	now := lastFence{in.Fence, in.ID}
	if now == last {
		return nil
	}
	if now.Token <= last.Token {
		return fault.New(fault.Conflict, "%s comes with the fencing token %d, and %s had %d already", now.Instance, now.Token, last.Instance, last.Token).
			At(file).Mend("the next start of it gets a greater one")
	}
	if err = os.MkdirAll(dir, 0o711); err == nil {
		err = shim.WriteDurableJSON(file, now)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "note the fencing token of %s: %w", in.Component, err).At(file)
	}
	return nil
}

package local

import (
	"context"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// secretValues fetches the values of the instance's secrets. They go to its shim by a
// socket, from there to a file in memory and, where that is declared, by a pipe to the
// runtime for a variable: never into a file of the disk.
func (p *Platform) secretValues(ctx context.Context, m meta) (map[string][]byte, error) {
	if len(m.Spec.Secrets) == 0 {
		return nil, nil
	}
	if p.cfg.Secrets == nil {
		return nil, fault.New(fault.Unavailable, "component %s has secrets, and this server keeps none", m.Instance.Component)
	}
	out := map[string][]byte{}
	for _, s := range m.Spec.Secrets {
		value, err := p.cfg.Secrets(ctx, m.Key, s)
		if err != nil {
			return nil, err
		}
		out[s.Name] = value
	}
	return out, nil
}

func secretFiles(s release.Spec, values map[string][]byte) []shim.Secret {
	var out []shim.Secret
	for _, one := range s.Secrets {
		out = append(out, shim.Secret{Name: one.Name, Value: values[one.Name], UID: s.UID, GID: s.GID})
	}
	return out
}

// secretVariables are those that the release asks for by name.
func secretVariables(s release.Spec, values map[string][]byte) []string {
	var out []string
	for _, one := range s.Secrets {
		if one.Env != "" {
			out = append(out, one.Env+"="+string(values[one.Name]))
		}
	}
	return out
}

// secretMounts bind the files of the shim's private directory.
func (p *Platform) secretMounts(s release.Spec) []specs.Mount {
	var out []specs.Mount
	for _, one := range s.Secrets {
		out = append(out, specs.Mount{
			Destination: one.Path, Type: "bind", Source: filepath.Join(p.privateDir(), shim.SecretsDir, one.Name),
			Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"},
		})
	}
	return out
}

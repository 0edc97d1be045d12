package cli

import (
	"context"
	"maps"
	"slices"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// bindSecrets asks the server for the newest version of each secret that the definition
// declares, and notes it there, so that the release can name it. Those of the environment
// target have to be there, and all that are missing are told at once; those of others may
// belong to another server. Without a target, as in a build alone, none have to, and no
// server either.
func (p *program) bindSecrets(ctx context.Context, def *definition.Definition, target string) error {
	var missing fault.List
	for _, env := range def.Environments {
		wanted := secretsOf(env)
		if len(wanted) == 0 {
			continue
		}
		c, err := p.client()
		if err != nil {
			return err
		}
		list, err := c.Secrets(ctx, def.App, env.Name, false)
		if f := fault.Of(err); f != nil && f.Kind == fault.Unavailable && target == "" {
			return nil
		}
		if err != nil {
			return fault.Of(err).Detail("the definition declares secrets, and the server knows their versions")
		}
		newest := map[string]api.Secret{}
		for _, s := range list { // in the order of their versions
			newest[s.Name] = s
		}
		bindNewest(env, newest)
		for _, name := range wanted {
			if v := variableOf(env, name); v != "" && newest[name].NUL {
				missing = append(missing, fault.New(fault.Refused, "version %d of secret %s of %s/%s has a NUL byte, which the variable %s cannot hold", newest[name].Version, name, def.App, env.Name, v).At(p.file).
					Mend("take  env:  from it, so that instances have the file alone, or set another value:  ashlar secret set %s %s", env.Name, name))
			}
			if newest[name].Version == 0 && env.Name == target {
				missing = append(missing, fault.New(fault.NotFound, "secret %s of %s/%s was never set", name, def.App, env.Name).At(p.file).
					Mend("set it, with the value on standard input:  ashlar secret set %s %s", env.Name, name))
			}
		}
	}
	if len(missing) > 0 {
		return missing
	}
	return nil
}

// secretsOf gives the names of the secrets of an environment: of instances, of what
// signs events, and of Prometheus.
func secretsOf(env definition.Environment) []string {
	names := map[string]bool{}
	for _, s := range env.Components {
		for _, one := range s.Secrets {
			names[one.Name] = true
		}
	}
	for _, hook := range env.Events {
		if hook.Secret != "" {
			names[hook.Secret] = true
		}
	}
	if a := env.Rollout.Analysis; a != nil && a.Secret != "" {
		names[a.Secret] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// variableOf gives a variable in which some instance has a secret; empty: none has.
func variableOf(env definition.Environment, secret string) string {
	for _, s := range env.Components {
		for _, one := range s.Secrets {
			if one.Name == secret && one.Env != "" {
				return one.Env
			}
		}
	}
	return ""
}

func bindNewest(env definition.Environment, newest map[string]api.Secret) {
	for _, s := range env.Components {
		for i, one := range s.Secrets {
			s.Secrets[i].Version, s.Secrets[i].Sealed = newest[one.Name].Version, newest[one.Name].Sealed
		}
	}
}

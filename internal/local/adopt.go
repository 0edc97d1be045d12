package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// adopt makes the instances that an earlier server left known again, and takes
// away those that it had not started yet.
func (p *Platform) adopt(ctx context.Context) error {
	if err := p.adoptBlanks(ctx); err != nil {
		return err
	}
	entries, err := os.ReadDir(p.instancesDir())
	if err != nil {
		return fault.New(fault.Unavailable, "read the run directory: %w", err).At(p.instancesDir())
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			if err := os.RemoveAll(filepath.Join(p.instancesDir(), e.Name())); err != nil {
				return err
			}
			continue
		}
		if err := p.adoptOne(ctx, e.Name()); err != nil {
			return fault.New(fault.Internal, "take over instance %s: %w", e.Name(), err).At(p.instanceDir(e.Name()))
		}
	}
	return nil
}

// adoptBlanks takes away the shims that an earlier server had no instance for.
func (p *Platform) adoptBlanks(ctx context.Context) error {
	entries, err := os.ReadDir(p.blanksDir())
	if err != nil {
		return fault.New(fault.Unavailable, "read the run directory: %w", err).At(p.blanksDir())
	}
	for _, e := range entries {
		if err := p.sweepBlank(ctx, e.Name()); err != nil {
			return fault.New(fault.Internal, "take away the shim %s: %w", e.Name(), err).At(p.blankDir(e.Name()))
		}
	}
	return nil
}

func (p *Platform) adoptOne(ctx context.Context, id string) error {
	dir := p.instanceDir(id)
	var m meta
	if err := shim.ReadJSON(filepath.Join(dir, metaFile), &m); err != nil || m.Instance.ID != id {
		m.Instance.ID = id
		p.cfg.Log.Info("instance never begun is taken away", "instance", id)
		return p.sweep(ctx, m) // nothing was begun: instance.json comes first
	}
	i := newInstance(p, m)
	hello := make(chan shim.Message, 1)
	client, err := shim.Dial(dir, func(said shim.Message) {
		i.heard(said)
		select {
		case hello <- said:
		default:
		}
	})
	if err != nil {
		return p.adoptEnded(ctx, i)
	}
	select {
	case said := <-hello:
		if said.State == shim.Creating || said.Started.IsZero() {
			return errors.Join(client.Close(), p.discard(ctx, i)) // its shim gives up without the server that made it
		}
	case <-client.Done():
		return p.adoptEnded(ctx, i)
	case <-ctx.Done():
		return errors.Join(ctx.Err(), client.Close())
	}
	p.know(i)
	i.attend(client)
	i.probe(true, exists(filepath.Join(dir, readyFile)))
	return nil
}

// adoptEnded takes over an instance without a shim.
func (p *Platform) adoptEnded(ctx context.Context, i *instance) error {
	var last shim.Message
	if err := p.awaitShim(ctx, i.dir()); err != nil {
		return err
	}
	if shim.ReadJSON(filepath.Join(i.dir(), shim.StateFile), &last) != nil {
		return p.discard(ctx, i)
	}
	i.said = last
	var exit shim.Exit
	if shim.ReadJSON(filepath.Join(i.dir(), shim.ExitFile), &exit) == nil {
		i.exit = &exit
	} else {
		i.lose("its shim ended without leaving an exit status")
		p.clearLost(i)
	}
	p.know(i)
	return nil
}

// know makes an adopted instance one of the platform's.
func (p *Platform) know(i *instance) {
	p.network.hold(i.meta.Address)
	p.mu.Lock()
	p.instances[i.meta.Instance.ID] = i
	p.mu.Unlock()
	i.birth(nil)
}

func (p *Platform) discard(ctx context.Context, i *instance) error {
	p.cfg.Log.Info("instance never started is taken away", "instance", i.meta.Instance.ID)
	return p.sweep(ctx, i.meta)
}

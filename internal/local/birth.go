package local

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// create makes the instance, unless it was prepared, and starts its program. After an error, purge takes
// away whatever was made.
func (p *Platform) create(ctx context.Context, i *instance, pre *prepared) error {
	if pre == nil || !p.use(ctx, i, pre) {
		if err := p.make(ctx, i); err != nil {
			return err
		}
	}
	if _, err := i.client().Order(ctx, shim.OpStart); err != nil {
		return p.explain(i, err)
	}
	i.probe(false, false)
	return nil
}

// make gets a blank and makes the instance of it, short of starting its program.
func (p *Platform) make(ctx context.Context, i *instance) error {
	b, err := p.blank(ctx)
	if err != nil {
		return err
	}
	i.take(b)
	what, err := p.shimConfig(ctx, i.meta)
	if err == nil {
		err = p.lay(i.meta)
	}
	if err != nil {
		p.discardBlank(b)
		return err
	}
	b.tell(i.heard)
	i.attend(b.client)
	_, err = b.client.Create(ctx, what)
	<-b.attached
	if err != nil {
		return p.explain(i, err)
	}
	return b.linkErr
}

// take makes the blank the instance's.
func (i *instance) take(b *blank) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.meta.Unit, i.meta.Address, i.meta.Link = b.unit, b.addr, b.link
}

// lay makes the blank's directory the instance's, with instance.json in it.
func (p *Platform) lay(m meta) error {
	from, dir := p.blankDir(m.Unit), p.instanceDir(m.Instance.ID)
	err := shim.WriteJSON(filepath.Join(from, metaFile), m)
	if err == nil {
		err = os.Rename(from, dir)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "make the directory of instance %s: %w", m.Instance.ID, err).At(dir)
	}
	return nil
}

func (p *Platform) shimConfig(ctx context.Context, m meta) (shim.Config, error) {
	signal, err := stopSignal(m.Spec)
	if err != nil {
		return shim.Config{}, err
	}
	seals := []digest.Digest{m.Spec.Settings, m.Spec.Tree} // top first
	if m.Spec.Settings == "" {
		seals = seals[1:]
	}
	values, err := p.secretValues(ctx, m)
	if err != nil {
		return shim.Config{}, err
	}
	volumes, err := p.volumes(ctx, m)
	if err != nil {
		return shim.Config{}, err
	}
	spec, err := p.runtimeSpec(m, values)
	if err != nil {
		return shim.Config{}, err
	}
	text, err := json.Marshal(spec)
	return shim.Config{
		Dir: p.instanceDir(m.Instance.ID), Spec: text, Hosts: p.hosts(m), Objects: p.cfg.Objects, Seals: seals,
		Secrets: secretFiles(m.Spec, values), Volumes: volumes,
		Log: p.logFile(m.Key, m.Instance.ID), LogSize: p.cfg.LogSize, LogFiles: p.cfg.LogFiles,
		Signal: signal, Grace: time.Duration(m.Spec.StopGraceMS) * time.Millisecond,
	}, err
}

// touch makes an empty file.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

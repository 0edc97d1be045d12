package local

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/shim"
)

// prepared is an instance that was made short of starting its program, before it was
// ordered. List does not know it.
type prepared struct {
	*instance
	peers  map[string]netip.Addr // that it can call by name
	cancel context.CancelFunc    // of making it
	made   chan struct{}         // closed when it is made, or err says why not
	err    error
}

// Prepare says that this very instance will probably be asked for soon. What can be
// done short of starting its program is done now. It returns at once and depends on
// nothing: Start makes what is not there, and makes anew what is not as it says.
// What is not used within a while goes again. An instance with volumes or secrets is
// not prepared: only who is ordered gets them.
func (p *Platform) Prepare(env rollout.Key, in rollout.Instance, spec release.Spec) {
	if len(spec.Volumes) > 0 || len(spec.Secrets) > 0 {
		return
	}
	if p.check(env, in, spec) != nil || p.find(in.ID) != nil {
		return
	}
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	if p.ahead.closed || p.ahead.prepared[in.ID] != nil || len(p.ahead.prepared) >= mostAhead {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, prepareLimit)
	pre := &prepared{instance: newInstance(p, meta{Key: env, Instance: in, Spec: spec, CreatedAt: p.cfg.Now()}), peers: p.peers(env), cancel: cancel, made: make(chan struct{})}
	p.ahead.prepared[in.ID] = pre
	p.watches.Go(func() {
		pre.err = p.make(ctx, pre.instance)
		close(pre.made)
	})
	p.keepAhead()
}

func (a *ahead) takePrepared(id string) *prepared {
	a.mu.Lock()
	defer a.mu.Unlock()
	pre := a.prepared[id]
	delete(a.prepared, id)
	return pre
}

// is says whether it was prepared as the instance that m describes. Whom it can call
// may be known only since: a release brings its services when its rollout begins.
func (pre *prepared) is(m meta) bool {
	return pre.meta.Key == m.Key && pre.meta.Instance == m.Instance && pre.meta.Spec.Digest() == m.Spec.Digest() &&
		maps.Equal(pre.peers, pre.platform.peers(m.Key))
}

// use waits until what was prepared is made, and says whether i can be started from
// there. If not, nothing of it is left.
func (p *Platform) use(ctx context.Context, i *instance, pre *prepared) bool {
	if i == pre.instance {
		select {
		case <-pre.made:
			if pre.err == nil && i.waits() {
				return true
			}
		case <-ctx.Done():
		}
	}
	p.unprepare(pre)
	i.renew()
	return false
}

// waits says whether its program can be started.
func (i *instance) waits() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.said.State == shim.Created && !ended(i.shim)
}

// renew makes it an instance of which nothing is there.
func (i *instance) renew() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.meta.Unit, i.meta.Address, i.meta.Link = "", netip.Addr{}, ""
	i.shim, i.said, i.exit, i.lost = nil, shim.Message{State: shim.Creating}, nil, ""
}

// unprepare takes away what was prepared.
func (p *Platform) unprepare(pre *prepared) {
	pre.cancel()
	<-pre.made
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), removeLimit)
	defer cancel()
	err := p.purge(ctx, pre.instance)
	if err == nil {
		p.network.release(pre.meta.Address)
		if err = os.Remove(p.logFile(pre.meta.Key, pre.meta.Instance.ID)); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		p.cfg.Log.Warn("cannot take away what was prepared", "instance", pre.meta.Instance.ID, "err", err)
	}
}

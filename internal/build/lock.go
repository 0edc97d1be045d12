package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// PrepareLock reads ashlar.lock, resolves what it lacks for the definition (or
// everything, with b.Update), writes it back if that changed it, and leaves it in
// b.Lock. Entries of sources that are gone are dropped. With b.Locked it changes
// nothing, and fails where it would have to. Only what is resolved needs the network.
func PrepareLock(ctx context.Context, b *Builder, def *definition.Definition) (changed bool, err error) {
	if b.Definition == "" {
		b.Definition = def.Dir
	}
	old, err := b.readLock()
	if err != nil {
		return false, err
	}
	next := NewLockFile()
	archs := b.archs(def)
	for _, c := range def.Components {
		entry := ComponentLock{}
		for _, src := range c.Build {
			if err := b.lockSource(ctx, old, &entry, c.Name, src, archs); err != nil {
				return false, at(err, src.Where)
			}
		}
		if len(entry.Go)+len(entry.Debian)+len(entry.Images)+len(entry.Dockerfiles) > 0 {
			next.Components[c.Name] = entry
		}
	}
	if err := next.setSums(); err != nil {
		return false, err
	}
	b.Lock = next
	if b.Locked || len(old.Components) > 0 && reflect.DeepEqual(old, next) {
		return false, nil
	}
	return next.Write(b.Definition)
}

// lockSource adds what the lock has of one source, for every architecture.
func (b *Builder) lockSource(ctx context.Context, old *LockFile, entry *ComponentLock, component string, src definition.Source, archs []string) error {
	if src.Go != nil { // one toolchain compiles for all
		return b.lockGo(ctx, old, entry, component, src.Go)
	}
	for _, arch := range archs {
		one, err := b, error(nil)
		if arch != b.arch() {
			one = b.forArch(arch)
		}
		switch {
		case src.Debian != nil:
			err = one.lockDebian(ctx, old, entry, component, src.Debian)
		case src.Image != nil:
			err = one.lockImage(ctx, old, entry, component, src.Image)
		case src.Docker != nil:
			err = one.lockDockerfile(ctx, old, entry, component, src.Docker)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) lockGo(ctx context.Context, old *LockFile, entry *ComponentLock, component string, src *definition.GoSource) error {
	version := old.toolchain(component, src)
	if version == "" || b.Update {
		if b.Locked {
			return notLocked("the toolchain of " + src.Package)
		}
		dir, err := filepath.Abs(b.Definition)
		if err != nil {
			return err
		}
		tool, err := b.goCommand(ctx, dir, "")
		if err != nil {
			return err
		}
		version = tool.version
		b.tell(Event{Component: component, Step: StepLock, Done: true, Text: src.Package + ": " + version})
	}
	entry.Go = append(entry.Go, GoLock{Package: src.Package, Toolchain: version})
	return nil
}

func (b *Builder) lockDebian(ctx context.Context, old *LockFile, entry *ComponentLock, component string, src *definition.DebianSource) error {
	arch, err := debian.Arch(b.arch())
	if err != nil {
		return err
	}
	lock, ok := old.debian(component, src, arch)
	if !ok || b.Update {
		text := strings.Join(src.Packages, " ")
		if before := old.others(component); !ok && before != "" {
			text += " (ashlar.lock has " + before + ")"
		}
		if b.Locked {
			return notLocked("the packages " + text)
		}
		if lock, err = b.resolve(ctx, component, src, arch, text); err != nil {
			return err
		}
	}
	entry.Debian = append(entry.Debian, DebianLock{Suite: src.Suite, Archive: src.Archive, Areas: src.Components, Lock: lock})
	return nil
}

func notLocked(what string) error {
	return fault.New(fault.Conflict, "ashlar.lock has no entry for %s, and may not be changed now", what).
		Mend("run  ashlar build  without --locked, and commit ashlar.lock")
}

func (b *Builder) resolve(ctx context.Context, component string, src *definition.DebianSource, arch, text string) (debian.Lock, error) {
	begun := time.Now()
	b.tell(Event{Component: component, Step: StepLock, Text: "resolving " + text})
	source := b.debianRequest(component, src, arch)
	var err error
	if source.Archives, err = b.archives(src); err != nil {
		return debian.Lock{}, err
	}
	lock, err := debian.Resolve(ctx, b.Objects, source, b.fetcher())
	if err != nil {
		return debian.Lock{}, err
	}
	b.tell(Event{Component: component, Step: StepLock, Done: true, Count: len(lock.Packages), Took: time.Since(begun),
		Text: fmt.Sprintf("%s: %d packages", strings.Join(src.Packages, " "), len(lock.Packages))})
	return lock, nil
}

// archives are the ones that the source names, or the host's.
func (b *Builder) archives(src *definition.DebianSource) ([]debian.Archive, error) {
	read := b.ReadFile
	if read == nil {
		read = os.ReadFile
	}
	if src.Archive == "" {
		apt := b.Apt
		if apt == nil {
			apt = os.DirFS("/etc/apt")
		}
		archives, err := debian.HostArchives(apt, read, src.Suite)
		for i := range archives {
			archives[i].Areas = src.Components
		}
		return archives, err
	}
	keys, err := read(debian.DefaultKeyring)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the archive's keys cannot be read: %w", err).At(debian.DefaultKeyring).
			Mend("apt-get install debian-archive-keyring")
	}
	return []debian.Archive{{URL: strings.TrimRight(src.Archive, "/"), Suite: src.Suite, Areas: src.Components, Keyring: keys}}, nil
}

func (b *Builder) fetcher() debian.Fetcher {
	if b.Fetcher != nil {
		return b.Fetcher
	}
	return debian.NewHTTP()
}

// debianRequest is what package debian is asked for.
func (b *Builder) debianRequest(component string, src *definition.DebianSource, arch string) debian.Source {
	return debian.Source{
		Packages: src.Packages, Exclude: src.Exclude, Waive: src.Waive, Arch: arch, Now: b.now(),
		Progress: func(p debian.Progress) { b.tell(debianEvent(component, p)) },
	}
}

func debianEvent(component string, p debian.Progress) Event {
	step := map[string]Step{"index": StepLock, "fetch": StepFetch, "unpack": StepUnpack}[p.Step]
	return Event{Component: component, Step: step, Text: p.What, Count: p.Done, Total: p.Total, Bytes: p.Bytes}
}

// debianSource makes the tree of a component's debian source.
func (c *component) debianSource(ctx context.Context, src *definition.DebianSource) (made, error) {
	arch, err := debian.Arch(c.arch())
	if err != nil {
		return made{}, err
	}
	lock, ok := c.Lock.debian(c.Name, src, arch)
	if !ok {
		return made{}, notLocked("the packages " + strings.Join(src.Packages, " "))
	}
	source := c.debianRequest(c.Name, src, arch)
	var fetched int64
	fetch := c.step(StepFetch)
	if err := debian.Fetch(ctx, c.Objects, lock, c.fetcher(), func(p debian.Progress) {
		fetched += p.Bytes
		source.Progress(p)
	}); err != nil {
		return made{}, err
	}
	fetch.done(Event{Count: len(lock.Packages), Bytes: fetched, Reused: fetched == 0})
	unpack := c.step(StepUnpack)
	tree, err := debian.Tree(ctx, c.Objects, lock, source)
	if err != nil {
		return made{}, err
	}
	text := fmt.Sprintf("debian %s (%s)", strings.Join(lock.Requested, " "), src.Suite)
	unpack.done(Event{Text: text, Count: len(lock.Packages)})
	if src.Minimise != nil {
		return c.minimise(tree, src, text)
	}
	return made{entries: tree.Tree.Entries, comment: text, chapter: tree.Chapter}, nil
}

package nft

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/ashlar-infra/ashlar/internal/durable"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Pool is where every server takes a block of its own from: the services' addresses are
// its lower half, and the upper half is what instances see as the source of connections that
// come to them through a service (ruleset.go). Instances need a route to all of it.
var Pool = netip.MustParsePrefix("10.214.0.0/15")

// blockBits makes room for 16 servers of 4,094 services each.
const blockBits = 19

// addresses is what has to outlive the kernel: the content of services.json.
type addresses struct {
	file string

	Block    netip.Prefix          `json:"block"`            // zero: not chosen yet
	Services map[string]netip.Addr `json:"services"`         // app/env/component to its address, for ever
	Routed   []string              `json:"routed,omitempty"` // app/env of the environments that have something in the kernel, sorted
}

func openAddresses(dir string) (*addresses, error) {
	a := &addresses{file: filepath.Join(dir, "services.json"), Services: map[string]netip.Addr{}}
	data, err := os.ReadFile(a.file)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = a.parse(data)
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read the addresses of the TCP services: %w", err).At(a.file).
			Mend("restore the file from a backup; without it instances that run go on with addresses that nobody serves")
	}
	return a, nil
}

func (a *addresses) parse(data []byte) error {
	if err := json.Unmarshal(data, a); err != nil {
		return err
	}
	ok := Pool.Overlaps(a.Block) && a.Block.Bits() == blockBits && a.Block == a.Block.Masked()
	if !ok && (a.Block.IsValid() || len(a.Services)+len(a.Routed) > 0) || !slices.IsSorted(a.Routed) {
		return errors.New("its content is damaged")
	}
	seen := map[netip.Addr]bool{}
	for _, at := range a.Services {
		if !a.lower().Contains(at) || seen[at] {
			return errors.New("an address in it is damaged")
		}
		seen[at] = true
	}
	if a.Services == nil {
		a.Services = map[string]netip.Addr{}
	}
	return nil
}

// lower is the half of the block that has the services' addresses.
func (a *addresses) lower() netip.Prefix { return netip.PrefixFrom(a.Block.Addr(), blockBits+1) }

// upper is the half of the block that stands for clients.
func (a *addresses) upper() netip.Prefix {
	return netip.PrefixFrom(addressAt(a.Block, 1<<(32-blockBits-1)), blockBits+1)
}

// take gives the services' addresses, new ones where need be, and writes them down.
func (a *addresses) take(key rollout.Key, names []string) (map[string]netip.Addr, error) {
	out := make(map[string]netip.Addr, len(names))
	used := make(map[netip.Addr]bool, len(a.Services))
	for _, at := range a.Services {
		used[at] = true
	}
	var fresh []string
	next := a.lower().Addr()
	for _, name := range names {
		full := key.String() + "/" + name
		at, known := a.Services[full]
		if !known {
			for next = next.Next(); used[next]; next = next.Next() {
			}
			if !a.lower().Contains(next.Next()) {
				a.forget(fresh)
				return nil, fault.New(fault.Unavailable, "all addresses of %s are in use by %d services", a.lower(), len(a.Services)).At(a.file)
			}
			at = next
			a.Services[full], used[at] = at, true
			fresh = append(fresh, full)
		}
		out[name] = at
	}
	if len(fresh) == 0 {
		return out, nil
	}
	if err := a.save(); err != nil {
		a.forget(fresh)
		return nil, err
	}
	return out, nil
}

func (a *addresses) forget(names []string) {
	for _, name := range names {
		delete(a.Services, name)
	}
}

func (a *addresses) routed(key rollout.Key) bool {
	_, found := slices.BinarySearch(a.Routed, key.String())
	return found
}

// route writes down whether an environment has something in the kernel.
func (a *addresses) route(key rollout.Key, on bool) error {
	before := a.Routed
	i, found := slices.BinarySearch(before, key.String())
	switch {
	case on == found:
		return nil
	case on:
		a.Routed = slices.Insert(slices.Clone(before), i, key.String())
	default:
		a.Routed = slices.Delete(slices.Clone(before), i, i+1)
	}
	if err := a.save(); err != nil {
		a.Routed = before
		return err
	}
	return nil
}

// save replaces the file in one durable step: temp, fsync, rename, fsync directory.
func (a *addresses) save() error {
	data, err := json.MarshalIndent(a, "", "  ")
	if err == nil {
		err = durable.Replace(a.file, append(data, '\n'), 0o644)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "write down the addresses of the TCP services: %w", err).At(a.file).
			Mend("make room or mend the directory; nothing was changed")
	}
	return nil
}

// freeBlock is the first block of the pool that nothing of used overlaps; zero: none.
func freeBlock(used []netip.Prefix) netip.Prefix {
	for at := Pool.Addr(); Pool.Contains(at); at = addressAt(netip.PrefixFrom(at, blockBits), 1<<(32-blockBits)) {
		block := netip.PrefixFrom(at, blockBits)
		if !overlap(block, used).IsValid() {
			return block
		}
	}
	return netip.Prefix{}
}

func overlap(p netip.Prefix, used []netip.Prefix) netip.Prefix {
	for _, u := range used {
		if u.Overlaps(p) {
			return u
		}
	}
	return netip.Prefix{}
}

// addressAt is the n-th address counted from the first of p.
func addressAt(p netip.Prefix, n uint32) netip.Addr {
	b := p.Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// clear writes down that nothing is in the kernel.
func (a *addresses) clear() error {
	if len(a.Routed) == 0 {
		return nil
	}
	a.Routed = nil
	return a.save()
}

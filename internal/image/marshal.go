package image

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// treeMagic begins every encoded tree and names the version of the format.
const treeMagic = "ashlar tree 1\n"

// maxTreePaths bounds the memory that decoding may take: paths are encoded by
// what differs from the one before, so that a short input could stand for long ones.
const maxTreePaths = 256 << 20 // bytes of all paths together

var typeCodes = []Type{Dir, File, Symlink}

// Marshal encodes t. Equal trees have equal encodings, by any version of this
// program: no compressor is involved. 2,500 files take about 120 KB, most of it
// the digests.
//
// After treeMagic comes each entry, its numbers as varints and its texts preceded
// by their length:
//
//	bytes shared with the path before, rest of the path
//	type and number of extended attributes (type + 3 * number)
//	mode, user, group, difference to the modification time before
//	file: size and, unless it is 0, the 32 bytes of the digest; link: target
//	extended attributes by name: name, value
func (t Tree) Marshal() []byte {
	b := []byte(treeMagic)
	var before Entry
	for _, e := range t.Entries {
		shared := sharedPrefix(before.Path, e.Path)
		b = binary.AppendUvarint(b, uint64(shared))
		b = appendText(b, e.Path[shared:])
		b = binary.AppendUvarint(b, uint64(slices.Index(typeCodes, e.Type)+len(typeCodes)*len(e.Xattrs)))
		b = binary.AppendUvarint(b, uint64(e.Mode))
		b = binary.AppendUvarint(b, uint64(e.UID))
		b = binary.AppendUvarint(b, uint64(e.GID))
		b = binary.AppendVarint(b, e.MTime-before.MTime)
		switch e.Type {
		case File:
			b = binary.AppendUvarint(b, uint64(e.Size))
			if e.Size > 0 {
				b, _ = hex.AppendDecode(b, []byte(e.Digest.Encoded())) // a valid tree has no other digests
			}
		case Symlink:
			b = appendText(b, e.Link)
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			b = appendText(appendText(b, name), e.Xattrs[name])
		}
		before = e
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func sharedPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// UnmarshalTree decodes what [Tree.Marshal] wrote. It refuses everything else: a
// tree that is not valid, and bytes that are not the one encoding of their tree.
func UnmarshalTree(b []byte) (Tree, error) {
	rest, ok := bytes.CutPrefix(b, []byte(treeMagic))
	if !ok {
		return Tree{}, fault.New(fault.Refused, "the bytes are not an encoded tree of a version this program knows")
	}
	d := treeDecoder{b: rest}
	var t Tree
	var before Entry
	for total := 0; len(d.b) > 0 && !d.bad; {
		e := d.entry(before)
		if total += len(e.Path); total > maxTreePaths || len(e.Path) > maxPath {
			d.bad = true
		}
		t.Entries = append(t.Entries, e)
		before = e
	}
	if d.bad {
		return Tree{}, fault.New(fault.Refused, "the encoded tree is damaged after %d entries", len(t.Entries))
	}
	if err := t.Validate(); err != nil {
		return Tree{}, fault.New(fault.Refused, "the encoded tree is not valid: %w", err)
	}
	if !bytes.Equal(t.Marshal(), b) {
		return Tree{}, fault.New(fault.Refused, "the encoded tree is not in its canonical form")
	}
	return t, nil
}

// treeDecoder consumes b. Once it met something impossible it is bad and yields
// zero values.
type treeDecoder struct {
	b   []byte
	bad bool
}

func (d *treeDecoder) entry(before Entry) Entry {
	var e Entry
	shared := d.number()
	if shared > uint64(len(before.Path)) {
		d.bad = true
		return e
	}
	e.Path = before.Path[:shared] + d.text()
	code := d.number()
	e.Type = typeCodes[code%uint64(len(typeCodes))]
	e.Mode = uint32(d.number())
	e.UID, e.GID = int(d.number()), int(d.number())
	e.MTime = before.MTime + d.difference()
	switch e.Type {
	case File:
		e.Size, e.Digest = int64(d.number()), emptyDigest
		if e.Size != 0 {
			var sum [32]byte
			copy(sum[:], d.take(uint64(len(sum))))
			e.Digest = FromSum(sum)
		}
	case Symlink:
		e.Link = d.text()
	}
	for range code / uint64(len(typeCodes)) {
		if d.bad {
			break
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		name := d.text()
		e.Xattrs[name] = d.text()
	}
	return e
}

func (d *treeDecoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *treeDecoder) text() string { return string(d.take(d.number())) }

func (d *treeDecoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.take(uint64(n))
	return v
}

func (d *treeDecoder) difference() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.take(uint64(n))
	return v
}

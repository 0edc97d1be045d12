package build

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
)

// statMagic begins the file of a stat cache and names the version of its format.
const statMagic = "ashlar stat cache 2\n"

var errStatCache = errors.New("not a stat cache, or a damaged one")

// encodeStatCache gives the file of a cache: statMagic, the files by path, and the
// CRC-32 of all of it. Of each file, numbers are varints of the difference to the
// file before:
//
//	bytes of the path shared with the one before, length of the rest, the rest
//	device, inode, size, mtime, ctime
//	SHA-256, 32 bytes
func encodeStatCache(files []cachedFile) []byte {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b cachedFile) int { return strings.Compare(a.path, b.path) })
	b := make([]byte, 0, len(statMagic)+80*len(files)+4)
	b = append(b, statMagic...)
	var before cachedFile
	for _, f := range files {
		shared := 0
		for shared < min(len(f.path), len(before.path)) && f.path[shared] == before.path[shared] {
			shared++
		}
		b = binary.AppendUvarint(b, uint64(shared))
		b = binary.AppendUvarint(b, uint64(len(f.path)-shared))
		b = append(b, f.path[shared:]...)
		b = binary.AppendVarint(b, int64(f.dev-before.dev))
		b = binary.AppendVarint(b, int64(f.ino-before.ino))
		b = binary.AppendVarint(b, f.size-before.size)
		b = binary.AppendVarint(b, f.mtime-before.mtime)
		b = binary.AppendVarint(b, f.ctime-before.ctime)
		b = append(b, f.sum[:]...)
		before = f
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func decodeStatCache(b []byte) ([]cachedFile, error) {
	if len(b) < len(statMagic)+4 || !bytes.HasPrefix(b, []byte(statMagic)) {
		return nil, errStatCache
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(sum) {
		return nil, errStatCache
	}
	d := statDecoder{b: body[len(statMagic):]}
	files := make([]cachedFile, 0, len(d.b)/64)
	var before cachedFile
	for len(d.b) > 0 {
		f := d.file(&before)
		if d.bad {
			return nil, errStatCache
		}
		files = append(files, f)
		before = f
	}
	return files, nil
}

// statDecoder consumes b. Once it met something impossible it is bad.
type statDecoder struct {
	b   []byte
	bad bool
}

func (d *statDecoder) file(before *cachedFile) cachedFile {
	shared, rest := d.number(), d.number()
	if shared > uint64(len(before.path)) {
		d.bad = true
		return cachedFile{}
	}
	f := cachedFile{path: before.path[:shared] + string(d.take(rest))}
	f.dev = before.dev + uint64(d.difference())
	f.ino = before.ino + uint64(d.difference())
	f.size = before.size + d.difference()
	f.mtime = before.mtime + d.difference()
	f.ctime = before.ctime + d.difference()
	copy(f.sum[:], d.take(uint64(len(f.sum))))
	return f
}

func (d *statDecoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *statDecoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *statDecoder) difference() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

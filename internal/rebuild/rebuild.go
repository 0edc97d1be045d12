// Package rebuild carries all inputs of a release's builds to another machine, in one
// tar: the definition's directory, packages, images and modules, and which artifacts they
// have to give. Who builds them anew there, without a network, and gets the same digests
// knows that nobody put anything else into the artifacts.
//
//	inputs.json        [Inputs]
//	source/…           the definition's directory, and the sources outside it that programs are made of
//	objects/HEX        what ashlar.lock names by digest
//	modules/…          Go modules, as a proxy serves them (https://go.dev/ref/mod#goproxy-protocol)
//
// Start at [Write] and [Unpack]; TestUnpackRefuses has what a hostile tar may try. The
// build itself is the ordinary one, see cmd/ashlar.
package rebuild

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// Schema is the value of Inputs.Schema.
const Schema = "ashlar.dev/inputs/v1"

// The parts of a tar.
const (
	inputsName = "inputs.json"
	Source     = "source"
	Objects    = "objects"
	Modules    = "modules"
)

// What is unpacked at most.
const (
	maxEntries = 500_000
	maxBytes   = 32 << 30
	maxInputs  = 1 << 20
)

// Inputs says what the tar is about.
type Inputs struct {
	Schema     string                   `json:"schema"`
	App        string                   `json:"app"`
	Release    digest.Digest            `json:"release"`
	Definition string                   `json:"definition"` // ashlar.yaml, relative to source
	Artifacts  map[string]digest.Digest `json:"artifacts"`  // by component: what has to come out
}

// File is one file that goes into the tar.
type File struct {
	Name string // in the tar
	Path string // on disk
}

// Write writes the tar: the same bytes for the same files.
func Write(w io.Writer, in Inputs, files []File) error {
	in.Schema = Schema
	text, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Name: inputsName, Mode: 0o644, Size: int64(len(text)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	if _, err := tw.Write(text); err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range slices.CompactFunc(files, func(a, b File) bool { return a.Name == b.Name }) {
		if err := add(tw, f); err != nil {
			return err
		}
	}
	return tw.Close()
}

func add(tw *tar.Writer, f File) (err error) {
	info, err := os.Lstat(f.Path)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: f.Name, Mode: int64(info.Mode().Perm()), Size: info.Size(), Format: tar.FormatPAX}
	if info.Mode()&fs.ModeSymlink != 0 {
		h.Typeflag, h.Size = tar.TypeSymlink, 0
		if h.Linkname, err = os.Readlink(f.Path); err != nil {
			return err
		}
		return tw.WriteHeader(h)
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, "it is neither a file nor a symbolic link").At(f.Path).Mend("take it out of the definition's directory")
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	r, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.CopyN(tw, r, info.Size())
	return err
}

// Unpack reads a tar into an empty directory. Nothing gets out of it.
func Unpack(r io.Reader, dir string) (in Inputs, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return in, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	tr := tar.NewReader(r)
	left := int64(maxBytes)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return in, refuse("it cannot be read: %v", err)
		}
		if left -= max(h.Size, 0); n >= maxEntries || left < 0 {
			return in, refuse("it has more than %d entries, or more than %d bytes", maxEntries, int64(maxBytes))
		}
		if (n == 0) != (h.Name == inputsName) {
			return in, refuse("it does not begin with %s", inputsName)
		}
		if n == 0 {
			if in, err = parseInputs(tr); err != nil {
				return in, err
			}
			continue
		}
		if err := unpack(root, h, tr); err != nil {
			return in, err
		}
	}
	if in.Schema == "" {
		return in, refuse("it is empty")
	}
	return in, nil
}

func parseInputs(r io.Reader) (Inputs, error) {
	var in Inputs
	text, err := io.ReadAll(io.LimitReader(r, maxInputs+1))
	if err != nil {
		return in, refuse("it cannot be read: %v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil || len(text) > maxInputs {
		return in, refuse("%s cannot be read: %v", inputsName, err)
	}
	if in.Schema != Schema || in.App == "" || !fs.ValidPath(in.Definition) || len(in.Artifacts) == 0 {
		return in, refuse("%s says nothing of a release's inputs", inputsName)
	}
	for name, d := range in.Artifacts {
		if name == "" || d.Validate() != nil {
			return in, refuse("%s names an artifact that is none: %q", inputsName, d)
		}
	}
	return in, nil
}

func unpack(root *os.Root, h *tar.Header, r io.Reader) error {
	first, _, below := strings.Cut(h.Name, "/")
	if !fs.ValidPath(h.Name) || !below || !slices.Contains([]string{Source, Objects, Modules}, first) {
		return refuse("the name %q is not one that it may have", h.Name)
	}
	if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
		return refuse("%s cannot be made: %v", path.Dir(h.Name), err)
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		to := path.Join(path.Dir(h.Name), h.Linkname)
		if first != Source || path.IsAbs(h.Linkname) || !strings.HasPrefix(to, Source+"/") {
			return refuse("the link %s leads out of the sources", h.Name)
		}
		if err := root.Symlink(h.Linkname, h.Name); err != nil {
			return refuse("%s cannot be made: %v", h.Name, err)
		}
		return nil
	case tar.TypeReg:
	default:
		return refuse("%s is neither a file nor a symbolic link", h.Name)
	}
	f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)&0o755|0o600)
	if err != nil {
		return refuse("%s cannot be made: %v", h.Name, err)
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return fault.New(fault.Unavailable, "the inputs cannot be unpacked: %w", err)
	}
	return nil
}

func refuse(format string, args ...any) error {
	return fault.New(fault.Refused, "the tar of inputs is refused: "+format, args...)
}

// Tree lists the files below a directory, but for Git's and the state directory, as they
// are called in a tar below prefix.
func Tree(dir, prefix, state string) ([]File, error) {
	var out []File
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if e.Name() == ".git" || p == state {
				return fs.SkipDir
			}
			return nil
		}
		if len(out) >= maxEntries {
			return fault.New(fault.Invalid, "the directory has more than %d files", maxEntries).At(dir).Mend("put the definition into a directory of its own")
		}
		rel, err := filepath.Rel(dir, p)
		if err == nil {
			out = append(out, File{path.Join(prefix, filepath.ToSlash(rel)), p})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the sources: %w", err)
	}
	return out, nil
}

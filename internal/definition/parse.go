package definition

import (
	"path"
)

// Files gives the content of the config files that a definition names. Names are
// slash-separated and relative to the directory of the definition, never absolute
// and never with "..". The error for a file that does not exist satisfies
// errors.Is(err, fs.ErrNotExist). An fs.ReadFileFS, such as os.DirFS gives, is one.
type Files interface {
	ReadFile(name string) ([]byte, error)
}

// Parse reads a definition. name is how messages call the file, and its
// directory becomes Definition.Dir. Every mistake is found in one go: the error is a
// fault.List, in the order of the file, of kind Invalid throughout. YAML that cannot
// be read at all gives the first mistake alone.
func Parse(name string, src []byte, files Files) (*Definition, error) {
	text, f := readable(name, src)
	if len(f.found) > 0 {
		return nil, f.list()
	}
	root := parse(text, f)
	if root == nil {
		return nil, f.list()
	}
	if len(root.pairs) > 0 {
		root.at = root.pairs[0].at
	}
	s := loadSchemas()
	validate(root, s, f)
	c := &converter{f: f, s: s, files: files, loaded: map[string]loaded{}}
	def := c.definition(root)
	def.Dir = path.Dir(name)
	if err := f.list(); err != nil {
		return nil, err
	}
	return def, nil
}

package definition

import (
	"bytes"
	_ "embed"
)

//go:embed template.yaml
var templateText []byte

// Template gives the commented ashlar.yaml that a new application starts from. It
// needs no other file. app must be a DNS label.
func Template(app string) []byte {
	return bytes.ReplaceAll(templateText, []byte("APP"), []byte(app))
}

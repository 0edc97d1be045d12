package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// What is sealed: 4,000 files of 12.5 KB.
const (
	sealFiles = 4000
	sealBytes = 12_500
)

const sealDefinition = `app: sealing
components:
  files:
    build:
      - files: {from: "content/**", to: /srv/, mode: "0755"}
    run:
      command: [/srv/section-00/page-0000.html]
environments:
  production: {}
`

// sealing measures the whole command "ashlar build" over a source tree: into an
// empty state directory, and again with nothing changed. The source's bytes are
// in memory, as those of a fresh checkout are.
func sealing(ctx context.Context, o options, dir string, r *report) error {
	src := filepath.Join(dir, "sealing")
	if err := sealSource(src); err != nil {
		return err
	}
	// A file that was written a moment ago is not believed to be unchanged.
	if err := pause(ctx, rest); err != nil {
		return err
	}
	for i := range o.n {
		// Nothing is removed between rounds: ext4 searches long for an inode where
		// thousands were freed within the last minutes.
		state := filepath.Join(dir, fmt.Sprintf("sealing-state-%d", i))
		build := func() (command, error) { return program(ctx, src, nil, o.ashlar, "build", "--dir", state) }
		if err := pause(ctx, rest); err != nil {
			return err
		}
		cold, err := build()
		if err != nil {
			return err
		}
		unchanged, err := build()
		if err != nil {
			return err
		}
		empty, err := program(ctx, src, nil, o.ashlar, "schema")
		if err != nil {
			return err
		}
		r.add(sealCold, ms(cold.took))
		r.add(sealUnchanged, ms(unchanged.took))
		r.add(processStart, ms(empty.took))
	}
	return nil
}

// sealSource writes the files, each with other bytes.
func sealSource(src string) error {
	random := rand.NewChaCha8([32]byte{1})
	content := make([]byte, sealBytes)
	for i := range sealFiles {
		if _, err := random.Read(content); err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(content, uint64(i))
		path := filepath.Join(src, fmt.Sprintf("content/section-%02d/page-%04d.html", i/100, i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(src, "ashlar.yaml"), []byte(sealDefinition), 0o644)
}

package shim

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// SecretsDir is where the secrets are within a shim's private directory, each under
// the name that Secret has.
const SecretsDir = "secrets"

// Secret is a value for the private directory, which is in memory and which the
// program's mounts alone lead to.
type Secret struct {
	Name  string `json:"name"` // a plain file name
	Value []byte `json:"value"`
	UID   int    `json:"uid"`
	GID   int    `json:"gid"`
}

// Volume is a lock that is held as long as the instance lives: the kernel lets go of
// it when the shim ends, however that happens, and kills the program with the shim.
type Volume struct {
	Name   string `json:"name"`
	Lock   string `json:"lock"`             // the file that is locked
	Shared bool   `json:"shared,omitempty"` // others may hold it too
}

// keepSecrets writes the values into the private directory.
func (s *shim) keepSecrets() error {
	dir := filepath.Join(s.runc.Private, SecretsDir)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	for _, secret := range s.cfg.Secrets {
		path := filepath.Join(dir, secret.Name)
		err := os.WriteFile(path, secret.Value, 0o400)
		if err = errors.Join(err, os.Chown(path, secret.UID, secret.GID)); err != nil {
			return err
		}
		clear(secret.Value)
	}
	s.cfg.Secrets = nil
	return nil
}

// holdVolumes locks the volumes for as long as this process lives.
func (s *shim) holdVolumes() error {
	for _, v := range s.cfg.Volumes {
		f, err := os.OpenFile(v.Lock, os.O_RDWR, 0)
		if err != nil {
			return &Failure{Step: "volume", Text: err.Error()}
		}
		how := unix.LOCK_EX
		if v.Shared {
			how = unix.LOCK_SH
		}
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
			held := fault.New(fault.Conflict, "volume %s is held by another instance", v.Name).At(v.Lock).
				Mend("wait until that one has ended; an exclusive volume has one holder at a time")
			return &Failure{Step: "volume", Text: errors.Join(err, f.Close()).Error(), Fault: held}
		}
		s.held = append(s.held, f)
	}
	return nil
}

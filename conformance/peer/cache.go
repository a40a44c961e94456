package peer

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// Cached returns the folder of the cache that build has filled, called only when
// no complete one is there. The folder's name holds a hash of key, so what was
// made from other versions or sources is never taken for it; an interrupted
// build is started again. Safe to call from several processes at once.
func Cached(kind, name string, key []byte, build func(dir string) error) (string, error) {
	work, err := WorkDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(key)
	dir := filepath.Join(work, kind, name+"-"+hex.EncodeToString(sum[:4]))
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) {
		return dir, nil
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := os.MkdirAll(part, 0o755); err != nil {
		return "", err
	}
	if err := build(part); err != nil {
		return "", err
	}
	return dir, os.Rename(part, dir)
}

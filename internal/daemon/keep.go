package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// keepManifests is how many manifests are kept for those who want one back.
const keepManifests = 20

// takeBack returns a function that keeps a manifest which is about to be replaced,
// in dir, and returns the command that puts it in force again; nothing if it could
// not be kept.
func takeBack(dir string, log *slog.Logger) func([]byte) string {
	return func(b []byte) string {
		path, err := keepManifest(dir, b)
		if err != nil {
			log.Warn("the manifest before is not kept", "error", err)
			return ""
		}
		if strings.ContainsAny(path, " \t\n'\"\\$`!*?[]{}()<>|&;#~") {
			path = "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
		}
		return "gemel apply " + path
	}
}

// keepManifest writes a file that only this user reads: a manifest may hold
// secrets. Its name says what is in it, so that what is there is whole.
func keepManifest(dir string, b []byte) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	path := filepath.Join(dir, "manifest-"+hex.EncodeToString(sum[:6])+".yaml")
	next := path + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return "", err
	}
	if err := os.Rename(next, path); err != nil {
		return "", err
	}
	return path, forgetOldest(dir)
}

// forgetOldest keeps the newest manifests.
func forgetOldest(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		at   int64
	}
	var all []aged
	for _, f := range files {
		if st, err := f.Info(); err == nil && strings.HasPrefix(f.Name(), "manifest-") {
			all = append(all, aged{f.Name(), st.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return int(min(1, max(-1, b.at-a.at))) })
	for _, f := range all[min(len(all), keepManifests):] {
		if err := os.Remove(filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	return nil
}

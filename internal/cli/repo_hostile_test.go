package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// What is absurd in a catalogue is the publisher's fault, and said so; no part of
// a copy is left.
func TestRepoCommandsOnHostileCatalogues(t *testing.T) {
	tier.Full(t)
	repo := cvmfstest.Small(t)
	want := cvmfstest.Expect(t, 3)
	for name, h := range cvmfstest.HostileCatalogues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			copied := filepath.Join(dir, "copy")
			common := []string{"--root-hash", repo.Hostile(t, h).String(), "--cache", filepath.Join(dir, "cache")}
			using := "cat"
			if want[h.Path].Type != "file" {
				using = "ls"
			}
			for command, args := range map[string][]string{using: {repo.Dir, h.Path}, "get": {repo.Dir, h.Path, copied}} {
				out, err := repoCommand(t, readers[command], append(args, common...)...)
				if h.Err == nil && err == nil {
					continue // a directory that is a file now is listed as one
				}
				if h.Err != nil && !fail.Is(err, fail.Unverified) || len(fail.Hints(err)) == 0 {
					t.Errorf("%s: error %v of class %d with hints %q, want class %d and a hint", command, err, fail.ClassOf(err), fail.Hints(err), fail.Unverified)
				}
				if len(out) > 1<<20 {
					t.Errorf("%s: %d bytes of output", command, len(out))
				}
			}
			if _, err := os.Lstat(copied); err == nil {
				t.Error("left of a copy that failed")
			}
			if _, err := repoCommand(t, newRepoCat, append([]string{repo.Dir, "/bin/tool"}, common...)...); err != nil {
				t.Errorf("another file: %v", err)
			}
		})
	}
}

package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/micavm/mica/internal/fail"
)

// testRepoCp copies as cp does: into a directory, to a new name, over what is
// there; nothing half done stays.
func testRepoCp(t *testing.T, repo string, common []string) {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	three := mustRepo(t, newRepoCat, append([]string{repo, "/nested/a/b/c/three"}, common...)...)
	same := func(name string) {
		t.Helper()
		if data, err := os.ReadFile(at(name)); err != nil || string(data) != three {
			t.Errorf("cp: %s has %q, %v, want %q", name, data, err, three)
		}
	}
	cp := func(args ...string) error {
		_, err := repoCommand(t, newRepoCp, append(append([]string{repo}, args...), common...)...)
		return err
	}
	if err := os.WriteFile(at("old"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"/nested/a/b/c/three", dir},
		{"/nested/a/b/c/three", at("old")},
		{"-r", "/nested", dir},
		{"-r", "/nested", dir}, // over itself
		{"-r", "/nested/a", at("fresh")},
		{"/nested/a/b/c/three", "/README", at("nested")},
	} {
		if err := cp(args...); err != nil {
			t.Fatalf("cp %q: %v", args, err)
		}
	}
	for _, name := range []string{"three", "old", "nested/a/b/c/three", "fresh/b/c/three", "nested/three"} {
		same(name)
	}
	if err := os.Mkdir(at("README"), 0o755); err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		args  []string
		class fail.Class
	}{
		"a directory without -r":        {[]string{"/nested", dir}, fail.Usage},
		"several to no directory":       {[]string{"/README", "/nested/a/b/c/three", at("absent")}, fail.Usage},
		"nothing":                       {[]string{"/nonesuch", dir}, fail.NotFound},
		"a file in a directory's place": {[]string{"/README", dir}, fail.Conflict},
	} {
		if err := cp(test.args...); fail.ClassOf(err) != test.class {
			t.Errorf("cp of %s: %v of class %d, want %d", what, err, fail.ClassOf(err), test.class)
		}
	}
	if list, err := filepath.Glob(at(".mica-*")); err != nil || len(list) > 0 {
		t.Errorf("cp left %q, %v", list, err)
	}
}

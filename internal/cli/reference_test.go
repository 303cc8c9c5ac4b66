package cli_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/cli"
)

var updateReference = flag.Bool("update-reference", false, "write docs/reference/cli anew") //nolint:gochecknoglobals // a flag of tests

// TestReferenceIsCurrent sees that the pages of the reference say what the
// program's help says.
func TestReferenceIsCurrent(t *testing.T) {
	dir := filepath.FromSlash("../../docs/reference/cli")
	pages := cli.Reference()
	if *updateReference {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range pages {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		there[e.Name()] = string(data)
	}
	if diff := cmp.Diff(pages, there); diff != "" {
		t.Errorf("docs/reference/cli is not what help says; write it anew with\n\tgo test ./internal/cli -run TestReferenceIsCurrent -update-reference\n(-want +got):\n%s", diff)
	}
}

package units

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGolden(t *testing.T) {
	for name, plan := range map[string]Plan{"with-cloud-init": {CloudInit: true}, "without-cloud-init": {}, "shares": {CloudInit: true, Shares: someShares}} {
		files := Files(plan)
		if err := Validate(files); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var b strings.Builder
		for _, f := range files {
			if f.Link != "" {
				fmt.Fprintf(&b, "== %s -> %s\n", f.Name, f.Link)
			} else {
				fmt.Fprintf(&b, "== %s\n%s", f.Name, f.Text)
			}
		}
		golden := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), b.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLinksPointSomewhere(t *testing.T) {
	files := Files(Plan{Shares: someShares})
	names := map[string]bool{}
	for _, f := range files {
		if f.Link != "" && f.Link != "/dev/null" {
			if target := filepath.Join(filepath.Dir(f.Name), f.Link); !names[target] {
				t.Errorf("link %s points to %s, which does not come before it", f.Name, target)
			}
		}
		names[f.Name] = true
	}
}

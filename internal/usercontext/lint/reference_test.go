package lint

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

var update = flag.Bool("update", false, "rewrite the golden files and the reference")

// golden compares with a file, which -update rewrites.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not current; run the test with -update (-file +made):\n%s", file, diff)
	}
}

func TestReference(t *testing.T) {
	golden(t, "../../../docs/reference/context-keys.md", Reference())
}

// TestPluginNames keeps the list that the guest's grammar needs and the table of
// plugins together.
func TestPluginNames(t *testing.T) {
	var names []string
	for _, p := range plugins.Table() {
		names = append(names, p.Name)
	}
	if diff := cmp.Diff(names, usercontext.Plugins()); diff != "" {
		t.Errorf("usercontext.Plugins (-table +list):\n%s", diff)
	}
}

// TestRealContexts checks contexts that are in public use.
func TestRealContexts(t *testing.T) {
	dir := tier.PeerData(t, "contexts")
	for _, name := range []string{"aleph-slc6", "atlas", "cms-opendata", "default", "squid"} {
		data, err := os.ReadFile(filepath.Join(dir, name+".context"))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for _, p := range check(t, string(data), Options{}) {
			out.WriteString(p.String() + "\n")
			if p.Remedy != "" {
				out.WriteString("    " + p.Remedy + "\n")
			}
		}
		golden(t, filepath.Join("testdata", name+".golden"), []byte(out.String()))
	}
}

// TestDocumentedContexts checks the contexts that newcomers are shown.
func TestDocumentedContexts(t *testing.T) {
	demo, err := os.ReadFile("../../../examples/demo.context")
	if err != nil {
		t.Fatal(err)
	}
	howto, err := os.ReadFile("../../../docs/howto/first-context.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{string(demo)}
	for _, m := range regexp.MustCompile("(?ms)^```(?:ini|yaml) context$\n(.*?)^```$").FindAllSubmatch(howto, -1) {
		texts = append(texts, string(m[1]))
	}
	if len(texts) < 5 {
		t.Errorf("only %d examples found in the how-to", len(texts)-1)
	}
	for _, text := range texts {
		found := slices.DeleteFunc(check(t, text, Options{}), func(p usercontext.Problem) bool { return p.Severity == usercontext.Note })
		if len(found) > 0 {
			t.Errorf("context is not clean: %v\n%s", found, text)
		}
	}
}

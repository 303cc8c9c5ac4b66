// Package mica_test holds the tests of the project's structure: which package
// may import which, what every package must say of itself, what the guest
// binary is made of and how large it may be.
package mica_test

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
)

const module = "github.com/micavm/mica"

var update = flag.Bool("update", false, "rewrite the reviewed lists")

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath   string
	Doc          string
	Name         string
	Dir          string
	Imports      []string
	Deps         []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "./...") {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// floors lists the rooms of the house from the top down. A package imports only
// packages of its own room and of rooms on lower floors; rooms that share a
// floor do not import each other unless beside says so.
var floors = [][]string{
	{"cmd"},
	{"internal/cli", "internal/boot", "internal/update"},
	{"internal/launch"},
	{"internal/machine", "internal/store"},
	{"internal/image", "internal/usercontext"},
	{"cvmfs"},
	{"internal/iso9660", "internal/fat", "internal/atomicfile", "internal/download", "internal/fail", "internal/progress", "internal/run", "internal/stage", "internal/tier", "internal/undo", "internal/version"},
}

// beside lists the arrows between rooms of one floor.
var beside = map[string][]string{
	"internal/download": {"internal/fail", "internal/progress", "internal/atomicfile"},
	"internal/run":      {"internal/fail"},
	"internal/iso9660":  {"internal/fail"},
}

// exceptions are arrows that point up, each with its reason.
var exceptions = map[string]string{
	// The agent's last report says how much the FUSE process downloaded.
	"internal/usercontext -> internal/boot": module + "/internal/boot/repository",
}

func room(path string) (name string, floor int) {
	rel := strings.TrimPrefix(path, module+"/")
	for floor, rooms := range floors {
		for _, r := range rooms {
			if rel == r || strings.HasPrefix(rel, r+"/") {
				return r, floor
			}
		}
	}
	return "", -1
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range list(t, "./...") {
		from, floor := room(p.ImportPath)
		if from == "" {
			if p.ImportPath != module && !strings.HasPrefix(p.ImportPath, module+"/test") && !strings.HasPrefix(p.ImportPath, module+"/bench") && !strings.HasPrefix(p.ImportPath, module+"/internal/deps") {
				t.Errorf("%s stands in no room of the house; see docs/architecture.md", p.ImportPath)
			}
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, module+"/") {
				continue
			}
			to, below := room(imp)
			if to == from || below > floor || slices.Contains(beside[from], to) || exceptions[from+" -> "+to] == imp {
				continue
			}
			t.Errorf("%s imports %s: arrows point down only", p.ImportPath, imp)
		}
	}
}

// TestGuestStaysSmall holds the guest binary to what it may be made of.
func TestGuestStaysSmall(t *testing.T) {
	forbidden := []string{
		module + "/internal/cli", module + "/internal/machine", module + "/internal/store", module + "/internal/image",
		module + "/internal/run", "github.com/spf13/cobra", "go.yaml.in/yaml/v3", "testing", "net/http/pprof", "net/http/httptest",
	}
	guest := list(t, "./cmd/mica-guest")[0]
	for _, f := range forbidden {
		for _, dep := range guest.Deps {
			if dep == f || strings.HasPrefix(dep, f+"/") {
				t.Errorf("the guest binary imports %s", dep)
			}
		}
	}
	var modules []string
	for _, dep := range guest.Deps {
		if strings.Contains(strings.SplitN(dep, "/", 2)[0], ".") {
			modules = append(modules, dep)
		}
	}
	sort.Strings(modules)
	reviewed(t, "cmd/mica-guest/dependencies.txt", strings.Join(modules, "\n")+"\n")
}

// reviewed compares got with a file that is committed and read by people.
func reviewed(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // a file of the source tree
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s is not current; review the change, then run 'go test . -update' (-want +got):\n%s", file, diff)
	}
}

// TestGuestSizeBudget bounds what every boot downloads or carries. Generic code is
// compiled for each type: one more slices.SortFunc is 15 kB, where sort.Slice,
// which is there already, is next to nothing.
func TestGuestSizeBudget(t *testing.T) {
	tier.Full(t)
	text, err := os.ReadFile("cmd/mica-guest/size_budget.txt")
	if err != nil {
		t.Fatal(err)
	}
	budget, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "mica-guest")
	if out, err := exec.CommandContext(t.Context(), "scripts/build-guest.sh", binary).CombinedOutput(); err != nil {
		t.Fatalf("building the guest: %v\n%s", err, out)
	}
	fi, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("mica-guest: %d of %d bytes", fi.Size(), budget)
	if fi.Size() > budget {
		t.Errorf("mica-guest has %d bytes, its budget is %d (cmd/mica-guest/size_budget.txt)", fi.Size(), budget)
	}
}

func TestModuleFileHasNoReplace(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "replace") {
		t.Error("go.mod has a replace directive: others could not import the packages")
	}
}

// TestDependenciesAreListed holds docs/dependencies.md to go.mod.
func TestDependenciesAreListed(t *testing.T) {
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(line)
		if len(fields) != 2 || !strings.HasPrefix(fields[1], "v") || strings.Contains(line, "// indirect") {
			continue
		}
		if !strings.Contains(string(page), fields[0]) {
			t.Errorf("docs/dependencies.md does not list %s", fields[0])
		}
	}
}

// TestFilesStayShort keeps files readable in one sitting.
func TestFilesStayShort(t *testing.T) {
	const most = 700
	for _, p := range list(t, "./...") {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(text), "\n"); n > most {
				t.Errorf("%s/%s has %d lines, the limit is %d: look for the seam", p.ImportPath, name, n, most)
			}
		}
	}
}

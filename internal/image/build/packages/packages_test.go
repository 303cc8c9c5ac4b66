package packages_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image/build/packages"
	"github.com/micavm/mica/internal/run"
)

// apt stands in for apt-get and apt-cache. Like the real one it says nothing of
// a package that lies in the current folder.
type apt struct {
	offers map[string][]byte // package → its file
	spoil  bool              // downloads come out damaged
	calls  []string
}

func file(name string) string { return name + "_1%3a2-3_all.deb" }

func (a *apt) Run(_ context.Context, c run.Command) (run.Result, error) {
	line := c.Name + " " + strings.Join(c.Args, " ")
	a.calls = append(a.calls, line)
	var out bytes.Buffer
	switch {
	case strings.HasPrefix(line, "apt-get download --print-uris "):
		for _, name := range c.Args[2:] {
			data, ok := a.offers[name]
			if !ok {
				return run.Result{}, &run.Error{Command: line, Result: run.Result{Code: 100, Stderr: []byte("E: Unable to locate package " + name)}}
			}
			if _, err := os.Stat(filepath.Join(c.Dir, file(name))); err == nil {
				continue
			}
			sum := sha256.Sum256(data)
			_, _ = fmt.Fprintf(&out, "'http://archive.example.org/pool/%s' %s %d SHA256:%s\n", file(name), file(name), len(data), hex.EncodeToString(sum[:]))
		}
	case strings.HasPrefix(line, "apt-get download "):
		for _, arg := range c.Args {
			name, version, ok := strings.Cut(arg, "=")
			data := a.offers[name]
			if !ok || data == nil {
				continue
			}
			if version != "1:2-3" {
				return run.Result{}, errors.New("wrong version " + arg)
			}
			if a.spoil {
				data = append(bytes.Clone(data), 0)
			}
			if err := os.WriteFile(filepath.Join(c.Dir, file(name)), data, 0o600); err != nil {
				return run.Result{}, err
			}
		}
	case strings.HasPrefix(line, "apt-cache depends --important linux-image-amd64"):
		out.WriteString("linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n")
	case strings.HasPrefix(line, "apt-cache depends --important "):
		out.WriteString(c.Args[2] + "\n  PreDepends: libblkid1\n  Depends: libc6\n |Depends: one\n  Depends: two\n  Depends: <virtual>\n    provider\n  Depends: libc6\n")
	}
	return run.Result{Stdout: out.Bytes()}, nil
}

// pkg is a Debian package with nothing but its control file.
func pkg(t *testing.T, name string) []byte {
	t.Helper()
	var control bytes.Buffer
	w := tar.NewWriter(&control)
	text := "Package: " + name + "\nVersion: 1:2-3\nArchitecture: all\n"
	if err := w.WriteHeader(&tar.Header{Name: "./control", Size: int64(len(text)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(fmt.Appendf([]byte("!<arch>\n"), "%-16s%-12d%-6d%-6d%-8s%-10d`\n", "control.tar", 0, 0, 0, "100644", control.Len()), control.Bytes()...)
}

func setup(t *testing.T) (packages.Cache, *apt) {
	t.Helper()
	a := &apt{offers: map[string][]byte{"thing": pkg(t, "thing"), "other": pkg(t, "other")}}
	return packages.Cache{Dir: filepath.Join(t.TempDir(), "cache"), Run: a}, a
}

func TestFetchLocksAndDoesNotFetchAgain(t *testing.T) {
	c, a := setup(t)
	request := []string{"thing", "other"}
	if _, err := c.Locked(request); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Locked before anything = %v", err)
	}
	first, err := c.Fetch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(a.offers["thing"])
	want := packages.Package{Name: "thing", Version: "1:2-3", Architecture: "all", SHA256: hex.EncodeToString(sum[:]), File: file("thing")}
	if diff := cmp.Diff(want, first[0]); diff != "" {
		t.Errorf("Fetch (-want +got):\n%s", diff)
	}
	a.calls = nil
	if _, err := c.Fetch(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"apt-get download --print-uris thing other"}, a.calls); diff != "" {
		t.Errorf("programs run by a second Fetch (-want +got):\n%s", diff)
	}
	if err := c.Lock(request, first); err != nil {
		t.Fatal(err)
	}
	a.calls = nil
	locked, err := c.Locked(request)
	if err != nil || len(locked) != 2 || len(a.calls) != 0 {
		t.Errorf("Locked = %v, %v, after running %q", locked, err, a.calls)
	}
	if _, err := c.Locked([]string{"thing"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Locked of another request = %v", err)
	}
	if err := os.WriteFile(c.Path(locked[0]), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Locked(request); !fail.Is(err, fail.Unverified) {
		t.Errorf("Locked with a damaged package = %v, want class Unverified", err)
	}
	left, err := filepath.Glob(filepath.Join(c.Dir, ".download-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDamagedDownloadStaysOut(t *testing.T) {
	c, a := setup(t)
	a.spoil = true
	if _, err := c.Fetch(t.Context(), []string{"thing"}); !fail.Is(err, fail.Unverified) {
		t.Errorf("Fetch = %v, want class Unverified", err)
	}
	if found, _ := filepath.Glob(filepath.Join(c.Dir, "*.deb")); len(found) != 0 {
		t.Errorf("in the cache: %v", found)
	}
}

func TestUnknownPackageAndNames(t *testing.T) {
	c, _ := setup(t)
	if _, err := c.Fetch(t.Context(), []string{"absent"}); !fail.Is(err, fail.Refused) || len(fail.Hints(err)) == 0 {
		t.Errorf("Fetch of an unknown package = %v", err)
	}
	for _, name := range []string{"-o=Dir=/", "a b", "", "../x", "A"} {
		if _, err := c.Fetch(t.Context(), []string{name}); !fail.Is(err, fail.Usage) {
			t.Errorf("Fetch(%q) = %v, want a usage error", name, err)
		}
	}
}

// TestForeign asks for packages of an architecture that no computer here has: apt
// gets state of its own, and its lists once.
func TestForeign(t *testing.T) {
	here, dir := t.TempDir(), "cache" // apt, which runs elsewhere, is told an absolute path
	t.Chdir(here)
	state := filepath.Join(here, dir, "apt-sparc")
	options := " -o APT::Architecture=sparc -o APT::Architectures=sparc -o APT::Sandbox::User=root -o Acquire::Languages=none -o Dir::State=" + state +
		" -o Dir::State::status=/dev/null -o Dir::Cache=" + filepath.Join(state, "cache")
	update := "apt-get" + options + " update -q -o APT::Update::Error-Mode=any"
	replay := run.NewReplay(
		run.Exchange{Line: update, Code: 100, Stderr: "E: no network\n"},
		run.Exchange{Line: update}, run.Exchange{Line: update},
		run.Exchange{Line: "apt-cache" + options + " depends --important linux-image-sparc", Stdout: "linux-image-sparc\n  Depends: linux-image-6\n"},
		run.Exchange{Line: "apt-get" + options + " download --print-uris thing", Code: 100, Stderr: "E: Unable to locate package thing\n"},
	)
	c := packages.Cache{Dir: dir, Architecture: "sparc", Run: replay}
	if err := c.Update(t.Context(), false); !fail.Is(err, fail.Refused) || !strings.Contains(err.Error(), "no network") {
		t.Errorf("Update without a network = %v", err)
	}
	for _, anew := range []bool{false, false, true} { // the second has them
		if err := c.Update(t.Context(), anew); err != nil {
			t.Fatal(err)
		}
	}
	if name, err := c.Kernel(t.Context(), "linux-image-sparc"); name != "linux-image-6" || err != nil {
		t.Errorf("Kernel = %q, %v", name, err)
	}
	if _, err := c.Fetch(t.Context(), []string{"thing"}); !fail.Is(err, fail.Refused) || !strings.Contains(strings.Join(fail.Hints(err), "\n"), "--refresh") {
		t.Errorf("Fetch = %v, hints %q, want what apt refused and --refresh", err, fail.Hints(err))
	}
	if err := c.Lock([]string{"thing"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Locked([]string{"thing"}); err != nil {
		t.Errorf("Locked = %v", err)
	}
	c.Architecture = ""
	if _, err := c.Locked([]string{"thing"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Locked of this computer's architecture = %v, want none", err)
	}
	if err := c.Update(t.Context(), true); err != nil { // runs nothing: the transcript is at its end
		t.Errorf("Update of this computer's own lists = %v", err)
	}
}

func TestDependsAndKernel(t *testing.T) {
	c, _ := setup(t)
	got, err := c.Depends(t.Context(), "e2fsprogs")
	if diff := cmp.Diff([]string{"libblkid1", "libc6", "two"}, got); diff != "" || err != nil {
		t.Errorf("Depends: %v (-want +got):\n%s", err, diff)
	}
	for name, want := range map[string]string{"linux-image-amd64": "linux-image-6.1.0-56-amd64", "linux-image-6.1.0-56-amd64": "linux-image-6.1.0-56-amd64"} {
		if got, err := c.Kernel(t.Context(), name); got != want || err != nil {
			t.Errorf("Kernel(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
}

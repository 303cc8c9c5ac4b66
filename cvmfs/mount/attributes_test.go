package mount_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

// attribute reads one; the error's text stands for its value.
func attribute(path, name string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Getxattr(path, name, buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

// listed returns the names of a file's attributes.
func listed(t *testing.T, path string) []string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
}

// Magic attributes are listed where the mount's options say so, and each that is
// listed can be read.
func TestMagicListed(t *testing.T) {
	repo := cvmfstest.Small(t)
	for visible, want := range map[mount.Visibility][2]bool{ // on the root, on a file
		mount.Hidden: {}, mount.RootOnly: {true, false}, mount.Everywhere: {true, true},
	} {
		root, _ := mountWith(t, options(t, repo, "file://"+repo.Dir), mount.Options{Visible: visible})
		for i, path := range []string{root, root + "/README"} {
			names := listed(t, path)
			if got := slices.Contains(names, "user.fqrn"); got != want[i] {
				t.Errorf("visibility %v: magic attributes of %s are listed: %v", visible, path, got)
			}
			if slices.Contains(names, "user.hash") != (i == 1 && want[i]) {
				t.Errorf("visibility %v: %s has %q", visible, path, names)
			}
			for _, name := range names {
				if _, err := unix.Getxattr(path, name, nil); err != nil {
					t.Errorf("%s of %s: %v", name, path, err)
				}
			}
			if got := attribute(path, "user.fqrn"); got != small {
				t.Errorf("user.fqrn of %s = %q", path, got)
			}
		}
	}
}

// What the publisher and the log say, and what the cache has.
func TestMagicTexts(t *testing.T) {
	repo := cvmfstest.Small(t)
	opt := options(t, repo, "file://"+repo.Dir)
	lines := &mount.LogBuffer{}
	opt.Log = slog.New(lines.Handler(opt.Log.Handler()))
	root, r := mountWith(t, opt, mount.Options{LogBuffer: lines})
	if got := attribute(root, "user.repo_metainfo"); !strings.HasPrefix(got, "{") || !strings.HasSuffix(strings.TrimSpace(got), "}") {
		t.Errorf("metainfo %q", got)
	}
	opt.Log.Info("something is up", "why", "a test")
	first, _, _ := strings.Cut(attribute(root+"/README", "user.logbuffer"), "\n")
	if !strings.HasPrefix(first, "[") || !strings.HasSuffix(first, ` UTC] level=INFO msg="something is up" why="a test"`) {
		t.Errorf("the newest line is %q", first)
	}
	if got := attribute(root, "user.ncleanup24"); got != "0" {
		t.Errorf("cleanups %q", got)
	}

	files := map[string]string{} // of one piece, by compression
	err := fs.WalkDir(r.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			e, lookErr := r.Lookup(t.Context(), path)
			if err = lookErr; err == nil && !e.Hash.IsZero() && e.Size > 0 {
				files[e.Compression.String()] = "/" + path
			}
		}
		return err
	})
	plain, packed := files["none"], files["zlib"]
	if err != nil || plain == "" || packed == "" {
		t.Fatalf("files are %v, %v", files, err)
	}
	if got := attribute(root+plain, "user.lhash"); got != "Not in cache" {
		t.Errorf("before it is read, %s has the local hash %q", plain, got)
	}
	if _, err := os.ReadFile(root + plain); err != nil {
		t.Fatal(err)
	}
	if got, want := attribute(root+plain, "user.lhash"), attribute(root+plain, "user.hash"); got != want {
		t.Errorf("%s has the local hash %q, want %q", plain, got, want)
	}
	if _, err := unix.Getxattr(root+packed, "user.lhash", nil); !errors.Is(err, unix.ENODATA) {
		t.Errorf("the local hash of a compressed file: %v", err)
	}
}

// Modes are enforced unless the mount's options say otherwise.
func TestUnchecked(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	if err := os.Chmod(t.TempDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, unchecked := range []bool{false, true} {
		root, r := mountWith(t, options(t, repo, "file://"+repo.Dir), mount.Options{AllowOther: true, Unchecked: unchecked})
		var private string
		err := fs.WalkDir(r.FS(), ".", func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, infoErr := d.Info(); infoErr == nil && info.Mode().Perm()&0o044 == 0 && info.Size() > 0 {
					private = path
				}
			}
			return err
		})
		if err != nil || private == "" {
			t.Fatalf("no private file: %v", err)
		}
		f, err := os.Open(root) // the way to it is not for everybody
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		cmd := exec.Command("cat", "/proc/self/fd/3/"+private)
		cmd.ExtraFiles = []*os.File{f}
		cmd.SysProcAttr = nobody()
		if err := cmd.Run(); (err == nil) != unchecked {
			t.Errorf("unchecked is %v, and reading %s gives %v", unchecked, private, err)
		}
	}
}

// A limit that is refused leaves as much as there may be.
func TestRaiseFileLimit(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
	lower := unix.Rlimit{Cur: 128, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		wanted, want uint64
		fails        bool
	}{{100, 128, false}, {256, 256, false}, {200, 256, false}, {1 << 40, before.Max, true}} {
		got, err := mount.RaiseFileLimit(test.wanted)
		var now unix.Rlimit
		if limitErr := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); limitErr != nil {
			t.Fatal(limitErr)
		}
		if got != test.want || now.Cur != got || (err != nil) != test.fails {
			t.Errorf("RaiseFileLimit(%d) = %d, %v, the limit is %d, want %d", test.wanted, got, err, now.Cur, test.want)
		}
	}
}

// Requests are counted and take time, if somebody wants to know.
func TestLatencies(t *testing.T) {
	tier.Root(t)
	repo := cvmfstest.Small(t)
	for _, wanted := range []bool{true, false} {
		r, err := client.Open(t.Context(), options(t, repo, "file://"+repo.Dir))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		s, err := mount.Mount(t.Context(), r, dir, mount.Options{Timed: wanted, CountOpens: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadDir(dir + "/nested"); err != nil {
			t.Error(err)
		}
		if _, err := os.ReadFile(dir + "/README"); err != nil {
			t.Error(err)
		}
		got := map[string]int64{}
		for _, l := range s.Latencies() {
			got[l.Request] = l.Count
			if half := l.Quantile(.5); (half > 0) != (l.Count > 0) {
				t.Errorf("%d requests %s took %v", l.Count, l.Request, half)
			}
		}
		for _, request := range []string{"lookup", "getattr", "opendir", "readdir", "open", "read"} {
			if (got[request] > 0) != wanted {
				t.Errorf("wanted: %v, and %d requests %s", wanted, got[request], request)
			}
		}
		if err := errors.Join(s.Unmount(), r.Close()); err != nil {
			t.Error(err)
		}
	}
}

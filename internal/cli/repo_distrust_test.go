package cli

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// A server whose signed files are not to be trusted: a command with an empty
// cache shows nothing of it and says who and what to do; one that has seen
// revision 3 shows that, and says the same. Distrust that only the latter can feel
// gives the former what there is.
func TestRepoCommandsOnDistrust(t *testing.T) {
	tier.Full(t)
	for name, d := range cvmfstest.Distrusts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo := cvmfstest.Small(t)
			server := cvmfstest.NewRogue(t, repo.Dir)
			dir := t.TempDir()
			common := []string{"--key", filepath.Join(repo.Keys, cvmfstest.Name+".pub"), "--cache", filepath.Join(dir, "warm"), "--timeout", "2s"}
			run := func(cache string, command string, args ...string) (out, said string, err error) {
				common[3] = filepath.Join(dir, cache)
				return repoCommandBoth(t.Context(), readers[command], append(args, common...)...)
			}
			readme, said, err := run("warm", "cat", server.Base, "/README")
			if err != nil || readme == "" || said != "" {
				t.Fatalf("with an honest server: %q, %q, %v", readme, said, err)
			}
			d.Change(t, repo)
			out, said, err := run("warm", "cat", server.Base, "/README")
			if err != nil || out != readme {
				t.Errorf("from the cache: %q, %v", out, err)
			}
			if !strings.Contains(said, "revision 3") || !strings.Contains(said, server.Base) || !strings.Contains(said, "\nhint: ") {
				t.Errorf("from the cache: said %q, want the revision, the server and a hint", said)
			}
			if d.Seen {
				return
			}
			copied := filepath.Join(dir, "copy")
			for command, args := range map[string][]string{"ls": {server.Base}, "cat": {server.Base, "/README"}, "get": {server.Base, "/", copied}} {
				out, _, err := run("cold", command, args...)
				if out != "" || !fail.Is(err, fail.Unverified) || !strings.Contains(err.Error(), server.Base) || len(fail.Hints(err)) == 0 {
					t.Errorf("%s: %q, error %v of class %d with hints %q, want class %d, the server and a hint", command, out, err, fail.ClassOf(err), fail.Hints(err), fail.Unverified)
				}
			}
			if _, err := os.Lstat(copied); err == nil {
				t.Error("left of a copy that failed")
			}
		})
	}
}

// A mount whose server turns out not to be trusted stays at its revision, and
// 'repo talk' says that there is none to be had.
func TestRepoMountOnDistrust(t *testing.T) {
	tier.Root(t)
	want := cvmfstest.Expect(t, 3)
	for name, d := range cvmfstest.Distrusts {
		t.Run(name, func(t *testing.T) {
			repo := cvmfstest.Small(t)
			server := cvmfstest.NewRogue(t, repo.Dir)
			dir := t.TempDir()
			at, cache := filepath.Join(dir, "at"), filepath.Join(dir, "cache")
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			end := mountCommand(t, server.Base, at, "--key", filepath.Join(repo.Keys, cvmfstest.Name+".pub"), "--cache", cache)
			answers := func() bool {
				_, err := repoCommand(t, newRepoTalk, cache, "pid")
				return err == nil
			}
			for began := time.Now(); !answers() && time.Since(began) < time.Minute; { // it comes a moment after the mount
				time.Sleep(20 * time.Millisecond)
			}
			d.Change(t, repo)
			if out, err := repoCommand(t, newRepoTalk, cache, "remount"); err == nil && out != "Failed\n" {
				t.Errorf("remount: %q, want a failure", out)
			}
			if out, err := repoCommand(t, newRepoTalk, cache, "revision"); err != nil || out != "3\n" {
				t.Errorf("revision: %q, %v", out, err)
			}
			for _, p := range []string{"/README", "/nested/one", "/v3/bigraw"} {
				data, err := os.ReadFile(at + p)
				if got := fmt.Sprintf("%x", sha256.Sum256(data)); err != nil || got != want[p].SHA256 {
					t.Errorf("%q has sha256 %s, %v, want %s", p, got, err, want[p].SHA256)
				}
			}
			if _, err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A proxy that keeps an old manifest is gone past, without a word; one that cannot
// be gone past is named, and what was there already is shown.
func TestRepoCommandsOnStaleProxy(t *testing.T) {
	tier.Full(t)
	old, repo := cvmfstest.Small(t), cvmfstest.Snapshots(t)
	server := cvmfstest.NewRogue(t, repo.Dir)
	args := []string{server.Base, "/README", "--key", filepath.Join(old.Keys, cvmfstest.Name+".pub"), "--cache", filepath.Join(t.TempDir(), "cache")}
	mustRepo(t, newRepoCat, args...)
	keeps := func(always bool) func(string, int) cvmfstest.Fault {
		stale := cvmfstest.Body(old.Read(t, cvmfs.ManifestFile))
		return func(path string, _ int) cvmfstest.Fault {
			if path != "/"+cvmfs.ManifestFile {
				return nil
			}
			return func(w http.ResponseWriter, r *http.Request, files http.Handler) {
				if !always && r.Header.Get("Cache-Control") == "no-cache" {
					files.ServeHTTP(w, r)
					return
				}
				stale(w, r, files)
			}
		}
	}
	server.Set(keeps(false))
	if _, said, err := repoCommandBoth(t.Context(), newRepoCat, args...); err != nil || said != "" {
		t.Errorf("with a proxy that can be gone past: said %q, %v", said, err)
	}
	server.Set(keeps(true))
	if _, said, err := repoCommandBoth(t.Context(), newRepoCat, args...); err != nil || !strings.Contains(said, "revision 4") || !strings.Contains(said, server.Base) || !strings.Contains(said, "\nhint: ") {
		t.Errorf("with one that cannot: said %q, %v, want the revision, the server and a hint", said, err)
	}
}

package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// readers are the commands that read a repository.
var readers = map[string]func(*app) *cobra.Command{"ls": newRepoLs, "stat": newRepoStat, "cat": newRepoCat, "find": newRepoFind, "get": newRepoGet}

// wrongBytes are the faults that give something else than what was asked for; the
// others give nothing.
var wrongBytes = []string{"shortens", "lengthens", "garbles", "swaps", "empties", "captures", "zips", "never ends"}

// badSignature are those after which a signed file still has the right form.
var badSignature = []string{"shortens", "lengthens"}

// Each fault of a server, met by each command that needs it: the class says whether
// there was nothing or something wrong, the message who is to blame, a hint what
// to do, and no part of a copy is left.
func TestRepoCommandsOnFaults(t *testing.T) {
	tier.Full(t)
	repo := cvmfstest.Small(t)
	key := filepath.Join(repo.Keys, cvmfstest.Name+".pub")
	for name, fault := range cvmfstest.Faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, target := range []string{"objects", "manifest"} {
				server := cvmfstest.NewRogue(t, repo.Dir)
				dir := t.TempDir()
				common := []string{"--key", key, "--cache", filepath.Join(dir, "cache"), "--timeout", "300ms"}
				if target == "objects" { // all that a start needs is there
					if _, err := repoCommand(t, newRepoLs, append([]string{server.Base}, common...)...); err != nil {
						t.Fatal(err)
					}
				}
				server.Set(func(path string, _ int) cvmfstest.Fault {
					if cvmfstest.IsObject(path) == (target == "objects") {
						return fault
					}
					return nil
				})
				want := fail.Refused
				if target == "objects" && slices.Contains(wrongBytes, name) || target == "manifest" && slices.Contains(badSignature, name) {
					want = fail.Unverified
				}
				copies := filepath.Join(dir, "copies")
				if err := os.Mkdir(copies, 0o755); err != nil {
					t.Fatal(err)
				}
				for command, args := range map[string][]string{
					"cat":  {server.Base, "/big/chunked"},
					"get":  {server.Base, "/big", filepath.Join(copies, "copy")},
					"find": {server.Base, "/nested"},
				} {
					done := make(chan error, 1)
					go func() {
						out, err := repoCommand(t, readers[command], append(args, common...)...)
						if out != "" {
							t.Errorf("%s, %s: %d bytes of output", target, command, len(out))
						}
						done <- err
					}()
					select {
					case err := <-done:
						if !fail.Is(err, want) || !strings.Contains(err.Error(), server.Base) || len(fail.Hints(err)) == 0 {
							t.Errorf("%s, %s: error %v of class %d with hints %q, want class %d, the server and a hint", target, command, err, fail.ClassOf(err), fail.Hints(err), want)
						}
					case <-time.After(time.Minute):
						t.Fatalf("%s, %s hangs", target, command)
					}
				}
				if left, err := os.ReadDir(copies); err != nil || len(left) > 0 {
					t.Errorf("%s: left of a copy that failed: %v, %v", target, left, err)
				}
			}
		})
	}
}

// Each kind of file of a repository, damaged in each way: 'repo check' fails with
// the class for what does not hold, and names the file or what is in it.
func TestRepoCheckFindsDamage(t *testing.T) {
	repo := cvmfstest.Small(t)
	m := repo.Head(t)
	damages := map[string]func(file string, data []byte) error{
		"removed":   func(file string, _ []byte) error { return os.Remove(file) },
		"emptied":   func(file string, _ []byte) error { return os.WriteFile(file, nil, 0o644) },
		"cut short": func(file string, data []byte) error { return os.WriteFile(file, data[:len(data)/2], 0o644) },
		"one bit":   func(file string, data []byte) error { data[len(data)/2] ^= 1; return os.WriteFile(file, data, 0o644) },
		"HTML":      func(file string, _ []byte) error { return os.WriteFile(file, []byte("<html>moved</html>"), 0o644) },
	}
	for what, path := range map[string]string{
		"manifest": cvmfs.ManifestFile, "whitelist": cvmfs.WhitelistFile, "reflog": cvmfs.ReflogFile,
		"certificate": m.Certificate.ObjectPath(cvmfs.SuffixCertificate), "history": m.History.ObjectPath(cvmfs.SuffixHistory),
		"metainfo": m.Metainfo.ObjectPath(cvmfs.SuffixMetainfo), "root catalogue": m.RootHash.ObjectPath(cvmfs.SuffixCatalog),
	} {
		file := filepath.Join(repo.Dir, path)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for name, damage := range damages {
			if err := damage(file, slices.Clone(good)); err != nil {
				t.Fatal(err)
			}
			out, err := repoCommand(t, newRepoCheck, repo.Dir, "--key", filepath.Join(repo.Keys, cvmfstest.Name+".pub"), "--data")
			text := out
			if err != nil {
				text += err.Error()
			}
			hash := strings.ReplaceAll(strings.TrimPrefix(path, "data/"), "/", "")
			named := strings.Contains(text, path) || strings.Contains(text, strings.TrimRight(hash, "CHXM")) || strings.Contains(text, what) || strings.Contains(text, repo.Dir) && name == "removed"
			if (!fail.Is(err, fail.Unverified) && !fail.Is(err, fail.NotFound)) || !named || len(fail.Hints(err)) == 0 {
				t.Errorf("%s %s: error %v of class %d, hints %q\n%s", what, name, err, fail.ClassOf(err), fail.Hints(err), out)
			}
			if err := os.WriteFile(file, good, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := repoCommand(t, newRepoCheck, repo.Dir, "--key", filepath.Join(repo.Keys, cvmfstest.Name+".pub"), "--data"); err != nil {
		t.Errorf("mended: %v", err)
	}
}

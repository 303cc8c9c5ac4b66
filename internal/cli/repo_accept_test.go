package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/fail"
)

// listedBy is what a command says of an entry, as the original client would.
func listedBy(t *testing.T, e repoEntry) cvmfstest.Listed {
	t.Helper()
	l := cvmfstest.Listed{
		Path: e.Path, Type: e.Type, Mode: e.Mode, Nlink: e.Links, UID: e.UID, GID: e.GID, MTime: e.MTime.Unix(), MTimeNS: int32(e.MTime.Nanosecond()),
		Size: e.Size, Rdev: e.Device, Target: e.Target, RawTarget: e.Target, Xattrs: e.Xattrs,
	}
	if e.PathBase64 != nil {
		l.Path = string(e.PathBase64)
	}
	if l.Path == "/" {
		l.Path = ""
	}
	if e.Expanded != "" {
		l.Target = e.Expanded
	}
	if e.Type == "dir" {
		l.Size = 0
	}
	return l
}

// The repository of the original tools, through each of the commands.
func TestRepoCommandsShowAll(t *testing.T) {
	repo := cvmfstest.Small(t)
	common := []string{"--key", filepath.Join(repo.Keys, cvmfstest.Name+".pub"), "--cache", t.TempDir()}
	want := cvmfstest.Expect(t, 3)
	items := func(command string, args ...string) map[string]cvmfstest.Listed {
		t.Helper()
		out, err := repoCommand(t, readers[command], slices.Concat([]string{repo.Dir}, args, common, []string{"-o", "json"})...)
		if err != nil {
			t.Errorf("%s %q: %v", command, args, err)
		}
		var list struct {
			Items []repoEntry `json:"items"`
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(err)
		}
		got := map[string]cvmfstest.Listed{}
		for _, e := range list.Items {
			l := listedBy(t, e)
			got[l.Path] = l
		}
		return got
	}
	withSum := func(got map[string]cvmfstest.Listed, content func(path string) ([]byte, error)) map[string]cvmfstest.Listed {
		t.Helper()
		for p, l := range got {
			if l.Type != "file" {
				continue
			}
			data, err := content(p)
			if err != nil {
				t.Error(err)
			}
			sum := sha256.Sum256(data)
			l.SHA256 = hex.EncodeToString(sum[:])
			got[p] = l
		}
		return got
	}
	cat := func(p string) ([]byte, error) {
		out, err := repoCommand(t, newRepoCat, slices.Concat([]string{repo.Dir, p}, common)...)
		return []byte(out), err
	}
	t.Run("find and cat", func(t *testing.T) { cvmfstest.Compare(t, withSum(items("find"), cat), want, nil) })
	noSum := func(l *cvmfstest.Listed) { l.SHA256 = "" }
	t.Run("stat", func(t *testing.T) {
		cvmfstest.Compare(t, items("stat", append([]string{"/"}, slices.Sorted(maps.Keys(want))[1:]...)...), want, noSum)
	})
	t.Run("ls", func(t *testing.T) {
		got := map[string]cvmfstest.Listed{"": want[""]}
		for p, l := range want {
			if l.Type == "dir" {
				maps.Copy(got, items("ls", "/"+strings.TrimPrefix(p, "/")))
			}
		}
		cvmfstest.Compare(t, got, want, noSum)
	})
	t.Run("get", func(t *testing.T) {
		dest := filepath.Join(t.TempDir(), "copy")
		_, err := repoCommand(t, newRepoGet, slices.Concat([]string{repo.Dir, "/", dest}, common)...)
		if !fail.Is(err, fail.Partial) {
			t.Errorf("get of all, with devices: %v, want class partial", err)
		}
		got, copied := map[string]cvmfstest.Listed{}, map[string]cvmfstest.Listed{}
		for p, l := range want {
			switch l.Type {
			case "dir", "file", "symlink":
				copied[p] = l
			}
		}
		err = filepath.WalkDir(dest, func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			l := cvmfstest.Listed{Path: strings.TrimPrefix(file, dest), Mode: fmt.Sprintf("%04o", info.Mode().Perm()), MTime: info.ModTime().Unix(), MTimeNS: int32(info.ModTime().Nanosecond())}
			switch {
			case d.IsDir():
				l.Type = "dir"
			case info.Mode().IsRegular():
				l.Type, l.Size = "file", info.Size()
			default:
				l.Type = "symlink"
				l.Target, err = os.Readlink(file)
			}
			got[l.Path] = l
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		content := func(p string) ([]byte, error) {
			if err := os.Chmod(dest+p, 0o600); err != nil {
				return nil, err
			}
			return os.ReadFile(dest + p)
		}
		cvmfstest.Compare(t, withSum(got, content), copied, func(l *cvmfstest.Listed) {
			l.Nlink, l.UID, l.GID, l.RawTarget, l.Xattrs = 0, 0, 0, "", nil // what a copy does not keep
			l.Mode = l.Mode[1:]                                             // setuid and its like are in the upper digit
			if len(l.Mode) == 3 {
				l.Mode = "0" + l.Mode
			}
			if l.Type == "symlink" {
				l.Mode, l.Size, l.MTime, l.MTimeNS = "", 0, 0, 0
			}
		})
	})
}

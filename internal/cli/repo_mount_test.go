package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// announced is standard error of a mount; done is closed when it says that it
// stands, which is after the kernel shows it.
type announced struct {
	bytes.Buffer
	done chan struct{}
}

func (a *announced) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(" mounted at ")) {
		close(a.done)
	}
	return a.Buffer.Write(p)
}

// mountCommand runs 'repo mount' until it stands. end unmounts, and returns what
// went to standard error.
func mountCommand(t *testing.T, source, at string, args ...string) (end func() (messages string, err error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	said := &announced{done: make(chan struct{})}
	ended := make(chan error, 1)
	args = append([]string{source, at, "--foreground"}, args...)
	if !slices.Contains(args, "--config") {
		args = append(args, "--config", t.TempDir())
	}
	go func() {
		_, err := repoCommandTo(ctx, said, newRepoMount, args...)
		ended <- err
	}()
	select {
	case <-said.done:
	case err := <-ended:
		t.Fatalf("mount ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("not mounted in a minute")
	}
	return func() (string, error) {
		cancel()
		err := <-ended
		return said.String(), err
	}
}

// A mount shows owners through the maps, and writes down what was read through
// it when it ends.
func TestRepoMountRecordsAndMaps(t *testing.T) {
	tier.Root(t)
	repo, key := smallRepo(t)
	dir := t.TempDir()
	at, record, ids := filepath.Join(dir, "at"), filepath.Join(dir, "boot.profile"), filepath.Join(dir, "ids")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ids, []byte("* 4711\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	end := mountCommand(t, repo, at, "--key", key, "--cache", filepath.Join(dir, "cache"), "--record", record, "--uid-map", ids)
	file := filepath.Join(at, "README")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 4711 {
		t.Errorf("README belongs to %+v, want 4711", info.Sys())
	}
	if _, err := os.ReadFile(file); err != nil {
		t.Error(err)
	}
	if _, err := end(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(text)
	if err != nil || p.Repository != filepath.Base(repo) {
		t.Fatalf("profile %+v, %v", p, err)
	}
	hash := strings.TrimSpace(mustRepo(t, newRepoStat, repo, "/README", "--key", key, "--cache", filepath.Join(dir, "cache"), "-o", "jsonl"))
	found := false
	for _, o := range p.Objects {
		found = found || strings.Contains(hash, o.Hash.String())
	}
	if !found {
		t.Errorf("the profile has not what was read: %s", text)
	}
}

// A mount by name follows what the configuration says of mounts.
func TestRepoMountConfigured(t *testing.T) {
	tier.Root(t)
	repo, key := smallRepo(t)
	dir := t.TempDir()
	at := filepath.Join(dir, "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "CVMFS_SERVER_URL=\"file://" + filepath.Dir(repo) + "/@fqrn@\"\nCVMFS_PUBLIC_KEY=" + key +
		"\nCVMFS_MAGIC_XATTRS_VISIBILITY=rootonly\nCVMFS_NFILES=1073741824\n" // more than the kernel allows
	if err := os.WriteFile(filepath.Join(dir, "default.local"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	end := mountCommand(t, filepath.Base(repo), at, "--cache", filepath.Join(dir, "cache"), "--config", dir)
	for path, want := range map[string]bool{at: true, filepath.Join(at, "README"): false} {
		buf := make([]byte, 64<<10)
		n, err := unix.Listxattr(path, buf)
		if got := strings.Contains(string(buf[:max(n, 0)]), "user.logbuffer\x00"); err != nil || got != want {
			t.Errorf("magic attributes of %s are listed: %v, %v", path, got, err)
		}
	}
	messages, err := end()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("no more than %d files can be open in this mount, CVMFS_NFILES wants 1073741824", limit.Max); !strings.Contains(messages, want) {
		t.Errorf("messages %q, want among them %q", messages, want)
	}
}

// What a map cannot be is said before anything is mounted.
func TestRepoMountRefuses(t *testing.T) {
	repo, key := smallRepo(t)
	ids := filepath.Join(t.TempDir(), "ids")
	if err := os.WriteFile(ids, []byte("0 root\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := repoCommand(t, newRepoMount, repo, t.TempDir(), "--foreground", "--key", key, "--cache", t.TempDir(), "--gid-map", ids)
	if !fail.Is(err, fail.Usage) || !strings.Contains(err.Error(), ids+":1") {
		t.Errorf("a map with a name: %v, want a wrong usage that names the line", err)
	}
}

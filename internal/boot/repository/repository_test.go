package repository_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/boot/repository"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

const (
	small    = "small.peer.example"
	smallRev = "e07c3fe44f0b69bb9d3d9f7a49a2f8af156c240a-shake128"
)

// The test binary is the guest binary: Start runs it again as the child.
func TestMain(m *testing.M) {
	if os.Args[0] == repository.Argv0 {
		os.Exit(repository.Serve())
	}
	os.Exit(m.Run())
}

func unpack(t testing.TB) string {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "cvmfs", "testdata", "small", "repo.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		if err == nil {
			err = os.WriteFile(name, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// stand is a server and a disk with a cache, as a machine has them.
type stand struct {
	config repository.Config
	files  string // what the server has, and the keys
	disk   string // a tmpfs of its own, below a private mount
	server *httptest.Server
	up     atomic.Bool
}

func newStand(t *testing.T) *stand {
	t.Helper()
	tier.Root(t)
	files := unpack(t)
	key, err := os.ReadFile(filepath.Join(files, "keys", small+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{files: files}
	s.up.Store(true)
	handler := http.StripPrefix("/cvmfs/"+small, http.FileServer(http.Dir(filepath.Join(files, small))))
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.up.Load() {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)

	base := t.TempDir()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(unix.Mount(base, base, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(base, unix.MNT_DETACH) })
	do(unix.Mount("", base, "", unix.MS_PRIVATE, ""))
	for _, d := range []string{"rw", "ro"} {
		do(os.Mkdir(filepath.Join(base, d), 0o755))
	}
	s.disk = filepath.Join(base, "rw")
	do(unix.Mount("tmpfs", s.disk, "tmpfs", 0, "size=64m"))
	s.config = repository.Config{
		Name: small, Servers: []string{s.server.URL + "/cvmfs/" + small}, Keys: []string{string(key)},
		CacheDir: filepath.Join(s.disk, "cache", small), Mountpoint: filepath.Join(base, "ro"), Tag: "rev3",
		Progress: func(line string) { t.Log("progress:", line) },
	}
	return s
}

func (s *stand) start(t *testing.T) repository.Ready {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ready, err := repository.Start(t.Context(), exe, s.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(s.config.Mountpoint, unix.MNT_DETACH)
		if !ends(ready.PID) {
			t.Error("the process goes on after the unmount")
			_ = syscall.Kill(ready.PID, syscall.SIGKILL)
		}
	})
	return ready
}

// ends waits until a child is gone, and collects it.
func ends(pid int) bool {
	for range 100 {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if got == pid || errors.Is(err, syscall.ECHILD) {
			return true
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

func (s *stand) read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(s.config.Mountpoint + path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestServes(t *testing.T) {
	s := newStand(t)
	ready := s.start(t)
	if ready.RootHash != smallRev || ready.Tag != "rev3" || ready.Revision != 3 {
		t.Errorf("Ready = %+v", ready)
	}
	if got := s.read(t, "/README"); got == "" {
		t.Error("README is empty")
	}
	status, err := repository.ReadStatus(t.Context(), s.config.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	if status.RootHash != smallRev || status.Objects < 4 || status.Bytes == 0 || status.PeakMemory < 1<<20 || status.PeakMemory > 200<<20 {
		t.Errorf("Status = %+v", status)
	}
	for _, test := range [][2]string{
		{"pid", fmt.Sprint(ready.PID)},
		{"revision", "3"},
		{"mountpoint", s.config.Mountpoint},
		{"nameserver set 192.0.2.1", "OK"},
		{"nameserver get", "DNS server address: 192.0.2.1"},
		{"nameserver set x", "Failed"},
		{"pin /README", "OK"},
		{"pin /nonesuch", "No such regular file or pinning failed"},
		{"pin /big/chunked", "OK"},
		{"version patchlevel", "0"},
		{"detach nested catalogs", "OK"},
		{"cleanup 100", "OK"},
		{"proxy info", "Load-balance groups:\n[0] DIRECT\nActive proxy: [0] DIRECT"},
		{"host info", "  [0] " + s.config.Servers[0] + " (unprobed)\nActive host 0: " + s.config.Servers[0]},
		{"sing", "unknown command"},
	} {
		if got, err := repository.Talk(t.Context(), s.config.CacheDir, test[0]); err != nil || got != test[1] {
			t.Errorf("Talk(%q) = %q, %v, want %q", test[0], got, err, test[1])
		}
	}
	// A shutdown's signals do not end it, SIGUSR1 does.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", ready.PID))
	if err != nil || !strings.HasPrefix(string(cmdline), "@") {
		t.Errorf("its name is %q, %v", cmdline, err)
	}
	if adj, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", ready.PID)); err != nil || strings.TrimSpace(string(adj)) != "-1000" {
		t.Logf("oom_score_adj = %q, %v (takes a capability that a container may lack)", adj, err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPWR} {
		if err := syscall.Kill(ready.PID, sig); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	if _, err := os.ReadDir(s.config.Mountpoint + "/nested"); err != nil {
		t.Errorf("after the signals of a shutdown: %v", err)
	}
	if err := syscall.Kill(ready.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if !ends(ready.PID) {
		t.Error("SIGUSR1 did not end it")
	}
}

// The disk moves under the process and the names it had are gone, as at the
// switch of root; then the machine shuts down.
func TestOutlivesItsNames(t *testing.T) {
	s := newStand(t)
	s.start(t)
	elsewhere := filepath.Join(filepath.Dir(s.disk), "moved")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(s.disk, elsewhere, "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(elsewhere, unix.MNT_DETACH) })
	if err := os.Remove(s.disk); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(elsewhere, "cache", small)
	count := 0
	walk := func(dir string) error {
		return filepath.WalkDir(s.config.Mountpoint+dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Type().IsRegular() {
				_, err = os.ReadFile(p)
				count++
			}
			return err
		})
	}
	if err := walk(""); err != nil { // every catalogue and every object, by new names
		t.Error(err)
	}
	if count < 170 {
		t.Errorf("%d files read, want 178", count)
	}
	if err := repository.TearDown(t.Context(), cache); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", elsewhere, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Errorf("remounting the disk read-only: %v", err)
	}
	if err := walk(""); err != nil {
		t.Errorf("after the tear-down: %v", err)
	}
	if status, err := repository.ReadStatus(t.Context(), cache); err != nil || status.Revision != 3 {
		t.Errorf("ReadStatus = %+v, %v", status, err)
	}
}

func TestWaitsForServer(t *testing.T) {
	s := newStand(t)
	s.up.Store(false)
	var told atomic.Int32
	s.config.Progress = func(line string) {
		t.Log("progress:", line)
		if !strings.Contains(line, "503") {
			t.Errorf("the reason is not told: %q", line)
		}
		if told.Add(1) == 2 {
			s.up.Store(true)
		}
	}
	s.start(t)
	if told.Load() < 2 {
		t.Errorf("%d attempts told, want 2", told.Load())
	}
}

func TestGivesUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + l.Addr().String() + "/cvmfs/" + small
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*repository.Config)
		class  fail.Class
		says   string
	}{
		"no server":     {func(c *repository.Config) { c.Servers = []string{dead} }, fail.TimedOut, "connection refused"},
		"wrong key":     {func(c *repository.Config) { c.Keys = []string{otherKey} }, fail.Unverified, "signature"},
		"no such tag":   {func(c *repository.Config) { c.Tag = "nonesuch" }, fail.NotFound, "nonesuch"},
		"expired":       {func(c *repository.Config) { c.ClockFloor = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC) }, fail.Unverified, "expired"},
		"bad key":       {func(c *repository.Config) { c.Keys = []string{"none"} }, fail.Usage, "master key"},
		"no mountpoint": {func(c *repository.Config) { c.Mountpoint += "/x" }, fail.HostLacks, "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t)
			test.change(&s.config)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := repository.Start(ctx, exe, s.config)
			if fail.ClassOf(err) != test.class || !strings.Contains(err.Error(), test.says) || len(fail.Hints(err)) == 0 {
				t.Errorf("Start: error %v (class %d, hints %q), want class %d, with %q", err, fail.ClassOf(err), fail.Hints(err), test.class, test.says)
			}
		})
	}
}

const otherKey = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAukBusmYyFW8KJxVMmeCj
N7vcU1mERMpDhPTa5PgFROSViiwbUsbtpP9CvfxB/KU1gggdbtWOTZVTQqA3b+p8
g5Vve3/rdnN5ZEquxeEfIG6iEZta9Zei5mZMeuK+DPdyjtvN1wP0982ppbZzKRBu
BbzR4YdrwwWXXNZH65zZuUISDJB4my4XRoVclrN5aGVz4PjmIZFlOJ+ytKsMlegW
SNDwZO9z/YtBFil/Ca8FJhRPFMKdvxK+ezgq+OQWAerVNX7fArMC+4Ya5pF3ASr6
3mlvIsBpejCUBygV4N2pxIcPJu/ZDaikmVvdPTNOTZlIFMf4zIP/YHegQSJmOyVp
HQIDAQAB
-----END PUBLIC KEY-----
`

package mount_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/tier"
)

// workshop is a repository that can be published to, served and mounted.
type workshop struct {
	t       *testing.T
	source  string
	storage string
	keys    string
	tag     string                            // mounts show it, and not the newest revision
	hold    atomic.Pointer[func(path string)] // called for each request
	server  *httptest.Server
}

const shop = "shop.example.org"

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	tier.Root(t)
	dir := t.TempDir()
	w := &workshop{t: t, source: filepath.Join(dir, "source"), storage: filepath.Join(dir, "storage"), keys: filepath.Join(dir, "keys")}
	if err := os.Mkdir(w.source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := publish.Create(t.Context(), publish.CreateOptions{Storage: w.storage, Name: shop, Keys: w.keys}); err != nil {
		t.Fatal(err)
	}
	files := http.FileServer(http.Dir(w.storage))
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if hold := w.hold.Load(); hold != nil {
			(*hold)(r.URL.Path)
		}
		files.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.server.Close)
	return w
}

func (w *workshop) write(name, text string) {
	w.t.Helper()
	file := filepath.Join(w.source, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workshop) publish() {
	w.t.Helper()
	if _, err := publish.Publish(w.t.Context(), publish.Options{Source: w.source, Storage: w.storage, Name: shop, Keys: w.keys}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workshop) mount(opt mount.Options) (string, *client.Repository) {
	w.t.Helper()
	pem, err := os.ReadFile(filepath.Join(w.keys, shop+".pub"))
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		w.t.Fatal(err)
	}
	opt.Log = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	r, err := client.Open(w.t.Context(), client.Options{
		Name: shop, Servers: []string{w.server.URL + "/" + shop}, MasterKeys: keys, CacheDir: filepath.Join(w.t.TempDir(), "cache"), Log: opt.Log,
		Pin: client.Pin{Tag: w.tag},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	at := w.t.TempDir()
	s, err := mount.Mount(w.t.Context(), r, at, opt)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			w.t.Error(err)
		}
		if err := r.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return at, r
}

// A new revision changes content and types below unchanged names; who has a file
// open goes on reading what he opened.
func TestNewRevision(t *testing.T) {
	w := newWorkshop(t)
	w.write("same", "stays")
	w.write("file", "old content")
	w.write("kind", "a file")
	w.publish()
	at, r := w.mount(mount.Options{KernelTimeout: 50 * time.Millisecond})
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(at, name))
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	inode := func(name string) uint64 {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(at, name), &st); err != nil {
			t.Error(err)
		}
		return st.Ino
	}
	if read("file") != "old content" || read("kind") != "a file" {
		t.Fatal("the first revision is not shown")
	}
	same := inode("same")
	held, err := os.Open(filepath.Join(at, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	w.write("file", "new content, and longer")
	if err := os.Remove(filepath.Join(w.source, "kind")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.source, "kind"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("kind/inside", "a file in a directory")
	w.publish()
	if changed, err := r.Refresh(t.Context()); !changed || err != nil {
		t.Fatalf("Refresh = %v, %v", changed, err)
	}
	time.Sleep(200 * time.Millisecond) // the kernel forgets
	if got := read("file"); got != "new content, and longer" {
		t.Errorf("file = %q", got)
	}
	if got := read("kind/inside"); got != "a file in a directory" {
		t.Errorf("kind/inside = %q", got)
	}
	if got := inode("same"); got != same {
		t.Errorf("inode of an unchanged file %d, was %d", got, same)
	}
	buf := make([]byte, 11)
	if _, err := held.ReadAt(buf, 0); err != nil || string(buf) != "old content" {
		t.Errorf("a file opened before: %q, %v", buf, err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	if got := read("file"); got != "new content, and longer" {
		t.Errorf("file, with nobody left who reads the old one, = %q", got)
	}
}

// holdBack has the server wait: each request is told of in asked, and goes on when
// release is closed.
func (w *workshop) holdBack() (asked <-chan struct{}, release chan<- struct{}) {
	requests, gate := make(chan struct{}, 8), make(chan struct{})
	hold := func(string) {
		requests <- struct{}{}
		<-gate
	}
	w.hold.Store(&hold)
	return requests, gate
}

// Interrupting one reader leaves the download to the other.
func TestInterrupt(t *testing.T) {
	w := newWorkshop(t)
	w.write("slow", "worth waiting for")
	w.publish()
	at, _ := w.mount(mount.Options{AllowOther: true})
	asked, release := w.holdBack()
	start := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "cat", filepath.Join(at, "slow"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	impatient := start()
	<-asked
	var out []byte
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, err = exec.CommandContext(t.Context(), "cat", filepath.Join(at, "slow")).Output()
	}()
	time.Sleep(100 * time.Millisecond)
	if err := impatient.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		_ = impatient.Wait()
	}()
	select {
	case <-dead:
	case <-time.After(5 * time.Second):
		t.Error("a killed reader hangs")
	}
	close(release)
	<-done
	if err != nil || string(out) != "worth waiting for" {
		t.Errorf("the other reader: %q, %v", out, err)
	}
	if len(asked) != 0 {
		t.Errorf("%d more downloads, want one for both", len(asked))
	}
}

// A signal that a program handles is none of its file's business: an open that
// waits for the network goes on.
func TestSignalDoesNotInterrupt(t *testing.T) {
	w := newWorkshop(t)
	w.write("slow", "worth waiting for")
	w.publish()
	at, _ := w.mount(mount.Options{AllowOther: true})
	asked, release := w.holdBack()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap : USR1; exec 3<"$1" && cat <&3`, "sh", filepath.Join(at, "slow"))
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	for range 3 {
		if err := cmd.Process.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	close(release)
	if err := cmd.Wait(); err != nil || out.String() != "worth waiting for" {
		t.Errorf("read = %q, %v", out.String(), err)
	}
}

// A server that is away is an error in bounded time, and is forgotten when it is
// back.
func TestServerAway(t *testing.T) {
	w := newWorkshop(t)
	w.write("file", "content")
	w.publish()
	at, _ := w.mount(mount.Options{})
	fault := func(string) { panic(http.ErrAbortHandler) }
	w.hold.Store(&fault)
	if _, err := os.ReadFile(filepath.Join(at, "file")); err == nil {
		t.Error("read without a server")
	} else if !isErrno(err, unix.EIO) {
		t.Errorf("read without a server: %v, want %v", err, unix.EIO)
	}
	w.hold.Store(nil)
	if data, err := os.ReadFile(filepath.Join(at, "file")); err != nil || string(data) != "content" {
		t.Errorf("once the server is back: %q, %v", data, err)
	}
}

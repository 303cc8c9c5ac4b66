package talk_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/talk"
)

// within fails the test instead of letting it hang.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s takes for ever", what)
	}
}

// ask sends a command and does not wait for ever for the reply.
func ask(t *testing.T, socket, command string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return talk.Send(ctx, socket, command)
}

// serve makes a socket whose answers are known, until the test ends.
func serve(t *testing.T, dir, name string, answer func(context.Context, string) string) *talk.Listener {
	t.Helper()
	l, err := talk.Listen(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() { l.Serve(ctx, slog.New(slog.DiscardHandler), answer) })
	t.Cleanup(func() {
		end()
		_ = l.Close()
		within(t, "the end of Serve", served.Wait)
	})
	return l
}

func echo(_ context.Context, line string) string { return "heard " + line }

// The commands of a mount, over its socket.
func TestCommands(t *testing.T) {
	repo := cvmfstest.Small(t)
	keys, err := cvmfs.ParsePublicKeys(repo.Key(t, "pub"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	one, two := "file://"+filepath.Join(dir, "nonesuch"), "file://"+repo.Dir
	r, err := client.Open(t.Context(), client.Options{
		Name: cvmfstest.Name, Servers: []string{two, one}, MasterKeys: keys, CacheDir: dir, Proxies: "DIRECT;http://proxy.invalid:3128",
		Quota: 100 << 20, Backoff: 1, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	c := talk.Commands{Repository: r, Mountpoint: "/mnt", Parameters: "CVMFS_X=y    # from file:1\n", Log: log}
	serve(t, dir, cvmfstest.Name, c.Answer)
	hosts := func(active int) string {
		return fmt.Sprintf("  [0] %s (unprobed)\n  [1] %s (unprobed)\nActive host %d: %s", two, one, active, []string{two, one}[active])
	}
	proxies := func(active string) string {
		return "Load-balance groups:\n[0] DIRECT\n[1] http://proxy.invalid:3128\nActive proxy: " + active
	}
	for _, test := range [][2]string{
		{"version", "2.12.0.0 (CernVM-FS Fuse Module)\n2.12.0.0 (Loader)"},
		{"version patchlevel", "0"},
		{"revision", "3"},
		{"revision\x00junk", "3"},
		{"revision\n", "3"},
		{"pid", fmt.Sprint(os.Getpid())},
		{"mountpoint", "/mnt"},
		{"parameters", "CVMFS_X=y    # from file:1"},
		{"remount", "Catalog up to date"},
		{"remount sync", "Catalog up to date"},
		{"max ttl info", "unset"},
		{"host info", hosts(0)},
		{"host switch", "OK"},
		{"host info", hosts(1)},
		{"host switch", "OK"},
		{"host info", hosts(0)},
		{"host probe geo", "Failed"}, // of files nobody says where they are
		{"external host info", "No hosts defined"},
		{"external host switch", "OK"},
		{"external host set http://e.invalid/x;http://f.invalid", "OK"},
		{"external host switch", "OK"},
		{"external host info", "  [0] http://e.invalid/x (unprobed)\n  [1] http://f.invalid (unprobed)\nActive host 1: http://f.invalid"},
		{"external host set", "Usage: external host set <URL>"},
		{"external host set gopher://x", "Failed"},
		{"external proxy info", "Load-balance groups:\n[0] DIRECT\nActive proxy: [0] DIRECT"},
		{"external proxy set 192.0.2.7:80", "OK"},
		{"external proxy info", "Load-balance groups:\n[0] http://192.0.2.7:80\nActive proxy: [0] http://192.0.2.7:80"},
		{"proxy info", proxies("[0] DIRECT")},
		{"proxy group switch", "OK"},
		{"proxy info", proxies("[1] http://proxy.invalid:3128")},
		{"proxy group switch", "OK"},
		{"proxy info", proxies("[0] DIRECT")},
		{"timeout info", "Timeout with proxy: 5s\nTimeout without proxy: 10s"},
		{"timeout set", "Usage: timeout set <proxy> <direct>"},
		{"timeout set 3", "Usage: timeout set <proxy> <direct>"},
		{"timeout set 3 0", "Failed"},
		{"timeout set 3 7", "OK"},
		{"timeout info", "Timeout with proxy: 3s\nTimeout without proxy: 7s"},
		{"max ttl set", "Usage: max ttl set <minutes>"},
		{"max ttl set x", "Failed"},
		{"max ttl set 4", "OK"},
		{"max ttl info", "4 minutes"},
		{"max ttl set 0", "OK"},
		{"max ttl info", "unset"},
		{"cache instance", "Posix cache manager (cache directory: " + dir + ")"},
		{"cache limit get", "100"},
		{"cache limit set 999", "New limit too low (minimum 1000)"},
		{"cache limit set 1234", "OK"},
		{"cache limit get", "1234"},
		{"cleanup rate", "Usage: cleanup rate <period in mn>"},
		{"cleanup rate 60", "0"},
		{"pid cachemgr", fmt.Sprint(os.Getpid())},
		{"chroot", "Usage: chroot <hash>"},
		{"chroot x", "Failed"},
		{"cleanup", "Usage: cleanup <MB>"},
		{"cleanup x", "Failed"},
		{"cleanup 50", "OK"},
		{"pin", "Usage: pin <path>"},
		{"pin /README", "OK"},
		{"pin /nonesuch", "No such regular file or pinning failed"},
		{"evict", "Usage: evict <path>"},
		{"evict /big/chunked", "OK"},
		{"evict /nested", "No such regular file"},
		{"evict /nonesuch", "No such regular file"},
		{"detach nested catalogs", "OK"},
		{"nameserver get", "DNS server not set."},
		{"nameserver set 192.0.2.1", "OK"},
		{"nameserver set x", "Failed"},
		{"nameserver get", "DNS server address: 192.0.2.1"},
		{"evicted", talk.Unknown},
		{"evict ", "Usage: evict <path>"},
		{"pid 1", talk.Unknown},
		{"pid ", talk.Unknown},
		{" ", talk.Unknown},
		{"sing", talk.Unknown},
	} {
		got, err := ask(t, talk.Socket(dir, cvmfstest.Name), test[0])
		if err != nil || got != test[1] {
			t.Errorf("%q: %q, %v, want %q", test[0], got, err, test[1])
		}
	}
}

// openSmall opens a small repository with a cache of its own.
func openSmall(t *testing.T, change func(*client.Options)) *client.Repository {
	t.Helper()
	repo := cvmfstest.Small(t)
	keys, err := cvmfs.ParsePublicKeys(repo.Key(t, "pub"))
	if err != nil {
		t.Fatal(err)
	}
	opt := client.Options{
		Name: cvmfstest.Name, Servers: []string{"file://" + repo.Dir}, MasterKeys: keys, CacheDir: t.TempDir(), Backoff: 1,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&opt)
	}
	r, err := client.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// What is pinned is counted.
func TestPinnedBytes(t *testing.T) {
	r := openSmall(t, nil)
	c := talk.Commands{Repository: r, Log: slog.New(slog.DiscardHandler)}
	pinned := func() (n int64) {
		reply := c.Answer(t.Context(), "cache size")
		_, rest, _ := strings.Cut(reply, "pinned: 0MB (")
		if _, err := fmt.Sscanf(rest, "%d Bytes)", &n); err != nil {
			t.Fatalf("%q: %v", reply, err)
		}
		return n
	}
	before := pinned()
	if reply := c.Answer(t.Context(), "pin /README"); reply != "OK" {
		t.Fatal(reply)
	}
	if after := pinned(); after <= before {
		t.Errorf("pinned are %d bytes, and %d after one more file", before, after)
	}
}

// What is evicted is no longer in the cache and comes again.
func TestEvict(t *testing.T) {
	r := openSmall(t, nil)
	c := talk.Commands{Repository: r, Log: slog.New(slog.DiscardHandler)}
	fetched := func() int64 {
		before := r.Stats().Objects
		if reply := c.Answer(t.Context(), "pin /big/chunked"); reply != "OK" {
			t.Fatal(reply)
		}
		return r.Stats().Objects - before
	}
	first := fetched()
	if again := fetched(); first == 0 || again != 0 {
		t.Fatalf("%d objects at first, %d of them again", first, again)
	}
	if reply := c.Answer(t.Context(), "evict /big/chunked"); reply != "OK" {
		t.Fatal(reply)
	}
	if again := fetched(); again != first {
		t.Errorf("%d objects after the eviction, want %d", again, first)
	}
}

// A socket that nobody answers is replaced, one that is answered is not, and each
// repository has its own.
func TestListen(t *testing.T) {
	dir := t.TempDir()
	file := talk.Socket(dir, "a.example.org")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: file, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l := serve(t, dir, "a.example.org", echo)
	if info, err := os.Stat(file); err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if _, err := talk.Listen(dir, "a.example.org"); !errors.Is(err, talk.ErrInUse) {
		t.Errorf("a second one: %v, want %v", err, talk.ErrInUse)
	}
	serve(t, dir, "b.example.org", func(context.Context, string) string { return "b" })
	for name, want := range map[string]string{"a.example.org": "heard x", "b.example.org": "b"} {
		if got, err := ask(t, talk.Socket(dir, name), "x"); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	list, err := talk.Sockets(dir)
	if err != nil || len(list) != 1 || list[0] != talk.Socket(dir, "b.example.org") {
		t.Errorf("left are %q, %v", list, err)
	}
	if _, err := ask(t, file, strings.Repeat("x", 512)); err == nil || !strings.Contains(err.Error(), "511") {
		t.Errorf("a long command: %v", err)
	}
}

// The sockets of several mounts of one repository lie beside each other, each as
// long as its mount, and none takes another's place.
func TestListenBeside(t *testing.T) {
	const name = "a.example.org"
	dir := t.TempDir()
	beside := func(answer string) (end func()) {
		t.Helper()
		l, err := talk.ListenBeside(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		var served sync.WaitGroup
		served.Go(func() {
			l.Serve(t.Context(), slog.New(slog.DiscardHandler), func(context.Context, string) string { return answer })
		})
		return func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			within(t, "the end of Serve", served.Wait)
		}
	}
	check := func(want ...string) {
		t.Helper()
		sockets, err := talk.SocketsOf(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range sockets {
			reply, err := ask(t, s, "x")
			if err != nil {
				t.Error(err)
			}
			got = append(got, reply)
			if of := talk.RepositoryOf(s); of != name {
				t.Errorf("%s is of %q", s, of)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the sockets are of %q, want %q", got, want)
		}
	}
	serve(t, dir, "b.example.org", echo)
	endFirst := beside("first")
	endSecond := beside("second")
	check("first", "second")
	if _, err := talk.Listen(dir, name); !errors.Is(err, talk.ErrInUse) {
		t.Errorf("one that must be alone: %v, want %v", err, talk.ErrInUse)
	}
	endThird := beside("third")
	endFirst()
	check("second", "third")
	endFourth := beside("fourth")
	check("fourth", "second", "third")
	endSecond()
	endThird()
	endFourth()
	check()
}

// The address of a socket is short, names of directories are not.
func TestLongName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, "a.example.org", echo)
	if got, err := ask(t, talk.Socket(dir, "a.example.org"), "x"); err != nil || got != "heard x" {
		t.Errorf("%q, %v", got, err)
	}
}

package objectcache

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onDiskIn adds up the objects of a cache that nobody changes meanwhile.
func onDiskIn(t testing.TB, dir string) (total int64) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range list {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		total += onDisk(info.Size())
	}
	return total
}

// start runs a test of this binary in a process of its own and waits for the line
// that it begins with.
func start(t *testing.T, test, line string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len(line))); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// Two processes that store as fast as they can have one quota together: never is
// there more than that, the part of it behind which they wait, what they have not
// told each other, and the objects they are storing. This holds after one is
// killed, and another begins.
func TestTwoProcessesOneQuota(t *testing.T) {
	const quota = 4 << 20
	if dir := os.Getenv("OBJECTCACHE_QUOTA"); dir != "" {
		first, err := strconv.Atoi(os.Getenv("OBJECTCACHE_FIRST"))
		if err != nil {
			t.Fatal(err)
		}
		c := openCache(t, dir, Options{Quota: quota})
		fmt.Println("writing")
		for i := first; ; i++ {
			put(t, c, i)
		}
	}
	dir := t.TempDir()
	var running [2]*exec.Cmd
	begin := func(i, first int) {
		running[i] = start(t, "TestTwoProcessesOneQuota", "writing\n", "OBJECTCACHE_QUOTA="+dir, "OBJECTCACHE_FIRST="+strconv.Itoa(first))
	}
	signal := func(s unix.Signal) {
		for _, cmd := range running {
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
		for _, cmd := range running { // a stop takes effect a moment later
			for s == unix.SIGSTOP && !stopped(t, cmd.Process.Pid) {
				time.Sleep(time.Millisecond)
			}
		}
	}
	begin(0, 0)
	begin(1, 1_000_000)
	largest := onDisk(int64(5000 * len("object 2000000\n")))
	bound := quota + quota/hardLimitOf + 3*quota/shareOf + 2*largest // the third share is of the one that is killed
	var most, least int64 = 0, 1 << 60
	for look := range 60 {
		time.Sleep(20 * time.Millisecond)
		signal(unix.SIGSTOP)
		if now := onDiskIn(t, dir); true {
			most = max(most, now)
			if most > quota { // it has been full
				least = min(least, now)
			}
		}
		signal(unix.SIGCONT)
		if look == 30 {
			if err := running[1].Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = running[1].Wait() // killed, as was wanted
			begin(1, 2_000_000)
		}
	}
	for _, cmd := range running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Logf("between %d and %d bytes, quota %d, bound %d", least, most, quota, bound)
	if most > bound || most < quota/4*keepFour {
		t.Errorf("%d bytes at the most, want the quota %d to be reached, and at most %d", most, quota, bound)
	}
	if least < quota/2 {
		t.Errorf("only %d bytes were left by an eviction: they were two", least)
	}
	c := openCache(t, dir, Options{Quota: quota})
	defer c.Close()
	c.count(t.Context())
	if used, _ := c.Usage(); used != onDiskIn(t, dir) {
		t.Errorf("Usage = %d, want %d", used, onDiskIn(t, dir))
	}
}

func stopped(t testing.TB, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "T")
}

// What one cache stores the other knows, as soon as it is worth telling; and
// whatever becomes of the file, it is put right by the next count.
func TestSharedUsage(t *testing.T) {
	dir := t.TempDir()
	a, b := openCache(t, dir, Options{Quota: 100 << 20}), openCache(t, dir, Options{})
	defer a.Close()
	defer b.Close()
	for i := range 200 {
		put(t, a, i)
	}
	want := onDiskIn(t, dir)
	if used, _ := b.Usage(); used < want-a.tally.share() || used > want {
		t.Errorf("the other has %d bytes in sight, want %d but for at most %d", used, want, a.tally.share())
	}
	file := filepath.Join(dir, usageFile)
	for what, damage := range map[string]func() error{
		"removed":  func() error { return os.Remove(file) },
		"emptied":  func() error { return os.Truncate(file, 0) },
		"text":     func() error { return os.WriteFile(file, []byte("lots\n"), 0o600) },
		"too much": func() error { return os.WriteFile(file, []byte(strings.Repeat("9", usageDigits)+"\n"), 0o600) },
		"longer":   func() error { return os.WriteFile(file, bytes.Repeat([]byte("0"), 100), 0o600) },
		"a lie":    func() error { return os.WriteFile(file, fmt.Appendf(nil, "%0*d\n", usageDigits, 7), 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		a.count(t.Context())
		for name, c := range map[string]*Cache{"who counted": a, "the other": b} {
			if used, _ := c.Usage(); used != want {
				t.Errorf("%s: %s has %d bytes in sight, want %d", what, name, used, want)
			}
		}
	}
}

// A process that was stopped while it evicts does not stop the others for ever.
func TestStoppedEvictor(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, Options{})
	defer c.Close()
	for i := range 20 {
		put(t, c, i)
	}
	f, err := os.Open(filepath.Join(dir, evictLock))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := c.Evict(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < evictWait || took > 2*evictWait {
		t.Errorf("it took %v, want a little more than %v", took, evictWait)
	}
	if left := onDiskIn(t, dir); left != 0 {
		t.Errorf("%d bytes are left", left)
	}
}

func FuzzUsage(f *testing.F) {
	f.Add([]byte("00000000000000012345\n"))
	f.Add([]byte("99999999999999999999\n"))
	f.Add([]byte("-0000000000000000001\n"))
	f.Add([]byte("5\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := parseUsage(data); err == nil && (n < 0 || fmt.Sprintf("%0*d\n", usageDigits, n) != string(data)) {
			t.Errorf("parseUsage(%q) = %d", data, n)
		}
	})
}

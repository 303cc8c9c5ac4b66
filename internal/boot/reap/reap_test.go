package reap

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	for _, tc := range []struct {
		text   string
		state  byte
		parent int
		ok     bool
	}{
		{"12 (sh) S 1 12 12 0", 'S', 1, true},
		{"12 (a) Z 9 (b) Z 7 0 0", 'Z', 7, true}, // a name that imitates the fields
		{"12 (sh", 0, 0, false},
		{"12 (sh) S", 0, 0, false},
		{"12 (sh) S x", 'S', 0, false},
		{"", 0, 0, false},
	} {
		state, parent, ok := parseStat([]byte(tc.text))
		if state != tc.state || parent != tc.parent || ok != tc.ok {
			t.Errorf("parseStat(%q) = %c, %d, %v; want %c, %d, %v", tc.text, state, parent, ok, tc.state, tc.parent, tc.ok)
		}
	}
}

// TestOrphanAndOwnChild makes this process a subreaper, so that an orphan really
// becomes its child, and checks that os/exec still gets its own.
func TestOrphanAndOwnChild(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	out, err := exec.Command("sh", "-c", "sleep 0 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	own := exec.Command("sh", "-c", "exit 7")
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		list := Zombies("/proc", os.Getpid())
		return contains(list, orphan) && contains(list, own.Process.Pid)
	})
	clock := time.Now()
	r := New()
	r.now = func() time.Time { return clock }
	if got := r.Pass(); len(got) != 0 {
		t.Errorf("first Pass collected %v, want none", got)
	}
	if err := own.Wait(); own.ProcessState.ExitCode() != 7 {
		t.Errorf("Wait = %v, want exit code 7", err)
	}
	clock = clock.Add(Grace + time.Second)
	if got := r.Pass(); !contains(got, orphan) {
		t.Errorf("Pass after the grace collected %v, want %d among them", got, orphan)
	}
	if contains(Zombies("/proc", os.Getpid()), orphan) {
		t.Error("the orphan is still there")
	}
}

func contains(list []int, pid int) bool {
	for _, p := range list {
		if p == pid {
			return true
		}
	}
	return false
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited 5 s in vain")
}

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/tier"
)

// A mount is asked by its name, its mountpoint and its cache; a second one of the
// same cache is asked by its mountpoint, and by the name when the first has ended.
func TestRepoTalk(t *testing.T) {
	tier.Root(t)
	repo, key := smallRepo(t)
	name, dir := filepath.Base(repo), t.TempDir()
	cache := filepath.Join(dir, "cache")
	mounted := func(at string) (end func()) {
		t.Helper()
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		stop := mountCommand(t, repo, at, "--count-opens", "--key", key, "--cache", cache, "--config", dir)
		return func() {
			if _, err := stop(); err != nil {
				t.Error(err)
			}
		}
	}
	ask := func(of string, command ...string) (string, error) {
		return repoCommand(t, newRepoTalk, append(append([]string{of}, command...), "--cache", cache)...)
	}
	at := filepath.Join(dir, "one")
	end := mounted(at)
	for { // the mount stands before its socket does
		if _, err := ask(name, "pid"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	other := filepath.Join(dir, "two")
	endOther := mounted(other)
	for {
		if _, err := ask(other, "pid"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for of, want := range map[string]string{name: at, at: at, cache: at, other: other} {
		if got, err := ask(of, "mountpoint"); err != nil || strings.TrimSpace(got) != want {
			t.Errorf("mountpoint of %s: %q, %v, want %q", of, got, err, want)
		}
	}
	if _, err := repoCommand(t, newRepoTalk, other, "pid", "--cache", t.TempDir()); !fail.Is(err, fail.NotFound) {
		t.Errorf("a mount with another cache: %v", err)
	}
	if _, err := os.ReadFile(filepath.Join(at, "README")); err != nil {
		t.Error(err)
	}
	affairs, err := ask(name, "internal", "affairs")
	if err != nil || !strings.Contains(affairs, "\ncvmfs.n_fs_open|1|") || strings.Contains(affairs, "fetch.n_downloads|0|") {
		t.Errorf("internal affairs: %v\n%s", err, affairs)
	}
	// Nobody has asked for times to be taken, so that there are none.
	times, err := ask(name, "latency")
	rows := strings.Split(strings.TrimSpace(times), "\n")
	if err != nil || len(rows) != 11 || !strings.HasPrefix(rows[0], `"repository","action","total_count","time_unit",0.10000,`) ||
		rows[1] != `"`+name+`","lookup",0,"nanoseconds"`+strings.Repeat(",0", 15) {
		t.Errorf("latency: %v\n%s", err, times)
	}
	if got, err := ask(name, "reset", "error", "counters"); err != nil || got != "OK\n" {
		t.Errorf("reset error counters: %q, %v", got, err)
	}
	_, err = ask(name, "host", "set", "junk")
	if !fail.Is(err, fail.Failed) || !strings.Contains(err.Error(), `host set junk: the mount answers "Failed"`) {
		t.Errorf("what cannot be done: %v", err)
	}
	if _, err := ask(name, "sing"); !fail.Is(err, fail.Usage) {
		t.Errorf("an unknown command: %v", err)
	}
	endOther()
	if got, err := ask(name, "remount"); err != nil || got != "Catalog up to date\n" {
		t.Errorf("after the second mount ended: %q, %v", got, err)
	}
	third := filepath.Join(dir, "three")
	endThird := mounted(third)
	for {
		if _, err := ask(third, "pid"); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	end()
	if got, err := ask(name, "mountpoint"); err != nil || strings.TrimSpace(got) != third {
		t.Errorf("after the first mount ended: %q, %v, want %q", got, err, third)
	}
	endThird()
	if _, err := ask(name, "pid"); !fail.Is(err, fail.NotFound) {
		t.Errorf("after the mount ended: %v", err)
	}
}

// What is no mount is said to be none.
func TestRepoTalkRefuses(t *testing.T) {
	dir := t.TempDir()
	for of, want := range map[string]fail.Class{dir: fail.NotFound, "sw.example.org": fail.NotFound, "a b": fail.Usage} {
		if _, err := repoCommand(t, newRepoTalk, of, "pid", "--cache", dir); !fail.Is(err, want) {
			t.Errorf("%s: %v, want class %v", of, err, want)
		}
	}
}

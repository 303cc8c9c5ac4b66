package machine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "9": true, "worker-1": true, "A.b_c-d": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "-a": false, ".a": false, "_a": false, "a/b": false, "..": false,
		"a b": false, "a\n": false, "ä": false, "a,b": false,
	} {
		if err := machine.CheckName(name); (err == nil) != ok || err != nil && !fail.Is(err, fail.Usage) {
			t.Errorf("CheckName(%q) = %v, want ok %v", name, err, ok)
		}
	}
}

func TestParseMiB(t *testing.T) {
	for text, want := range map[string]int64{
		"2048": 2048, "512M": 512, "20G": 20480, "1T": 1 << 20, "4g": 4096, "3GiB": 3072,
		"": -1, "0": -1, "-1": -1, "1.5G": -1, "G": -1, "9999999999999999999": -1, "9223372036854775807T": -1, "10k": -1,
	} {
		got, err := machine.ParseMiB(text)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("ParseMiB(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestParseForward(t *testing.T) {
	for text, want := range map[string]machine.Forward{
		"8080:80": {Host: 8080, Guest: 80}, "auto:22": {Guest: 22, Auto: true}, ":443": {Guest: 443, Auto: true},
	} {
		if got, err := machine.ParseForward(text); err != nil || got != want {
			t.Errorf("ParseForward(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "80", "a:80", "80:b", "80:", "1:2:3"} {
		if got, err := machine.ParseForward(text); !fail.Is(err, fail.Usage) {
			t.Errorf("ParseForward(%q) = %v, %v; want class Usage", text, got, err)
		}
	}
}

func TestValidateForwards(t *testing.T) {
	good := machine.Spec{Name: "m", MemoryMiB: 64, CPUs: 1, DiskMiB: 64}
	for _, tc := range []struct {
		forwards []machine.Forward
		ok       bool
	}{
		{nil, true},
		{[]machine.Forward{{Guest: 22, Auto: true}, {Guest: 80, Auto: true}}, true},
		{[]machine.Forward{{Host: 80, Guest: 80}, {Host: 80, Guest: 81}}, false},
		{[]machine.Forward{{Host: 0, Guest: 80}}, false},
		{[]machine.Forward{{Host: 65536, Guest: 80}}, false},
		{[]machine.Forward{{Host: 80, Guest: 0}}, false},
	} {
		s := good
		s.Forwards = tc.forwards
		if err := s.Validate(); (err == nil) != tc.ok {
			t.Errorf("Validate of %v = %v, want ok %v", tc.forwards, err, tc.ok)
		}
	}
}

func TestCheckContext(t *testing.T) {
	for _, tc := range []struct {
		size  int
		large bool
		ok    bool
	}{{0, false, true}, {16384, false, true}, {16385, false, false}, {16385, true, true}, {4<<20 + 1, true, false}} {
		if err := machine.CheckContext(tc.size, tc.large); (err == nil) != tc.ok {
			t.Errorf("CheckContext(%d, %v) = %v, want ok %v", tc.size, tc.large, err, tc.ok)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"demo", "worker-1", "worker-2", "db"}
	for word, want := range map[string]string{"dmeo": "demo", "Demo": "demo", "wroker-2": "worker-2", "work": "worker-1", "zzz": "", "x": ""} {
		if got := machine.Nearest(word, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestFindImage(t *testing.T) {
	home := machine.Home(t.TempDir())
	none := func(string) string { return "" }
	if _, err := machine.FindImage(home, "", none); !fail.Is(err, fail.NotFound) {
		t.Errorf("FindImage without images = %v, want class NotFound", err)
	}
	if err := os.MkdirAll(home.Images(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b.iso", "a.iso", "c.txt"} {
		if err := os.WriteFile(filepath.Join(home.Images(), name), drivertest.BootISO(drivertest.Guest{}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(home.Images(), "b.iso"))
	if err != nil {
		t.Fatal(err)
	}
	newer := info.ModTime().Add(1e9)
	if err := os.Chtimes(filepath.Join(home.Images(), "a.iso"), newer, newer); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ named, env, want string }{
		{"", "", filepath.Join(home.Images(), "a.iso")},
		{"", "/env.iso", "/env.iso"},
		{"/flag.iso", "/env.iso", "/flag.iso"},
	} {
		got, err := machine.FindImage(home, tc.named, func(string) string { return tc.env })
		if err != nil || got != tc.want {
			t.Errorf("FindImage(%q, env %q) = %q, %v; want %q", tc.named, tc.env, got, err, tc.want)
		}
	}
}

package machine_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/slice"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// diskFile writes a file that may be meant as a disk.
func diskFile(t *testing.T, name string, head string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(head); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	qcow2Head  = "QFI\xfb\x00\x00\x00\x03"
	qcow2Based = "QFI\xfb\x00\x00\x00\x03\x00\x00\x00\x00\x00\x01\x00\x00"
)

func TestMoreDisks(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	for _, tc := range []struct {
		name, head string
		size       int64
		format     string
		class      fail.Class
		want       string
	}{
		{"empty.raw", "", 1 << 20, "raw", 0, ""},
		{"empty.img", "", 1 << 20, "raw", 0, ""},
		{"cloud.img", qcow2Head, 1 << 20, "qcow2", 0, ""},
		{"any.name", qcow2Head, 1 << 20, "qcow2", 0, ""},
		{"empty", "", 1 << 20, "", fail.Usage, "no disk image"},
		{"odd.raw", "", 1<<20 + 1, "", fail.Usage, "whole sectors"},
		{"short.raw", "", 100, "", fail.Unverified, "no disk"},
		{"based.qcow2", qcow2Based, 1 << 20, "", fail.Unverified, "based on another image"},
	} {
		path := diskFile(t, tc.name, tc.head, tc.size)
		o := orderOf("m", w.iso)
		o.Spec.DiskMiB, o.Spec.Disks = 1024, []machine.Disk{{MiB: 8}, {Path: path}}
		given := o.Spec.Disks
		_, err := w.Check(t.Context(), &o)
		if tc.class != 0 {
			if !fail.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Check with %s = %v, want class %v and %q", tc.name, err, tc.class, tc.want)
			}
			continue
		}
		want := []machine.Disk{{MiB: 8}, {Path: path, Format: tc.format}}
		if diff := cmp.Diff(want, o.Spec.Disks); diff != "" || err != nil {
			t.Errorf("Check with %s: %v, disks (-want +got):\n%s", tc.name, err, diff)
		}
		if given[1].Format != "" {
			t.Errorf("Check with %s changed the order of others", tc.name)
		}
	}
	for name, disks := range map[string][]machine.Disk{
		"both":     {{MiB: 8, Path: "/x"}},
		"neither":  {{}},
		"negative": {{MiB: -1}},
		"relative": {{Path: "x.raw"}},
		"twice":    {{Path: "/x.raw"}, {Path: "/x.raw"}},
		"many":     make([]machine.Disk, 17),
		"a folder": {{Path: t.TempDir()}},
		"mica's":   {{Path: filepath.Join(string(w.Home), "machines", "m", "disk.raw")}},
	} {
		o := orderOf("m", w.iso)
		o.Spec.Disks = disks
		if _, err := w.Check(t.Context(), &o); !fail.Is(err, fail.Usage) {
			t.Errorf("Check with disks %s = %v, want class Usage", name, err)
		}
	}
}

// TestUsersDisk sees that a disk of the user's outlives every machine it is in,
// and goes into no snapshot and no clone.
func TestUsersDisk(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	var said []string
	w.Say = func(text string) { said = append(said, text) }
	path := diskFile(t, "data.raw", "precious", 1<<20)
	order := func(name string) machine.Order {
		o := orderOf(name, w.iso)
		o.Off, o.Spec.DiskMiB, o.Spec.Disks = true, 1024, []machine.Disk{{Path: path}, {MiB: 8}}
		return o
	}
	if _, err := w.Create(t.Context(), order("m")); err != nil {
		t.Fatal(err)
	}
	if len(said) != 0 {
		t.Errorf("told %q, want nothing", said)
	}
	if _, err := w.Create(t.Context(), order("other")); err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], `"m"`) || !strings.Contains(said[0], path) {
		t.Errorf("told %q, want that m has the disk, too", said)
	}
	if _, err := w.Snapshot(t.Context(), "m", "s"); !fail.Is(err, fail.Usage) || !strings.Contains(err.Error(), path) {
		t.Errorf("Snapshot = %v, want class Usage and the disk", err)
	}
	if _, err := w.Clone(t.Context(), "m", "twin", nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]machine.Disk{{MiB: 8}}, w.spec("twin").Disks); diff != "" {
		t.Errorf("disks of the clone (-want +got):\n%s", diff)
	}
	for _, name := range []string{"m", "other", "twin"} {
		if err := w.Destroy(t.Context(), name, true); err != nil {
			t.Errorf("Destroy(%q): %v", name, err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || len(data) != 1<<20 || !strings.HasPrefix(string(data), "precious") {
		t.Errorf("the user's disk has %d bytes, %v; want what was in it", len(data), err)
	}
}

func TestHardware(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	for _, tc := range []struct {
		firmware, arch string
		ok             bool
	}{
		{"", "", true},
		{"uefi", "", true},
		{"bios", "", false},
		{"coreboot", "", false},
		{"uefi", "aarch64", true},
		{"", "aarch64", false},
		{"uefi", "riscv64", false},
		{"", "x86_64", false},
	} {
		s := orderOf("m", w.iso).Spec
		s.Firmware, s.Arch = tc.firmware, tc.arch
		if err := s.Validate(); (err == nil) != tc.ok || err != nil && !fail.Is(err, fail.Usage) {
			t.Errorf("Validate with firmware %q, arch %q = %v, want valid: %v", tc.firmware, tc.arch, err, tc.ok)
		}
		plain := machine.Report{Driver: "plain"}
		if err := plain.Supports(s); (err == nil) != (tc.firmware == "" && tc.arch == "") {
			t.Errorf("Supports of firmware %q, arch %q by a plain driver = %v", tc.firmware, tc.arch, err)
		}
	}
}

// TestSliceAsDisk sees that a slice of a repository is a disk that machines only
// read: it needs no name that ends in .raw and no right to write, any number of
// them may have it, and a clone gets it.
func TestSliceAsDisk(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	w.Say = func(text string) { t.Errorf("told %q, want nothing", text) }
	var tar bytes.Buffer
	p := &profile.Profile{Repository: "os.example.org", Root: cvmfs.SHA1.Sum([]byte("root")), Recorded: time.Unix(0, 0)}
	if err := slice.Write(t.Context(), &tar, p, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	path := diskFile(t, "os.slice", tar.String(), int64(tar.Len()))
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	want := []machine.Disk{{Path: path, Format: "raw", ReadOnly: true}}
	for _, name := range []string{"m", "other"} {
		o := orderOf(name, w.iso)
		o.Off, o.Spec.DiskMiB, o.Spec.Disks = true, 1024, []machine.Disk{{Path: path}}
		if _, err := w.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, w.spec(name).Disks); diff != "" {
			t.Errorf("disks of %s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := w.Clone(t.Context(), "m", "twin", nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, w.spec("twin").Disks); diff != "" {
		t.Errorf("disks of the clone (-want +got):\n%s", diff)
	}
}

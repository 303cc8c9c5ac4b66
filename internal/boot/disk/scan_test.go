package disk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/slice"
	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/boot/disk/probe"
	"github.com/micavm/mica/internal/tier"
)

func scanned(m *machine) map[string]Device {
	m.t.Helper()
	devices, err := Scan(m.t.Context(), m.roots)
	m.must(err)
	found := map[string]Device{}
	for _, d := range devices {
		name := d.Name
		if name == "" {
			name = fmt.Sprintf("%s#%d", d.Parent, d.Partition)
		}
		found[name] = d
	}
	return found
}

// TestScan describes a machine with one device of each sort.
func TestScan(t *testing.T) {
	m := newMachine(t)
	blankDisk := m.disk("sda", diskSize)
	m.disk("nvme0n1", diskSize)
	m.disk("loop0", diskSize)
	m.must(os.RemoveAll(filepath.Join(m.roots.Sys, "block/loop0/device")))
	m.disk("sr0", 10*mib)
	m.attributes(m.roots.Sys+"/block/sr0", map[string]string{"dev": "11:0"})
	m.disk("sdb", diskSize)
	m.attributes(m.roots.Sys+"/block/sdb", map[string]string{"removable": "1", "ro": "1"})
	m.disk("sdc", diskSize)
	m.attributes(m.roots.Sys+"/block/sdc/holders", map[string]string{"dm-0": ""})
	m.disk("sdd", diskSize)
	m.attributes(m.roots.Proc+"/self", map[string]string{"mountinfo": "30 1 8:112 / /mnt rw - ext4 /dev/sdd rw"})
	m.attributes(m.roots.Sys+"/block/sdd", map[string]string{"dev": "8:112"})
	m.disk("sde", diskSize)
	m.must(os.Remove(filepath.Join(m.roots.Dev, "sde")))
	m.attributes(m.roots.Sys+"/block/sde", map[string]string{"dev": "none"})

	table, err := plan(diskSize, 512, derived("", "id"), false)
	m.must(err)
	for _, w := range writes(table) {
		m.write(filepath.Join(m.roots.Dev, "nvme0n1"), w.Offset, w.Data)
	}
	m.attributes(m.roots.Sys+"/block/nvme0n1/nvme0n1p1", map[string]string{
		"partition": "1", "start": "2048", "size": fmt.Sprint(table.Entries[0].Sectors), "dev": "259:1",
	})

	got := scanned(m)
	sda := got["sda"]
	if !sda.Blank || sda.Kind != Disk || sda.Path != blankDisk || sda.Model != "Test disk" || sda.Size != diskSize {
		t.Errorf("sda = %+v", sda)
	}
	p := got["nvme0n1p1"]
	if p.Parent != "nvme0n1" || p.Partition != 1 || p.Start != mib || p.PartName != label || p.Type != rootType() || !p.Blank {
		t.Errorf("nvme0n1p1 = %+v", p)
	}
	if d := got["nvme0n1"]; d.Blank || d.Unfinished || len(d.Table.Entries) != 1 {
		t.Errorf("nvme0n1 = %+v", d)
	}
	if d := got["loop0"]; d.Kind != Virtual {
		t.Errorf("loop0 is %s", d.Kind)
	}
	if d := got["sr0"]; d.Kind != Optical {
		t.Errorf("sr0 is %s", d.Kind)
	}
	if d := got["sdb"]; !d.Removable || !d.ReadOnly {
		t.Errorf("sdb = %+v", d)
	}
	if !got["sdc"].InUse || !got["sdd"].InUse {
		t.Error("a device with a holder, or a mounted one, is not in use")
	}
	if d := got["sde"]; d.Problem == "" {
		t.Errorf("sde has no device file, and no problem: %+v", d)
	}
}

// TestScanUnlisted reads a table that the kernel does not.
func TestScanUnlisted(t *testing.T) {
	m := newMachine(t)
	path := m.disk("vda", diskSize)
	table, err := plan(diskSize, 512, derived("", "id"), false)
	m.must(err)
	list := writes(table)
	for n, w := range list {
		if got := scanned(m)["vda"]; got.Unfinished != (n > 0) {
			t.Errorf("after %d of %d writes: unfinished is %v", n, len(list), got.Unfinished)
		}
		m.write(path, w.Offset, w.Data)
	}
	got := scanned(m)
	if got["vda"].Unfinished || got["vda#1"].Size != table.Entries[0].Sectors*512 {
		t.Errorf("a whole table: %+v", got)
	}
	m.write(path, 512+60, []byte("xyz")) // no longer ours to finish
	if got := scanned(m)["vda"]; got.Unfinished {
		t.Errorf("with a foreign primary header: %+v", got)
	}
}

// TestScanBoot finds the boot disk by its sentinel.
func TestScanBoot(t *testing.T) {
	tier.Full(t)
	for _, scheme := range []gpt.Scheme{gpt.GPT, gpt.MBR} {
		m := newMachine(t)
		path := m.image("sda", scheme, diskSize)
		got := scanned(m)
		d := got["sda"]
		if !d.Boot || !got["sda#1"].Boot || !d.FreeBlank || d.Free.Start != 9*mib || d.Free.Size < diskSize-11*mib {
			t.Errorf("%s: boot %v, %v, free %+v, blank %v", scheme, d.Boot, got["sda#1"].Boot, d.Free, d.FreeBlank)
		}
		m.write(path, 500*mib, bytes.Repeat([]byte("leftovers"), mib))
		if got := scanned(m)["sda"]; got.FreeBlank {
			t.Errorf("%s: leftovers were not seen", scheme)
		}
	}
}

func TestBlank(t *testing.T) {
	const size = 32 * mib
	for _, tc := range []struct {
		name string
		off  int64
		want bool
	}{
		{"nothing", -1, true},
		{"first byte", 0, false},
		{"last of MiB two", 2*mib - 1, false},
		{"last byte", size - 1, false},
		{"in MiB minus two", size - 2*mib, false},
		{"in the middle of a sample", size/257*100&^4095 + 7, false},
		{"exempt", 5000, true},
	} {
		b := make([]byte, size)
		if tc.off >= 0 {
			b[tc.off] = 1
		}
		at, got, err := blank(bytes.NewReader(b), Extent{0, size}, Extent{4096, 4096})
		if err != nil || got != tc.want || !got && at != tc.off {
			t.Errorf("%s: blank = %v at %d, %v; want %v", tc.name, got, at, err, tc.want)
		}
	}
	if _, _, err := blank(bytes.NewReader(make([]byte, mib)), Extent{0, size}); err == nil {
		t.Error("a device shorter than it says is blank")
	}
}

func TestNaturalOrder(t *testing.T) {
	got := []string{"sdaa", "sda10", "nvme10n1", "sda2", "nvme2n1", "sdb", "sda", "loop007", "loop8"}
	slices.SortFunc(got, natural)
	want := []string{"sda", "sda2", "sda10", "sdb", "loop007", "loop8", "nvme2n1", "nvme10n1", "sdaa"}
	// Letters go by length first, so that sdz comes before sdaa.
	if !slices.IsSortedFunc(got, natural) || slices.Index(got, "sda2") > slices.Index(got, "sda10") ||
		slices.Index(got, "sdb") > slices.Index(got, "sdaa") || slices.Index(got, "nvme2n1") > slices.Index(got, "nvme10n1") || slices.Index(got, "loop007") > slices.Index(got, "loop8") {
		t.Errorf("order is %q, want something like %q", got, want)
	}
}

// TestSettle plays disks that appear late.
func TestSettle(t *testing.T) {
	at := func(second float64, d Device) func(float64) []Device {
		return func(now float64) []Device {
			if now >= second {
				return []Device{d}
			}
			return nil
		}
	}
	early, late := plain("sda", blankDev), part("sdb1", "sdb", 1, uroot)
	for _, tc := range []struct {
		name     string
		devices  []func(float64) []Device
		patience time.Duration
		want     string
		took     float64
	}{
		{"there at once", []func(float64) []Device{at(0, late)}, 300 * time.Second, "reuse", 0},
		{"blank and stable", []func(float64) []Device{at(0, early)}, 300 * time.Second, "partition", 1},
		{"uroot half a second later", []func(float64) []Device{at(0, early), at(0.5, late)}, 0, "reuse", 0.6},
		{"late disk, patient", []func(float64) []Device{at(40, late)}, 300 * time.Second, "reuse", 40},
		{"late disk, impatient", []func(float64) []Device{at(40, late)}, 10 * time.Second, "", 10},
		{"nothing, no patience", nil, 0, "", 1},
	} {
		now := 0.0
		s := settler{
			scan: func(context.Context) ([]Device, error) {
				var list []Device
				for _, d := range tc.devices {
					list = append(list, d(now)...)
				}
				return list, nil
			},
			sleep: func(_ context.Context, d time.Duration) error { now += d.Seconds(); return nil },
			now:   func() time.Time { return time.Unix(0, 0).Add(time.Duration(now * float64(time.Second))) },
		}
		c, _, err := s.settle(t.Context(), Preferences{}, tc.patience)
		if string(c.Action) != tc.want || (err == nil) != (tc.want != "") || now < tc.took || now > tc.took+0.5 {
			t.Errorf("%s: %q, %v after %.1f s; want %q after %.1f s", tc.name, c.Action, err, now, tc.want, tc.took)
		}
	}
}

// FuzzLook gives a disk of arbitrary first and last sectors to everything that
// reads disks: it must not panic, and never be blank with a byte in it.
func FuzzLook(f *testing.F) {
	table, err := plan(8*mib, 512, derived("", "id"), false)
	if err != nil {
		f.Fatal(err)
	}
	d := make([]byte, 8*mib)
	for i, w := range writes(table) {
		copy(d[w.Offset:], w.Data)
		if i%2 == 0 {
			f.Add(bytes.Clone(d[:20<<10]), bytes.Clone(d[8*mib-20<<10:]))
		}
	}
	f.Add([]byte{}, intent(mib, 7*mib))
	f.Fuzz(func(t *testing.T, first, last []byte) {
		const size = 8 * mib
		if len(first) > 64<<10 || len(last) > 64<<10 {
			return
		}
		d := make([]byte, size)
		copy(d, first)
		copy(d[size-len(last):], last)
		empty := bytes.Equal(first, make([]byte, len(first))) && bytes.Equal(last, make([]byte, len(last)))
		whole := Device{Name: "x", Kind: Disk, Size: size, Sector: 512}
		if err := whole.look(bytes.NewReader(d)); err != nil {
			t.Fatalf("look = %v", err)
		}
		whole.Boot = true
		_ = whole.space(bytes.NewReader(d))
		for _, p := range append(whole.match(nil), Device{Kind: Part, Start: mib, Size: size - mib, Sector: 512}) {
			if err := p.look(io.NewSectionReader(bytes.NewReader(d), p.Start, p.Size)); err != nil {
				t.Fatalf("look at %+v = %v", p, err)
			}
		}
		if whole.Blank && !empty && len(whole.tableExtents()) == 0 {
			t.Fatal("a disk with data and without a table is blank")
		}
	})
}

func TestPlanIsDeterministic(t *testing.T) {
	a, err := plan(diskSize, 512, derived("", "id"), true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := plan(diskSize, 512, derived("", "id"), true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(writes(a), writes(b)); diff != "" {
		t.Errorf("two plans differ:\n%s", diff)
	}
}

// TestSerial reads serial numbers where the kernel has them, by driver.
func TestSerial(t *testing.T) {
	m := newMachine(t)
	for name, files := range map[string]map[string]string{
		"vda":     {"serial": "mica-disk1"},
		"nvme0n1": {"device/serial": "mica-disk1   "},
		"sda":     {"device/vpd_pg80": "\x00\x80\x00\x14          mica-disk1"},
		"sdb":     {"device/vpd_pg80": "\x00"},
		"sdc":     {},
	} {
		m.disk(name, diskSize)
		m.attributes(filepath.Join(m.roots.Sys, "block", name), files)
		m.attributes(filepath.Join(m.roots.Sys, "block", name, name+"1"), map[string]string{"partition": "1", "start": "2048", "size": "2048", "dev": "0:0"})
	}
	for name, d := range scanned(m) {
		want := "mica-disk1"
		if strings.HasPrefix(name, "sdb") || strings.HasPrefix(name, "sdc") {
			want = ""
		}
		if strings.TrimSpace(d.Serial) != want {
			t.Errorf("serial number of %s = %q, want %q", name, d.Serial, want)
		}
	}
}

// TestSliceIsNoScratchDisk attaches a slice, as its disk is: longer than it.
func TestSliceIsNoScratchDisk(t *testing.T) {
	m := newMachine(t)
	path := m.disk("vda", diskSize)
	p := &profile.Profile{Repository: "os.example.org", Root: cvmfs.SHA1.Sum([]byte("root")), Recorded: time.Unix(0, 0)}
	var tar bytes.Buffer
	m.must(slice.Write(t.Context(), &tar, p, nil, nil, nil))
	m.write(path, 0, tar.Bytes())
	if d := scanned(m)["vda"]; d.Content.Type != probe.Slice || d.Blank {
		t.Fatalf("a disk with a slice = %+v", d)
	}
	if c, _, err := m.boot(Preferences{UseEphemeral: true}, m.worker()); err == nil || !strings.Contains(err.Error(), "holds a slice of a repository") {
		t.Errorf("boot chose %+v, %v", c, err)
	}
}

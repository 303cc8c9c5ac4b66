package gpt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/tier"
)

const (
	mib    = 1 << 20
	diskID = "11223344-5566-4788-99aa-bbccddeeff00"
	partID = "aabbccdd-eeff-4011-a233-445566778899"
)

var ignoreInner = cmpopts.IgnoreUnexported(gpt.Table{})

// rawDisk is a disk in memory.
type rawDisk []byte

func (d rawDisk) apply(writes ...gpt.Write) {
	for _, w := range writes {
		copy(d[w.Offset:], w.Data)
	}
}

func (d rawDisk) read(t *testing.T, sector int64) gpt.Table {
	t.Helper()
	table, err := gpt.Read(bytes.NewReader(d), int64(len(d)), sector)
	if err != nil {
		t.Fatalf("Read = %v", err)
	}
	return table
}

// whole returns a disk with one partition named UROOT.
func whole(t *testing.T, size, sector int64) (rawDisk, gpt.Table) {
	t.Helper()
	table, err := gpt.New(size, sector, diskID)
	if err != nil {
		t.Fatal(err)
	}
	free := table.Largest(size/sector, mib/sector)
	table, err = table.Add(gpt.Entry{Start: free.Start, Sectors: free.Sectors, Type: gpt.LinuxRootX86, ID: partID, Name: "UROOT"})
	if err != nil {
		t.Fatal(err)
	}
	d := make(rawDisk, size)
	d.apply(table.Backup()...)
	d.apply(table.Primary()...)
	d.apply(table.Protective())
	return d, table
}

func TestRoundTrip(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		d, want := whole(t, 64*mib, sector)
		got := d.read(t, sector)
		want.PrimaryOK, want.BackupOK = true, true
		if diff := cmp.Diff(want, got, ignoreInner); diff != "" {
			t.Errorf("sector %d (-want +got):\n%s", sector, diff)
		}
		if e := got.Entries[0]; e.Start != mib/sector || e.End()*sector != 63*mib {
			t.Errorf("sector %d: partition is %d to %d, want 1 MiB to 63 MiB", sector, e.Start*sector, e.End()*sector)
		}
	}
}

// TestOracle compares with what sgdisk and sfdisk say.
func TestOracle(t *testing.T) {
	tier.Full(t)
	d, _ := whole(t, 64*mib, 512)
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, d, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tier.Tool(t, "sgdisk"), "-v", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk -v = %v: %s", err, out)
	}
	got, err := sfdisk(t, file)
	if err != nil {
		t.Fatal(err)
	}
	want := dump{Label: "gpt", ID: strings.ToUpper(diskID), Partitions: []part{
		{Start: 2048, Size: 62 * 2048, Type: strings.ToUpper(gpt.LinuxRootX86), UUID: strings.ToUpper(partID), Name: "UROOT"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sfdisk --json (-want +got):\n%s", diff)
	}
}

type dump struct {
	Label, ID  string
	Partitions []part
}

type part struct {
	Start, Size      int64
	Type, UUID, Name string
}

func sfdisk(t *testing.T, file string) (dump, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tier.Tool(t, "sfdisk"), "--json", file).Output()
	if err != nil {
		return dump{}, err
	}
	var d struct{ PartitionTable dump }
	return d.PartitionTable, json.Unmarshal(out, &d)
}

// TestReadOthers reads what sfdisk made, with primary, logical and many GPT
// partitions.
func TestReadOthers(t *testing.T) {
	tier.Full(t)
	for name, script := range map[string]string{
		"mbr":       "label: dos\nlabel-id: 0x12345678\nstart=2048, size=20480, type=c, bootable\nstart=22528, size=20480, type=83\n",
		"logical":   "label: dos\nsize=4096,type=83\ntype=5\nsize=4096,type=82\nsize=4096,type=83\n",
		"gpt":       "label: gpt\nsize=2048,type=21686148-6449-6E6F-744E-656564454649\nsize=20480,type=uefi,name=\"EFI ü\"\ntype=linux\n",
		"gpt empty": "label: gpt\n",
		"mbr empty": "label: dos\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(file, make([]byte, 64*mib), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), tier.Tool(t, "sfdisk"), "-q", file)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("sfdisk: %v: %s", err, out)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := sfdisk(t, file)
			if err != nil {
				t.Fatal(err)
			}
			table := rawDisk(data).read(t, 512)
			got := dump{Label: map[gpt.Scheme]string{gpt.MBR: "dos", gpt.GPT: "gpt"}[table.Scheme], ID: "0x" + table.DiskID}
			if table.Scheme == gpt.GPT {
				got.ID = strings.ToUpper(table.DiskID)
			}
			for _, e := range table.Entries {
				kind := strings.ToUpper(e.Type)
				if table.Scheme == gpt.MBR {
					kind = strings.TrimLeft(e.Type[2:], "0")
				}
				got.Partitions = append(got.Partitions, part{e.Start, e.Sectors, kind, strings.ToUpper(e.ID), e.Name})
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-sfdisk +ours):\n%s", diff)
			}
		})
	}
}

// TestHalfWritten stops after each write of a change: the disk must always have
// a table, either the old one or the new one.
func TestHalfWritten(t *testing.T) {
	d, old := whole(t, 32*mib, 512)
	d = append(d, make(rawDisk, 32*mib)...) // the image was made larger
	bigger, err := old.Relocated(64 * mib)
	if err != nil {
		t.Fatal(err)
	}
	if bigger, err = bigger.Add(gpt.Entry{Start: 32 * 2048, Sectors: 31 * 2048, Type: gpt.LinuxData, ID: diskID, Name: "more"}); err != nil {
		t.Fatal(err)
	}
	steps := append(bigger.Backup(), bigger.Primary()...)
	for n := 0; n <= len(steps); n++ {
		got := d.read(t, 512)
		if got.Scheme != gpt.GPT || len(got.Entries) != 1 && len(got.Entries) != 2 {
			t.Fatalf("after %d steps: %+v", n, got)
		}
		if n < len(steps) {
			d.apply(steps[n])
		}
	}
	got := d.read(t, 512)
	bigger.PrimaryOK, bigger.BackupOK = true, true
	if diff := cmp.Diff(bigger, got, ignoreInner); diff != "" {
		t.Errorf("at the end (-want +got):\n%s", diff)
	}
}

func TestDamage(t *testing.T) {
	fresh, _ := whole(t, 8*mib, 512)
	flip := func(offsets ...int64) rawDisk {
		d := bytes.Clone(fresh)
		for _, off := range offsets {
			d[off] ^= 0xff
		}
		return d
	}
	last := int64(8*mib - 512)
	wipe := bytes.Clone(fresh)
	clear(wipe[:34*512])
	for _, tc := range []struct {
		name            string
		disk            rawDisk
		want            gpt.Scheme
		primary, backup bool
	}{
		{"whole", fresh, gpt.GPT, true, true},
		{"primary header", flip(512 + 60), gpt.GPT, false, true},
		{"primary entry", flip(1024 + 60), gpt.GPT, false, true},
		{"backup header", flip(last + 60), gpt.GPT, true, false},
		{"both headers", flip(512+60, last+60), gpt.Damaged, false, false},
		{"both magics", flip(512, last), gpt.Damaged, false, false}, // the protective MBR still says so
		{"primary wiped", wipe, gpt.GPT, false, true},
	} {
		got := tc.disk.read(t, 512)
		if got.Scheme != tc.want || got.PrimaryOK != tc.primary || got.BackupOK != tc.backup {
			t.Errorf("%s: %q, primary %v, backup %v; want %q, %v, %v", tc.name, got.Scheme, got.PrimaryOK, got.BackupOK, tc.want, tc.primary, tc.backup)
		}
	}
	if got := fresh.read(t, 4096); got.Scheme != gpt.Damaged {
		t.Errorf("read with the wrong sector size: %q, want damaged", got.Scheme)
	}
}

func TestFree(t *testing.T) {
	table, err := gpt.New(64*mib, 512, diskID)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range []gpt.Entry{{Start: 2048, Sectors: 2048}, {Start: 10 * 2048, Sectors: 100}} {
		e.Type, e.ID = gpt.LinuxData, partID
		if table, err = table.Add(e); err != nil {
			t.Fatalf("Add %d: %v", i, err)
		}
	}
	want := []gpt.Extent{{2 * 2048, 8 * 2048}, {11 * 2048, 52 * 2048}}
	if diff := cmp.Diff(want, table.Free(64*2048, 2048)); diff != "" {
		t.Errorf("Free (-want +got):\n%s", diff)
	}
	if _, err := table.Add(gpt.Entry{Start: 2048, Sectors: 1, Type: gpt.LinuxData, ID: partID}); err == nil {
		t.Error("Add let two partitions overlap")
	}
	if table.IsLast(1) || !table.IsLast(2) {
		t.Errorf("IsLast(1) = %v, IsLast(2) = %v; want false, true", table.IsLast(1), table.IsLast(2))
	}
}

func TestAddMBR(t *testing.T) {
	d := make(rawDisk, 8*mib)
	d[510], d[511] = 0x55, 0xAA
	copy(d, "boot code")
	for want := 1; want <= 4; want++ {
		boot, number, err := gpt.AddMBR(d[:512], int64(want)*2048, 2048)
		if err != nil || number != want {
			t.Fatalf("AddMBR = %d, %v; want %d", number, err, want)
		}
		copy(d, boot)
	}
	if _, _, err := gpt.AddMBR(d[:512], 5*2048, 2048); err == nil {
		t.Error("AddMBR found a fifth place")
	}
	got := d.read(t, 512)
	if len(got.Entries) != 4 || got.Entries[3].Type != gpt.MBRLinux || string(d[:9]) != "boot code" {
		t.Errorf("read back: %+v", got)
	}
}

func TestUnreadable(t *testing.T) {
	bad := errors.New("medium error")
	if _, err := gpt.Read(faulty{bad}, mib, 512); !errors.Is(err, bad) {
		t.Errorf("Read = %v, want %v", err, bad)
	}
}

type faulty struct{ err error }

func (f faulty) ReadAt([]byte, int64) (int, error) { return 0, f.err }

var _ io.ReaderAt = faulty{}

func FuzzRead(f *testing.F) {
	table, err := gpt.New(80*512, 512, diskID)
	if err != nil {
		f.Fatal(err)
	}
	d := make(rawDisk, 80*512)
	d.apply(table.Backup()...)
	d.apply(table.Primary()...)
	d.apply(table.Protective())
	f.Add([]byte(d))
	ext := make([]byte, 4096)
	copy(ext[446:], "\x00\x00\x00\x00\x05\x00\x00\x00\x01\x00\x00\x00\x06\x00\x00\x00")
	copy(ext[510:], "\x55\xaa")
	f.Add(ext)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, sector := range []int64{512, 4096} {
			table, err := gpt.Read(bytes.NewReader(data), int64(len(data)), sector)
			if err != nil {
				t.Fatalf("Read = %v, though every byte can be read", err)
			}
			sectors := int64(len(data)) / sector
			for _, e := range table.Free(sectors, 8) {
				if e.Start < 1 || e.Start+e.Sectors > sectors {
					t.Fatalf("Free = %+v on a disk of %d sectors", e, sectors)
				}
			}
		}
	})
}

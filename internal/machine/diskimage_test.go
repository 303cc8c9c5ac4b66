package machine_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tier.Tool(t, "qemu-img"), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %q: %v: %s", args, err, out)
	}
}

// TestDiskImagesOfQEMU compares with what the real tool writes.
func TestDiskImagesOfQEMU(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "base.raw")
	if err := os.WriteFile(raw, drivertest.BootDisk(drivertest.Guest{}), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-O", "qcow2", raw, filepath.Join(dir, "base.qcow2"))
	qemuImg(t, "convert", "-O", "vmdk", raw, filepath.Join(dir, "base.vmdk"))
	for _, tc := range []struct {
		format, options, base string
		want                  string // part of the error
	}{
		{format: "qcow2"},
		{format: "qcow2", options: "compat=0.10"},
		{format: "vdi"},
		{format: "vdi", options: "static=on"},
		{format: "vpc"},
		{format: "vpc", options: "subformat=fixed"},
		{format: "vmdk"},
		{format: "vmdk", options: "subformat=streamOptimized"},
		{format: "raw"},
		{format: "qcow2", base: "base.qcow2", want: "based on another"},
		{format: "qcow2", options: "data_file=" + filepath.Join(dir, "data"), want: "in another file"},
		{format: "vmdk", base: "base.vmdk", want: "differences from another"},
		{format: "vmdk", options: "subformat=monolithicFlat", want: "in other files"},
		{format: "vmdk", options: "subformat=twoGbMaxExtentSparse", want: "in other files"},
	} {
		t.Run(tc.format+" "+tc.options+tc.base, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x."+tc.format)
			var options []string
			if tc.options != "" {
				options = []string{"-o", tc.options}
			}
			if tc.base != "" {
				qemuImg(t, "create", "-q", "-f", tc.format, "-F", tc.format, "-b", filepath.Join(dir, tc.base), path)
			} else {
				qemuImg(t, append(append([]string{"convert", "-O", tc.format}, options...), raw, path)...)
			}
			if got, err := machine.DiskFormat(path); got != tc.format || err != nil {
				t.Errorf("DiskFormat = %q, %v; want %q", got, err, tc.format)
			}
			err := machine.CheckDiskImage(path, tc.format)
			if tc.want == "" && err != nil || tc.want != "" && (!fail.Is(err, fail.Unverified) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("CheckDiskImage = %v, want %q", err, tc.want)
			}
		})
	}
}

// TestDiskImagesByHand has what no tool at hand writes.
func TestDiskImagesByHand(t *testing.T) {
	header := func(magic string, at int) []byte {
		b := make([]byte, 2048)
		copy(b[at:], magic)
		return b
	}
	vdi := header("\x7f\x10\xda\xbe", 0x40)
	binary.LittleEndian.PutUint32(vdi[0x4c:], 4)
	vhd := append(header("conectix", 0), header("conectix", 0)[:512]...)
	binary.BigEndian.PutUint32(vhd[len(vhd)-512+60:], 4)
	whole := header("\x7f\x10\xda\xbe", 0x40)
	binary.LittleEndian.PutUint32(whole[0x4c:], 1)
	binary.LittleEndian.PutUint32(whole[0x178:], 1<<20)
	binary.LittleEndian.PutUint32(whole[0x184:], 1)
	half := header("conectix", 0)
	crypt := header("QFI\xfb", 0)
	binary.BigEndian.PutUint32(crypt[4:], 2)
	binary.BigEndian.PutUint32(crypt[32:], 1)
	for _, tc := range []struct {
		name, format, want string
		class              fail.Class
		data               []byte
	}{
		{"vdi of differences", "vdi", "differences", fail.Unverified, vdi},
		{"vhd of differences", "vpc", "differences", fail.Unverified, vhd},
		{"half a vdi", "vdi", "cut short", fail.Unverified, whole},
		{"half a vhd", "vpc", "cut short", fail.Unverified, half},
		{"encrypted", "qcow2", "encrypted", fail.Unverified, crypt},
		{"old", "qcow2", "no version 0", fail.Unverified, header("QFI\xfb", 0)},
		{"short", "vmdk", "in other files", fail.Unverified, []byte("KDMV")},
		{"another", "vmdk", "is no vmdk image", fail.Unverified, vdi},
		{"empty", "raw", "0 bytes are no disk", fail.Unverified, nil},
		{"unknown", "zip", "unknown image format", fail.Usage, vdi},
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, tc.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := machine.CheckDiskImage(path, tc.format); !fail.Is(err, tc.class) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: CheckDiskImage = %v, want class %v and %q", tc.name, err, tc.class, tc.want)
		}
	}
}

func FuzzCheckDiskImage(f *testing.F) {
	f.Add([]byte("KDMV"), "vmdk")
	f.Add([]byte("QFI\xfb\x00\x00\x00\x03"), "qcow2")
	f.Add([]byte("conectix"), "vpc")
	f.Add(append(make([]byte, 0x40), "\x7f\x10\xda\xbe"...), "vdi")
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, data []byte, format string) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		is, _ := machine.DiskFormat(path)
		if err := machine.CheckDiskImage(path, format); err == nil && format != "raw" && is != format {
			t.Errorf("a %q image passes for a %q one", is, format)
		}
	})
}

package fat_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/micavm/mica/internal/fat"
	"github.com/micavm/mica/internal/tier"
)

func sample() fat.Volume {
	v := fat.Volume{Label: "CONFIG-2", Files: []fat.File{
		{Path: "openstack/latest/user_data", Data: bytes.Repeat([]byte("0123456789abcdef"), 333)},
		{Path: "openstack/latest/meta_data.json", Data: []byte("{}")},
		{Path: "ec2/latest/user-data", Data: []byte("x")},
		{Path: "README", Data: []byte("upper case needs no long name")},
		{Path: "empty", Data: nil},
		{Path: "a rather long name, with blanks.and.dots", Data: []byte("long")},
		{Path: "a rather long name, too", Data: []byte("long too")},
		{Path: "é", Data: []byte("accent")},
		{Path: "exactly-13-ch", Data: []byte("13")},
	}}
	for i := range 40 {
		v.Files = append(v.Files, fat.File{Path: fmt.Sprintf("many/file number %02d", i), Data: fmt.Append(nil, i)})
	}
	return v
}

// large makes the volume outgrow a floppy disk.
func large() fat.Volume {
	v := sample()
	v.Files = append(v.Files, fat.File{Path: "big", Data: bytes.Repeat([]byte("0123456789"), 300_000)})
	return v
}

func write(t testing.TB, v fat.Volume) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := fat.Write(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func byPath(v fat.Volume) map[string]string {
	m := map[string]string{}
	for _, f := range v.Files {
		m[f.Path] = string(f.Data)
	}
	return m
}

func TestRoundTrip(t *testing.T) {
	for name, v := range map[string]fat.Volume{"floppy": sample(), "large": large(), "nothing": {}} {
		image := write(t, v)
		got, err := fat.Read(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(byPath(v), byPath(got)); diff != "" || got.Label != v.Label {
			t.Errorf("%s: label %q (-want +got):\n%s", name, got.Label, diff)
		}
		slices.Reverse(v.Files)
		if !bytes.Equal(image, write(t, v)) {
			t.Errorf("%s: the order of the list changed the image", name)
		}
	}
}

func TestRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := fat.Volume{Label: rapid.StringMatching(`[A-Z0-9-]{0,11}`).Draw(rt, "label")}
		used := map[string]bool{}
		for range rapid.IntRange(0, 25).Draw(rt, "files") {
			p := rapid.StringMatching(`([a-z]{1,9}/){0,2}[a-zA-Z0-9_-]{1,40}(\.[a-z]{1,5})?`).Draw(rt, "path")
			if !used[strings.ToLower(p)] {
				used[strings.ToLower(p)] = true
				v.Files = append(v.Files, fat.File{Path: p, Data: rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(rt, "data")})
			}
		}
		var b bytes.Buffer
		if err := fat.Write(&b, v); err != nil {
			rt.Skip(err) // a file where another path has a folder
		}
		got, err := fat.Read(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(byPath(v), byPath(got)); diff != "" {
			rt.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestRefused(t *testing.T) {
	for name, v := range map[string]fat.Volume{
		"escape":      {Files: []fat.File{{Path: "../x"}}},
		"colon":       {Files: []fat.File{{Path: "a:b"}}},
		"twice":       {Files: []fat.File{{Path: "x"}, {Path: "X"}}},
		"file folder": {Files: []fat.File{{Path: "x"}, {Path: "x/y"}}},
		"label":       {Label: "TWELVE CHARS"},
		"too large":   {Files: []fat.File{{Path: "x", Data: make([]byte, 65<<20)}}},
		"long name":   {Files: []fat.File{{Path: strings.Repeat("n", 256)}}},
	} {
		if err := fat.Write(io.Discard, v); err == nil {
			t.Errorf("%s: Write succeeded", name)
		}
	}
}

// TestAgainstTools checks volumes with fsck.vfat, blkid and mtools.
func TestAgainstTools(t *testing.T) {
	fsck, blkid, mcopy := tier.Tool(t, "fsck.vfat"), tier.Tool(t, "blkid"), tier.Tool(t, "mcopy")
	for name, v := range map[string]fat.Volume{"floppy": sample(), "large": large()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			image, tree := filepath.Join(dir, "f.img"), filepath.Join(dir, "tree")
			if err := os.WriteFile(image, write(t, v), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(fsck, "-n", "-v", image).CombinedOutput(); err != nil {
				t.Errorf("fsck.vfat: %v\n%s", err, out)
			}
			out, err := exec.Command(blkid, "-p", "-o", "export", image).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "TYPE=vfat") || !strings.Contains(string(out), "LABEL=CONFIG-2\n") {
				t.Errorf("blkid: %v\n%s", err, out)
			}
			if err := os.Mkdir(tree, 0o700); err != nil {
				t.Fatal(err)
			}
			copyOut := exec.Command(mcopy, "-s", "-n", "-i", image, "::*", tree)
			copyOut.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=0", "LC_ALL=C.UTF-8")
			if out, err := copyOut.CombinedOutput(); err != nil {
				t.Fatalf("mcopy: %v\n%s", err, out)
			}
			for _, f := range v.Files {
				got, err := os.ReadFile(filepath.Join(tree, f.Path))
				if err != nil || !bytes.Equal(got, f.Data) {
					t.Errorf("%q: content differs (%v)", f.Path, err)
				}
			}
		})
	}
}

// bootFiles are like those of a boot image: two large ones, a few small ones.
func bootFiles(large int) fat.Volume {
	return fat.Volume{Label: "UCERNVM-EFI", Files: []fat.File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Data: bytes.Repeat([]byte("loader"), 20_000)},
		{Path: "loader/loader.conf", Data: []byte("timeout 2\n")},
		{Path: "loader/entries/normal.conf", Data: bytes.Repeat([]byte("n"), 2048)},
		{Path: "loader/entries/none.conf"},
		{Path: "cernvm/vmlinuz.xz", Data: bytes.Repeat([]byte("kernel, "), large/8)},
		{Path: "cernvm/initrd.img", Data: bytes.Repeat([]byte("initrd"), large/6)},
	}}
}

// TestPack has fsck.vfat, mtools and the reader look at tight volumes of both
// widths, and compares the places it tells with what is there.
func TestPack(t *testing.T) {
	fsck, mcopy := tier.Tool(t, "fsck.vfat"), tier.Tool(t, "mcopy")
	var nested fat.Volume
	for i := range 300 { // a root folder of several clusters
		nested.Files = append(nested.Files, fat.File{Path: fmt.Sprintf("a rather long name %03d", i), Data: fmt.Append(nil, i)})
	}
	for _, tc := range []struct {
		name    string
		v       fat.Volume
		cluster int
		bits    string
	}{
		{"FAT12", bootFiles(1 << 20), 2048, "FAT12"},
		{"FAT16", bootFiles(5 << 20), 2048, "FAT16"},
		{"small clusters", bootFiles(2 << 20), 512, "FAT16"},
		{"large clusters", bootFiles(5 << 20), 32768, "FAT12"},
		{"doubled clusters", bootFiles(17 << 20), 512, "FAT16"},
		{"many", nested, 4096, "FAT12"},
		{"nothing", fat.Volume{}, 2048, "FAT12"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if len(tc.v.Files) > 0 && len(tc.v.Files[len(tc.v.Files)-1].Data) > 4<<20 {
				tier.Full(t)
			}
			image, at, err := fat.Pack(tc.v, tc.cluster)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(image[54:59]); got != tc.bits {
				t.Errorf("Pack made a %s, want %s", got, tc.bits)
			}
			got, err := fat.Read(bytes.NewReader(image), int64(len(image)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(byPath(tc.v), byPath(got)); diff != "" || got.Label != tc.v.Label {
				t.Errorf("label %q (-want +got):\n%s", got.Label, diff)
			}
			var content int
			for _, f := range tc.v.Files {
				begin, ok := at[f.Path]
				if ok != (len(f.Data) > 0) || begin%int64(tc.cluster) != 0 || !bytes.Equal(image[begin:][:len(f.Data)], f.Data) {
					t.Errorf("%q is said to lie at %d (%v)", f.Path, begin, ok)
				}
				content += len(f.Data)
			}
			if spare := len(image) - content; spare > 64<<10+len(tc.v.Files)*(max(tc.cluster, 1024)+200)+len(image)/200 {
				t.Errorf("a volume of %d bytes for %d of content", len(image), content)
			}
			dir := t.TempDir()
			name := filepath.Join(dir, "f.img")
			if err := os.WriteFile(name, image, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(fsck, "-n", "-v", name).CombinedOutput(); err != nil {
				t.Errorf("fsck.vfat: %v\n%s", err, out)
			}
			for _, f := range tc.v.Files[:min(len(tc.v.Files), 6)] {
				if out, err := exec.Command(mcopy, "-i", name, "::"+f.Path, "-").Output(); err != nil || !bytes.Equal(out, f.Data) {
					t.Errorf("mcopy %q gives %d bytes, %v", f.Path, len(out), err)
				}
			}
		})
	}
}

func TestPackRefused(t *testing.T) {
	for _, cluster := range []int{0, 256, 3000, 65536} {
		if _, _, err := fat.Pack(sample(), cluster); err == nil {
			t.Errorf("Pack with clusters of %d bytes succeeded", cluster)
		}
	}
	if _, _, err := fat.Pack(fat.Volume{Files: []fat.File{{Path: "../x"}}}, 2048); err == nil {
		t.Error("Pack of a path that escapes succeeded")
	}
}

// TestReadsOthers reads what mkfs.vfat and mtools make, in all three widths.
func TestReadsOthers(t *testing.T) {
	mkfs, mcopy, mmd := tier.Tool(t, "mkfs.vfat"), tier.Tool(t, "mcopy"), tier.Tool(t, "mmd")
	for bits, size := range map[string]string{"12": "1440", "16": "16384", "32": "40960"} {
		dir := t.TempDir()
		image, file := filepath.Join(dir, "f.img"), filepath.Join(dir, "user_data")
		want := strings.Repeat("context\n", 2000)
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"-C", "-n", "CIDATA", "-F", bits}
		if bits == "32" {
			args = append(args, "-s", "1")
		}
		for _, command := range [][]string{
			append(append([]string{mkfs}, args...), image, size),
			{mmd, "-i", image, "::openstack", "::openstack/latest"},
			{mcopy, "-i", image, file, "::openstack/latest/user_data"},
			{mcopy, "-i", image, file, "::openstack/latest/A Long Name"},
		} {
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", command, err, out)
			}
		}
		data, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		v, err := fat.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatalf("FAT%s: %v", bits, err)
		}
		files := map[string]string{"openstack/latest/user_data": want, "openstack/latest/A Long Name": want}
		if diff := cmp.Diff(files, byPath(v)); diff != "" || v.Label != "CIDATA" {
			t.Errorf("FAT%s: label %q (-want +got):\n%s", bits, v.Label, diff)
		}
	}
}

func FuzzRead(f *testing.F) {
	const floppy = 1440 << 10
	f.Add(write(f, fat.Volume{Label: "X", Files: []fat.File{{Path: "a/b long", Data: []byte("x")}}})[:20<<10])
	f.Fuzz(func(_ *testing.T, data []byte) {
		image := make([]byte, floppy) // a whole volume, of which the start is given
		copy(image, data)
		_, _ = fat.Read(bytes.NewReader(image), floppy)
	})
}

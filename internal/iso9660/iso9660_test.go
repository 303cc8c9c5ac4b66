package iso9660_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/tier"
)

// sample has everything a volume can have, with an awkward example of each.
func sample() iso9660.Volume {
	code := bytes.Repeat([]byte("boot code "), 300)
	return iso9660.Volume{
		Label: "SAMPLE", Time: time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC), RockRidge: true, Joliet: true,
		Files: []iso9660.File{
			iso9660.Bytes("readme", 0o644, []byte("hello\n")),
			iso9660.Bytes("empty", 0o600, nil),
			iso9660.Bytes(".ucernvm_boot_loader", 0o444, nil),
			iso9660.Bytes("isolinux/isolinux.bin", 0o444, code),
			iso9660.Bytes("boot/efi.img", 0o444, make([]byte, 5000)),
			iso9660.Bytes("dir.with.dots/File With Spaces.TXT", 0o755, []byte("x")),
			iso9660.Bytes("dir.with.dots/file_with_spaces.txt", 0o755, []byte("another with an equal short name")),
			iso9660.Bytes("long/"+strings.Repeat("n", 255), 0o644, bytes.Repeat([]byte("y"), 2048)),
			iso9660.Bytes("long/"+strings.Repeat("n", 254)+"m", 0o644, bytes.Repeat([]byte("z"), 2049)),
			iso9660.Bytes("unicode-é-日本", 0o644, []byte("u")),
			iso9660.Symlink("link", "dir.with.dots/../readme"),
			iso9660.Symlink("absolute", "/usr/lib"),
			iso9660.Symlink("far", strings.Repeat("component/", 60)+strings.Repeat("w", 255)),
			iso9660.Dir("nothing", 0o700),
			iso9660.Dir("a/b/c/d/e/f/g", 0o755),
		},
	}
}

func many() iso9660.Volume {
	v := iso9660.Volume{Label: "many", RockRidge: true, Joliet: true}
	for i := range 900 {
		v.Files = append(v.Files, iso9660.Bytes(fmt.Sprintf("d%d/a rather long file name, number %04d", i%7, i), 0o644, fmt.Appendf(nil, "%d", i)))
	}
	return v
}

func write(t testing.TB, v iso9660.Volume) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := iso9660.Write(t.Context(), &b, v); err != nil {
		t.Fatal(err)
	}
	if want, err := iso9660.Size(v); err != nil || want != int64(b.Len()) {
		t.Errorf("Size = %d, %v, but Write wrote %d", want, err, b.Len())
	}
	return b.Bytes()
}

func content(t testing.TB, f iso9660.File) []byte {
	t.Helper()
	if f.Open == nil {
		return nil
	}
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	for name, v := range map[string]iso9660.Volume{"sample": sample(), "many": many(), "empty": {Label: "E", RockRidge: true}} {
		t.Run(name, func(t *testing.T) {
			image := write(t, v)
			img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), iso9660.RockRidge)
			if err != nil {
				t.Fatal(err)
			}
			if img.Label != v.Label || img.Size != int64(len(image)) || img.Joliet != v.Joliet {
				t.Errorf("label %q, size %d, joliet %v; want %q, %d, %v", img.Label, img.Size, img.Joliet, v.Label, len(image), v.Joliet)
			}
			for _, f := range v.Files {
				fi, err := img.Lstat(f.Path)
				if err != nil {
					t.Error(err)
					continue
				}
				if fi.Mode() != f.Mode {
					t.Errorf("mode of %q = %v, want %v", f.Path, fi.Mode(), f.Mode)
				}
				switch {
				case f.Mode&fs.ModeSymlink != 0:
					if got, err := img.ReadLink(f.Path); got != f.Link || err != nil {
						t.Errorf("ReadLink(%q) = %q, %v; want %q", f.Path, got, err, f.Link)
					}
				case f.Mode.IsRegular():
					got, err := fs.ReadFile(img, f.Path)
					if err != nil || !bytes.Equal(got, content(t, f)) {
						t.Errorf("content of %q differs (%v)", f.Path, err)
					}
				}
			}
		})
	}
}

func TestJolietAndPlainNames(t *testing.T) {
	image := write(t, sample())
	for _, tc := range []struct {
		names iso9660.Names
		paths []string
	}{
		{iso9660.Joliet, []string{"readme", "unicode-é-日本", "dir.with.dots/File With Spaces.TXT", "long/" + strings.Repeat("n", 64), "long/" + strings.Repeat("n", 61) + "000"}},
		{iso9660.Plain, []string{"readme", "isolinux/isolinux.bin", "dir_with_dots/file_with_spaces.txt", "dir_with_dots/file_with_spaces000.txt", "unicode-_-__"}},
	} {
		img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), tc.names)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range tc.paths {
			if _, err := img.Stat(p); err != nil {
				t.Errorf("names %d: %v", tc.names, err)
			}
		}
		if _, err := img.Stat("link"); tc.names == iso9660.Joliet && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("symbolic link is visible in Joliet: %v", err)
		}
	}
}

func TestIsAnFS(t *testing.T) {
	v := many()
	image := write(t, v)
	img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(img, v.Files[0].Path, v.Files[899].Path); err != nil {
		t.Error(err)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	v := sample()
	first := write(t, v)
	for i, j := 0, len(v.Files)-1; i < j; i, j = i+1, j-1 { // the order of the list does not matter
		v.Files[i], v.Files[j] = v.Files[j], v.Files[i]
	}
	if !bytes.Equal(first, write(t, v)) {
		t.Error("the order of the list changed the image")
	}
}

func TestRoundTripProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := iso9660.Volume{Label: rapid.StringMatching(`[A-Za-z0-9_-]{0,32}`).Draw(rt, "label"), RockRidge: true, Joliet: rapid.Bool().Draw(rt, "joliet")}
		used := map[string]bool{}
		for range rapid.IntRange(0, 20).Draw(rt, "files") {
			p := rapid.StringMatching(`([a-zA-Z. _-]{1,12}[a-z]/){0,3}[a-zA-Z0-9 ._;-]{1,150}[a-z]`).Draw(rt, "path")
			if !fs.ValidPath(p) || used[p] {
				continue
			}
			used[p] = true
			v.Files = append(v.Files, iso9660.Bytes(p, 0o644, rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(rt, "data")))
		}
		var b bytes.Buffer
		if err := iso9660.Write(t.Context(), &b, v); err != nil {
			rt.Skip(err) // a file where another path has a directory
		}
		img, err := iso9660.Open(bytes.NewReader(b.Bytes()), int64(b.Len()), iso9660.Auto)
		if err != nil {
			rt.Fatal(err)
		}
		if img.Label != v.Label {
			rt.Errorf("label = %q, want %q", img.Label, v.Label)
		}
		for _, f := range v.Files {
			got, err := fs.ReadFile(img, f.Path)
			if err != nil || !bytes.Equal(got, content(t, f)) {
				rt.Errorf("content of %q differs (%v)", f.Path, err)
			}
		}
	})
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		v    iso9660.Volume
	}{
		{"escape", iso9660.Volume{Files: []iso9660.File{iso9660.Bytes("../x", 0o644, nil)}}},
		{"absolute", iso9660.Volume{Files: []iso9660.File{iso9660.Bytes("/x", 0o644, nil)}}},
		{"twice", iso9660.Volume{Files: []iso9660.File{iso9660.Bytes("x", 0o644, nil), iso9660.Bytes("x", 0o644, nil)}}},
		{"file as directory", iso9660.Volume{Files: []iso9660.File{iso9660.Bytes("x", 0o644, nil), iso9660.Bytes("x/y", 0o644, nil)}}},
		{"too deep", iso9660.Volume{Files: []iso9660.File{iso9660.Dir("a/b/c/d/e/f/g/h", 0o755)}}},
		{"device", iso9660.Volume{Files: []iso9660.File{{Path: "x", Mode: fs.ModeDevice}}}},
		{"long name", iso9660.Volume{Files: []iso9660.File{iso9660.Bytes(strings.Repeat("x", 256), 0o644, nil)}}},
		{"label", iso9660.Volume{Label: "tab\there"}},
		{"long label", iso9660.Volume{Label: strings.Repeat("L", 33)}},
		{"short content", iso9660.Volume{Files: []iso9660.File{{Path: "x", Size: 9, Open: iso9660.Bytes("", 0, []byte("12345678")).Open}}}},
		{"long content", iso9660.Volume{Files: []iso9660.File{{Path: "x", Size: 7, Open: iso9660.Bytes("", 0, []byte("12345678")).Open}}}},
		{"no boot image", iso9660.Volume{Boot: []iso9660.BootImage{{Path: "x"}}}},
		{"hybrid without boot image", iso9660.Volume{HybridMBR: []byte{1}}},
		{"hybrid without BIOS boot image", func() iso9660.Volume { v := holds("x", 0); v.HybridMBR = []byte{1}; return v }()},
		{"one file held twice", func() iso9660.Volume { v := holds("x", 0); v.Boot = append(v.Boot, v.Boot[0]); return v }()},
		{"boot image without content", iso9660.Volume{Boot: []iso9660.BootImage{{Hidden: &iso9660.File{Path: "x"}}}}},
		{"holds nothing of the kind", holds("y", 0)},
		{"holds off the sector", holds("x", 100)},
		{"holds beyond the end", holds("x", 6*iso9660.SectorSize)},
		{"holds before the start", holds("x", -iso9660.SectorSize)},
		{"endless link", iso9660.Volume{RockRidge: true, Files: []iso9660.File{iso9660.Symlink("x", strings.Repeat("y/", 4000))}}},
	} {
		if err := iso9660.Write(t.Context(), io.Discard, tc.v); err == nil {
			t.Errorf("%s: Write succeeded", tc.name)
		}
	}
}

// holds says that a boot image holds a file there.
func holds(path string, at int64) iso9660.Volume {
	hidden := iso9660.Bytes("efi", 0o444, make([]byte, 6*iso9660.SectorSize))
	return iso9660.Volume{
		Files: []iso9660.File{iso9660.Bytes("x", 0o644, []byte("x"))}, Catalog: "cat",
		Boot: []iso9660.BootImage{{Hidden: &hidden, Platform: iso9660.EFI, Holds: map[string]int64{path: at}}},
	}
}

// bootable adds boot images to the sample.
func bootable() iso9660.Volume {
	v := sample()
	v.Boot = []iso9660.BootImage{{Path: "isolinux/isolinux.bin", InfoTable: true}, {Path: "boot/efi.img", Platform: iso9660.EFI}}
	v.HybridMBR = bytes.Repeat([]byte{0x90}, 432)
	return v
}

func TestBoot(t *testing.T) {
	image := write(t, bootable())
	if len(image)%(256<<10) != 0 {
		t.Errorf("hybrid image of %d bytes is not whole cylinders", len(image))
	}
	img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Boot) != 2 || img.Boot[0].Sectors != 4 || img.Boot[1].Platform != iso9660.EFI || img.Boot[1].Sectors != 10 ||
		!slices.Equal(img.Disk, []iso9660.Platform{iso9660.BIOS, iso9660.EFI}) {
		t.Fatalf("Boot = %+v, Disk = %v", img.Boot, img.Disk)
	}
	le, efi := binary.LittleEndian, 4*img.Boot[1].Sector
	for i, want := range []struct {
		head         string // flags, first address, type, last address
		start, count uint32
	}{
		{"8000010017 0f2000", 0, efi},
		{"0000 0101ef0f2001", efi, uint32(len(image))/512 - efi},
		{"0000000000000000", 0, 0},
		{"0000000000000000", 0, 0},
	} {
		e := image[446+16*i:][:16]
		if got := fmt.Sprintf("%x", e[:8]); got != strings.ReplaceAll(want.head, " ", "") || le.Uint32(e[8:]) != want.start || le.Uint32(e[12:]) != want.count {
			t.Errorf("partition %d = %s, %d, %d; want %s, %d, %d", i+1, got, le.Uint32(e[8:]), le.Uint32(e[12:]), want.head, want.start, want.count)
		}
	}
	at := int(img.Boot[0].Sector) * iso9660.SectorSize
	if got := image[at : at+8]; string(got) != "boot cod" {
		t.Errorf("boot image begins %q", got)
	}
	if want := bytes.Repeat([]byte("boot code "), 300)[64:]; !bytes.Equal(image[at+64:at+3000], want) {
		t.Error("bytes after the information table changed")
	}
	if mbr := uint32(image[432]) | uint32(image[433])<<8; mbr != 4*img.Boot[0].Sector {
		t.Errorf("boot sector points to block %d, want %d", mbr, 4*img.Boot[0].Sector)
	}
}

// holding has an EFI boot image that no folder lists and that holds two files.
func holding() iso9660.Volume {
	v := sample()
	kernel, small := bytes.Repeat([]byte("kernel"), 2000), []byte("small")
	efi := make([]byte, 30*iso9660.SectorSize)
	copy(efi, "system partition")
	copy(efi[3*iso9660.SectorSize:], kernel)
	copy(efi[20*iso9660.SectorSize:], small)
	hidden := iso9660.Bytes("system", 0o444, efi)
	v.Files = append(v.Files, iso9660.Bytes("boot/kernel", 0o444, kernel), iso9660.Bytes("boot/small", 0o444, small))
	v.Boot = []iso9660.BootImage{
		{Path: "isolinux/isolinux.bin", InfoTable: true},
		{Hidden: &hidden, Platform: iso9660.EFI, Holds: map[string]int64{"boot/kernel": 3 * iso9660.SectorSize, "boot/small": 20 * iso9660.SectorSize}},
	}
	v.HybridMBR = bytes.Repeat([]byte{0x90}, 432)
	return v
}

// TestHolds finds held files in their boot image and nowhere else, and a hidden
// image in no folder.
func TestHolds(t *testing.T) {
	v := holding()
	image := write(t, v)
	img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Files {
		if got, err := fs.ReadFile(img, f.Path); f.Mode.IsRegular() && f.Path != "isolinux/isolinux.bin" && (err != nil || !bytes.Equal(got, content(t, f))) {
			t.Errorf("content of %q differs (%v)", f.Path, err)
		}
	}
	at := int(img.Boot[1].Sector) * iso9660.SectorSize
	if !bytes.Equal(image[at:][:30*iso9660.SectorSize], content(t, *v.Boot[1].Hidden)) {
		t.Error("the boot image is not where the catalogue says")
	}
	if n := bytes.Count(image, bytes.Repeat([]byte("kernel"), 2000)); n != 1 {
		t.Errorf("the kernel is stored %d times", n)
	}
	if _, err := img.Stat("system"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of the hidden image: %v", err)
	}
}

// TestEFIOnly has a disk's partition without BIOS code, and an image that is
// longer than the catalogue can say.
func TestEFIOnly(t *testing.T) {
	large := iso9660.File{Path: "efi.img", Mode: 0o444, Size: 33 << 20, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.LimitReader(zeros{}, 33<<20)), nil
	}}
	v := iso9660.Volume{Label: "E", RockRidge: true, Boot: []iso9660.BootImage{{Hidden: &large, Platform: iso9660.EFI}}, Catalog: "boot.cat"}
	var image head
	if err := iso9660.Write(t.Context(), &image, v); err != nil {
		t.Fatal(err)
	}
	img, err := iso9660.Open(bytes.NewReader(image.kept), image.size, iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	want := []iso9660.BootEntry{{Platform: iso9660.EFI, Bootable: true, Sectors: 0, Sector: 128}}
	if diff := cmp.Diff(want, img.Boot); diff != "" || !slices.Equal(img.Disk, []iso9660.Platform{iso9660.EFI}) {
		t.Errorf("Disk = %v, Boot (-want +got):\n%s", img.Disk, diff)
	}
}

// head keeps the first MiB of what is written.
type head struct {
	kept []byte
	size int64
}

func (h *head) Write(b []byte) (int, error) {
	h.kept = append(h.kept, b[:max(0, min(len(b), 1<<20-len(h.kept)))]...)
	h.size += int64(len(b))
	return len(b), nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestAgainstXorriso has libisofs load the image and give every file back.
func TestAgainstXorriso(t *testing.T) {
	tool := tier.Tool(t, "xorriso")
	for name, v := range map[string]iso9660.Volume{"bootable": bootable(), "holding": holding(), "many": many()} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			iso, tree := filepath.Join(dir, "x.iso"), filepath.Join(dir, "tree")
			if err := os.WriteFile(iso, write(t, v), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(tool, "-abort_on", "WARNING", "-return_with", "WARNING", "32", "-osirrox", "on", "-indev", iso,
				"-report_el_torito", "plain", "-report_system_area", "plain", "-extract", "/", tree).CombinedOutput()
			if err != nil {
				t.Fatalf("xorriso: %v\n%s", err, out)
			}
			t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", tree).Run() })
			if len(v.Boot) > 0 {
				for _, want := range []string{"El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4", "El Torito boot img :   2  UEFI  y   none", "boot-info-table", "MBR partition      :   1   0x80  0x17", "MBR partition      :   2   0x00  0xef"} {
					if !strings.Contains(string(out), want) {
						t.Errorf("report lacks %q:\n%s", want, out)
					}
				}
			}
			for _, f := range v.Files {
				p := filepath.Join(tree, f.Path)
				fi, err := os.Lstat(p)
				if err != nil {
					t.Error(err)
					continue
				}
				switch {
				case f.Mode&fs.ModeSymlink != 0:
					if got, _ := os.Readlink(p); got != f.Link {
						t.Errorf("link %q = %q, want %q", f.Path, got, f.Link)
					}
					continue
				case f.Mode.IsRegular() && (len(v.Boot) == 0 || f.Path != v.Boot[0].Path):
					if got, err := os.ReadFile(p); err != nil || !bytes.Equal(got, content(t, f)) {
						t.Errorf("content of %q differs (%v)", f.Path, err)
					}
					if !fi.ModTime().Equal(v.Time) && !v.Time.IsZero() {
						t.Errorf("time of %q = %v, want %v", f.Path, fi.ModTime(), v.Time)
					}
				}
				if fi.Mode() != f.Mode {
					t.Errorf("mode of %q = %v, want %v", f.Path, fi.Mode(), f.Mode)
				}
			}
		})
	}
}

// TestAgainstIsoinfo compares the three trees with what isoinfo lists.
func TestAgainstIsoinfo(t *testing.T) {
	tool := tier.Tool(t, "isoinfo")
	image := write(t, bootable())
	iso := filepath.Join(t.TempDir(), "x.iso")
	if err := os.WriteFile(iso, image, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		names iso9660.Names
		args  []string
	}{{iso9660.RockRidge, []string{"-R"}}, {iso9660.Joliet, []string{"-J"}}} {
		out, err := exec.Command(tool, append(append([]string{}, tc.args...), "-f", "-i", iso)...).Output()
		if err != nil {
			t.Fatalf("isoinfo %v: %v", tc.args, err)
		}
		got := map[string]bool{}
		for line := range strings.Lines(string(out)) {
			// isoinfo has no UTF-8.
			if p := strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "/"); !strings.HasPrefix(p, "unicode") {
				got[p] = true
			}
		}
		img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), tc.names)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{}
		_ = fs.WalkDir(img, ".", func(p string, _ fs.DirEntry, err error) error {
			if p != "." && !strings.HasPrefix(p, "unicode") {
				want[p] = true
			}
			return err
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("isoinfo %v (-own reader +isoinfo):\n%s", tc.args, diff)
		}
	}
	out, err := exec.Command(tool, "-d", "-i", iso).Output()
	if err != nil || !strings.Contains(string(out), "Volume id: SAMPLE\n") || !strings.Contains(string(out), "Rock Ridge signatures version 1 found") {
		t.Errorf("isoinfo -d: %v\n%s", err, out)
	}
}

// TestReadsOthers opens what genisoimage and xorriso write.
func TestReadsOthers(t *testing.T) {
	tree := t.TempDir()
	want := map[string]string{"openstack/latest/user_data": "#!/bin/sh\n", "openstack/latest/meta_data.json": "{}", strings.Repeat("q", 200): "long"}
	for p, text := range want {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, p)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, p), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("openstack/latest/../latest", filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-V", "config-2"},
		{"xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "config-2"},
	} {
		tool := tier.Tool(t, command[0])
		iso := filepath.Join(t.TempDir(), "x.iso")
		if out, err := exec.Command(tool, append(command[1:], "-o", iso, tree)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
		image, err := os.ReadFile(iso)
		if err != nil {
			t.Fatal(err)
		}
		img, err := iso9660.Open(bytes.NewReader(image), int64(len(image)), iso9660.Auto)
		if err != nil {
			t.Fatalf("%s: %v", command[0], err)
		}
		if !img.RockRidge || img.Label != "config-2" {
			t.Errorf("%s: Rock Ridge %v, label %q", command[0], img.RockRidge, img.Label)
		}
		for p, text := range want {
			if got, err := fs.ReadFile(img, p); string(got) != text || err != nil {
				t.Errorf("%s: ReadFile(%q) = %q, %v; want %q", command[0], p, got, err, text)
			}
		}
		if got, err := img.ReadLink("link"); got != "openstack/latest/../latest" || err != nil {
			t.Errorf("%s: ReadLink = %q, %v", command[0], got, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(write(f, iso9660.Volume{Label: "small", RockRidge: true, Joliet: true, Boot: []iso9660.BootImage{{Path: "a/x"}}, Files: []iso9660.File{
		iso9660.Bytes("a/x", 0o644, []byte("x")), iso9660.Symlink("link", "a/../a/x"), iso9660.Bytes(strings.Repeat("n", 200), 0o644, nil),
	}}))
	f.Add([]byte("CD001"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, names := range []iso9660.Names{iso9660.Auto, iso9660.Plain, iso9660.Joliet} {
			img, err := iso9660.Open(bytes.NewReader(data), int64(len(data)), names)
			if err != nil {
				continue
			}
			_ = fs.WalkDir(img, ".", func(p string, d fs.DirEntry, err error) error {
				if err != nil {
					t.Errorf("walking to %q: %v", p, err)
				}
				if err == nil && d.Type().IsRegular() {
					if _, err := fs.ReadFile(img, p); err != nil {
						t.Errorf("reading %q: %v", p, err)
					}
				}
				return nil
			})
		}
	})
}

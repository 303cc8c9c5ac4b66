package format_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/image/format"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/tier"
)

// bootTree is one of each kind, with other content of each file.
func bootTree() image.Tree {
	return image.Tree{
		Title: "T", Version: "V", Command: image.CommandLine{Repository: "r"},
		Kernel: iso9660.Bytes("", 0o444, bytes.Repeat([]byte("k"), 9001)), Initramfs: iso9660.Bytes("", 0o444, bytes.Repeat([]byte("initrd"), 700_000)),
		Loader: []iso9660.File{iso9660.Bytes("isolinux/isolinux.bin", 0o444, make([]byte, 100))}, HybridMBR: make([]byte, 432),
		EFI: []iso9660.File{iso9660.Bytes("EFI/BOOT/BOOTX64.EFI", 0o444, bytes.Repeat([]byte("loader"), 5000))},
	}
}

func written(t *testing.T, f format.Format, tree image.Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f.Write(t.Context(), &b, tree, image.Platforms()[0]); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	return b.Bytes()
}

// TestISOSystemPartition takes the EFI entry's volume out of an image and has
// other programs find every file of it, equal to that of the ISO 9660 tree.
func TestISOSystemPartition(t *testing.T) {
	fsck, mdir, mcopy, isoinfo := tier.Tool(t, "fsck.vfat"), tier.Tool(t, "mdir"), tier.Tool(t, "mcopy"), tier.Tool(t, "isoinfo")
	tree := bootTree()
	data := written(t, format.ISO, tree)
	img, err := iso9660.Open(bytes.NewReader(data), int64(len(data)), iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	if len(img.Boot) != 2 || img.Boot[0].Platform != iso9660.BIOS || img.Boot[1].Platform != iso9660.EFI {
		t.Fatalf("Boot = %+v", img.Boot)
	}
	dir := t.TempDir()
	iso, esp := filepath.Join(dir, "x.iso"), filepath.Join(dir, "esp.img")
	begin := int64(img.Boot[1].Sector) * iso9660.SectorSize
	volume := data[begin:][:int64(img.Boot[1].Sectors)*512]
	if err := errors.Join(os.WriteFile(iso, data, 0o600), os.WriteFile(esp, volume, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(fsck, "-n", "-v", esp).CombinedOutput(); err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
	out, err := exec.Command(mdir, "-/", "-b", "-i", esp, "::").Output()
	if err != nil {
		t.Fatalf("mdir: %v", err)
	}
	var got []string
	for p := range strings.Lines(string(out)) {
		if p = strings.TrimPrefix(strings.TrimSpace(p), "::/"); !strings.HasSuffix(p, "/") {
			got = append(got, p)
		}
	}
	slices.Sort(got)
	want := []string{"EFI/BOOT/BOOTX64.EFI", "cernvm/initrd.img", "cernvm/vmlinuz.xz", "loader/entries/debug.conf", "loader/entries/normal.conf", "loader/loader.conf"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files of the system partition (-want +got):\n%s", diff)
	}
	for _, p := range want {
		inISO, errISO := exec.Command(isoinfo, "-R", "-i", iso, "-x", "/"+p).Output()
		inFAT, errFAT := exec.Command(mcopy, "-i", esp, "::"+p, "-").Output()
		if errISO != nil || errFAT != nil || !bytes.Equal(inISO, inFAT) || len(inISO) == 0 {
			t.Errorf("%s: %d bytes in the tree (%v), %d in the system partition (%v), or they differ", p, len(inISO), errISO, len(inFAT), errFAT)
		}
	}
	// Nothing is there twice: what is not in the volume is small.
	if spare := len(data) - len(volume); spare > 1<<20 {
		t.Errorf("an image of %d bytes around a system partition of %d", len(data), len(volume))
	}
}

// TestISOMenus has the two boot menus say the same.
func TestISOMenus(t *testing.T) {
	for _, p := range image.Platforms() {
		tree := bootTree()
		files, err := tree.Files(p)
		if err != nil {
			t.Fatal(err)
		}
		text := map[string]string{}
		for _, f := range files {
			if f.Size < 4096 && f.Open != nil {
				r, err := f.Open()
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}
				text[f.Path] = string(b)
			}
		}
		for _, e := range []image.Entry{image.Normal, image.Debug} {
			title := map[image.Entry]string{image.Normal: "T", image.Debug: "T (debug)"}[e]
			_, section, _ := strings.Cut(text["isolinux/isolinux.cfg"], "label "+string(e)+"\n")
			_, words, _ := strings.Cut(section, "append ")
			words, _, _ = strings.Cut(words, "\n")
			want := fmt.Sprintf("title %s\nsort-key %d\nlinux /cernvm/vmlinuz.xz\ninitrd /cernvm/initrd.img\noptions %s\n", title, 1+strings.Count(string(e), "debug"), words)
			if diff := cmp.Diff(want, text["loader/entries/"+string(e)+".conf"]); diff != "" || words == "" {
				t.Errorf("%s %s (-isolinux's +systemd-boot's):\n%s", p.Name, e, diff)
			}
		}
		if want := "timeout 2\ndefault normal.conf\nauto-entries no\nauto-firmware no\n"; text["loader/loader.conf"] != want {
			t.Errorf("loader.conf = %q, want %q", text["loader/loader.conf"], want)
		}
	}
}

// TestISOFirmware is what an image says it starts from.
func TestISOFirmware(t *testing.T) {
	bios, efi := bootTree(), bootTree()
	bios.EFI = nil
	efi.Loader, efi.HybridMBR = nil, nil
	for _, tc := range []struct {
		tree image.Tree
		want []string
	}{
		{bootTree(), []string{"BIOS", "EFI", "BIOS from a disk", "EFI from a disk"}},
		{bios, []string{"BIOS", "BIOS from a disk"}},
		{efi, []string{"EFI", "EFI from a disk"}},
	} {
		data := written(t, format.ISO, tc.tree)
		c, err := format.ISO.Open(bytes.NewReader(data), int64(len(data)))
		if diff := cmp.Diff(tc.want, c.Firmware); err != nil || diff != "" {
			t.Errorf("firmware (%v, -want +got):\n%s", err, diff)
			continue
		}
		words, err := tc.tree.Command.Words(image.Platforms()[0], image.Debug)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := image.Describe(c.Files); err != nil || d.CommandLine[image.Debug] != strings.Join(words, " ") || len(d.CommandLine) != 2 {
			t.Errorf("image that starts by %q: Describe = %+v, %v", tc.want, d, err)
		}
	}
}

// TestISORefuses has parts that are not as long as they say.
func TestISORefuses(t *testing.T) {
	for name, size := range map[string]int64{"short": 9002, "long": 9000} {
		tree := bootTree()
		tree.Kernel.Size = size
		if err := format.ISO.Write(t.Context(), io.Discard, tree, image.Platforms()[0]); err == nil || !strings.Contains(err.Error(), image.KernelPath) {
			t.Errorf("%s kernel: Write = %v", name, err)
		}
	}
}

// TestEveryFormat is what each form must do: deterministic bytes, its own
// magic, a round trip, and an error for a truncated image.
func TestEveryFormat(t *testing.T) {
	tree := bootTree()
	names := map[string]bool{}
	for _, f := range format.All() {
		if names[f.Name] {
			t.Errorf("two formats are called %q", f.Name)
		}
		names[f.Name] = true
		first := written(t, f, tree)
		if !bytes.Equal(first, written(t, f, tree)) {
			t.Errorf("%s: two images of one tree differ", f.Name)
		}
		found, err := format.Detect(bytes.NewReader(first))
		if err != nil || found.Name != f.Name {
			t.Errorf("%s: Detect = %q, %v", f.Name, found.Name, err)
		}
		c, err := f.Open(bytes.NewReader(first), int64(len(first)))
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if d, err := image.Describe(c.Files); err != nil || d.Version != "V" {
			t.Errorf("%s: Describe = %+v, %v", f.Name, d, err)
		}
		cut := first[:len(first)/2/2048*2048-1]
		if _, err := f.Open(bytes.NewReader(cut), int64(len(cut))); !errors.Is(err, image.ErrFormat) {
			t.Errorf("%s: Open of a truncated image = %v, want ErrFormat", f.Name, err)
		}
	}
}

func TestUnknown(t *testing.T) {
	if _, err := format.Named("floppy"); !fail.Is(err, fail.Usage) {
		t.Errorf("Named = %v, want a usage error", err)
	}
	if _, err := format.Detect(bytes.NewReader([]byte("x"))); !errors.Is(err, image.ErrFormat) {
		t.Errorf("Detect = %v, want ErrFormat", err)
	}
}

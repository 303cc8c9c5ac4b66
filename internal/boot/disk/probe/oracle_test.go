package probe_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/boot/disk/probe"
	"github.com/micavm/mica/internal/tier"
)

// image is one thing that a real program makes, and the program to make it.
type image struct {
	name string
	size int64 // of the empty file the program is given; 0 if it makes the file
	argv []string
	want string // type; blkid has the last word on label and uuid
	skip string // fields in which blkid differs on purpose, with the reason in the comment
}

// images lists every maker that is tried. @ stands for the file, @dir for a
// small tree of files.
func images() []image {
	mke2fs := func(more ...string) []string { return append([]string{"mke2fs", "-q", "-F"}, more...) }
	return []image{
		{"ext2", 8 << 20, mke2fs("-t", "ext2", "-L", "two", "@"), "ext2", ""},
		{"ext3", 16 << 20, mke2fs("-t", "ext3", "-L", "three", "@"), "ext3", ""},
		{"ext4", 64 << 20, mke2fs("-t", "ext4", "-L", "UROOT", "-O", "metadata_csum,64bit", "@"), "ext4", ""},
		{"ext4 1k", 8 << 20, mke2fs("-t", "ext4", "-b", "1024", "@"), "ext4", ""},
		{"ext4 rev0", 8 << 20, mke2fs("-t", "ext2", "-r", "0", "@"), "ext2", ""},
		{"journal", 16 << 20, mke2fs("-O", "journal_dev", "@"), "jbd", ""},
		{"xfs", 320 << 20, []string{"mkfs.xfs", "-q", "-L", "xlabel", "@"}, "xfs", ""},
		{"btrfs", 128 << 20, []string{"mkfs.btrfs", "-q", "-L", "blabel", "@"}, "btrfs", ""},
		{"fat12", 1440 << 10, []string{"mkfs.vfat", "-F", "12", "-n", "CIDATA", "@"}, "vfat", ""},
		{"fat16", 16 << 20, []string{"mkfs.vfat", "-F", "16", "-n", "SIXTEEN", "@"}, "vfat", ""},
		{"fat32", 64 << 20, []string{"mkfs.vfat", "-F", "32", "-n", "UCERNVM", "@"}, "vfat", ""},
		{"fat no name", 4 << 20, []string{"mkfs.vfat", "@"}, "vfat", ""},
		{"exfat", 16 << 20, []string{"mkfs.exfat", "-n", "exlabel", "@"}, "exfat", ""},
		{"ntfs", 16 << 20, []string{"mkntfs", "-q", "-F", "-f", "-L", "Temporary Storage", "@"}, "ntfs", ""},
		{"swap", 1 << 20, []string{"mkswap", "-L", "swlabel", "@"}, "swap", ""},
		{"swap 16k", 1 << 20, []string{"mkswap", "-p", "16384", "@"}, "swap", ""},
		{"swap 64k", 1 << 20, []string{"mkswap", "-p", "65536", "@"}, "swap", ""},
		{"f2fs", 64 << 20, []string{"mkfs.f2fs", "-q", "-l", "flabel", "@"}, "f2fs", ""},
		{"jfs", 32 << 20, []string{"mkfs.jfs", "-q", "-L", "jlabel", "@"}, "jfs", ""},
		{"reiserfs", 64 << 20, []string{"mkfs.reiserfs", "-q", "-ff", "-l", "rlabel", "@"}, "reiserfs", ""},
		{"nilfs2", 160 << 20, []string{"mkfs.nilfs2", "-q", "-L", "nlabel", "@"}, "nilfs2", ""},
		{"minix", 4 << 20, []string{"mkfs.minix", "@"}, "minix", ""},
		{"udf", 16 << 20, []string{"mkudffs", "-b", "2048", "--label=UDFLABEL", "@"}, "udf", "uuid"}, // blkid makes one out of the volume set
		{"udf 512", 16 << 20, []string{"mkudffs", "-b", "512", "--label=UDF512", "@"}, "udf", "uuid"},
		{"iso", 0, []string{"genisoimage", "-quiet", "-V", "CONFIG-2", "-o", "@", "-r", "-J", "@dir"}, "iso9660", ""},
		{"iso plain", 0, []string{"genisoimage", "-quiet", "-V", "CIDATA", "-o", "@", "@dir"}, "iso9660", ""},
		{"squashfs", 0, []string{"mksquashfs", "@dir", "@", "-quiet", "-noappend"}, "squashfs", ""},
		{"erofs", 0, []string{"mkfs.erofs", "@", "@dir"}, "erofs", ""},
		{"cramfs", 0, []string{"mkfs.cramfs", "@dir", "@"}, "cramfs", "label"}, // has a name in its header that is never set
		{"luks1", 32 << 20, []string{"cryptsetup", "luksFormat", "-q", "--type", "luks1", "--iter-time", "10", "--key-file", "@key", "@"}, "crypto_LUKS", ""},
		{"luks2", 32 << 20, []string{"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--label", "llabel", "--pbkdf", "pbkdf2", "--iter-time", "10", "--key-file", "@key", "@"}, "crypto_LUKS", ""},
		{"bcache", 16 << 20, []string{"make-bcache", "-B", "@"}, "bcache", "usage"},
	}
}

func (m image) make(t *testing.T, dir string) string {
	t.Helper()
	tier.Tool(t, m.argv[0])
	file := filepath.Join(dir, "image")
	if m.size > 0 {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, m.size); err != nil {
			t.Fatal(err)
		}
	}
	tree, key := filepath.Join(dir, "tree"), filepath.Join(dir, "key")
	for name, data := range map[string]string{"user-data": "x\n", "meta-data": "instance-id: i-1\n", ".ucernvm_boot_loader": ""} {
		if err := os.MkdirAll(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(key, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, a := range m.argv[1:] {
		switch a {
		case "@":
			a = file
		case "@dir":
			a = tree
		case "@key":
			a = key
		}
		args = append(args, a)
	}
	cmd := exec.CommandContext(t.Context(), m.argv[0], args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", m.argv[0], err, out)
	}
	return file
}

// TestAgainstBlkid makes one image with each program that is installed and
// compares with what libblkid says about it.
func TestAgainstBlkid(t *testing.T) {
	tier.Full(t)
	blkid := tier.Tool(t, "blkid")
	for _, m := range images() {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			file := m.make(t, t.TempDir())
			got := read(t, file)
			if got.Type != m.want {
				t.Errorf("Type = %q (all %v), want %q", got.Type, got.All, m.want)
			}
			out, err := exec.CommandContext(t.Context(), blkid, "-p", "-o", "export", file).Output()
			if err != nil {
				t.Fatalf("blkid: %v", err)
			}
			says := map[string]string{}
			for line := range strings.Lines(string(out)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				says[key] = strings.TrimSpace(strings.ReplaceAll(value, `\`, ""))
			}
			if m.skip == "usage" { // a cache member must win over what it caches
				says["USAGE"] = string(got.Usage)
			}
			if got.Type != says["TYPE"] || string(got.Usage) != says["USAGE"] {
				t.Errorf("type %q, usage %q; blkid: %q, %q", got.Type, got.Usage, says["TYPE"], says["USAGE"])
			}
			if m.skip != "label" && got.Label != says["LABEL"] {
				t.Errorf("label = %q, blkid %q", got.Label, says["LABEL"])
			}
			if m.skip != "uuid" && got.UUID != says["UUID"] {
				t.Errorf("uuid = %q, blkid %q", got.UUID, says["UUID"])
			}
		})
	}
}

// TestRoot reads the root directories that the real programs made.
func TestRoot(t *testing.T) {
	tier.Full(t)
	tree := []string{".ucernvm_boot_loader", "meta-data", "user-data"}
	for _, m := range images() {
		var want []string
		switch {
		case strings.HasPrefix(m.name, "ext"):
			want = []string{"lost+found"}
		case m.name == "iso":
			want = tree
		case m.name == "iso plain":
			want = []string{"_ucernvm_.", "meta_dat", "user_dat"}
		case strings.HasPrefix(m.name, "fat"):
			want = []string{}
		default:
			continue
		}
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			file := m.make(t, t.TempDir())
			if strings.HasPrefix(m.name, "fat") {
				mcopy := tier.Tool(t, "mcopy")
				for _, name := range tree {
					src := filepath.Join(filepath.Dir(file), "tree", name)
					if out, err := exec.CommandContext(t.Context(), mcopy, "-i", file, src, "::").CombinedOutput(); err != nil {
						t.Fatalf("mcopy: %v: %s", err, out)
					}
				}
				want = tree
			}
			got := read(t, file)
			names := slices.Sorted(slices.Values(got.Root))
			if !got.RootRead {
				t.Error("the root directory was not read whole")
			}
			if m.name == "iso plain" { // names are mangled by rules of the program; only their number is ours to know
				if len(names) != 3 {
					t.Errorf("Root = %q, want three names", names)
				}
				return
			}
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("Root (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNTFSRoot copies files into an NTFS root until it needs more than one index
// block.
func TestNTFSRoot(t *testing.T) {
	tier.Full(t)
	ntfscp := tier.Tool(t, "ntfscp")
	dir := t.TempDir()
	m := image{"ntfs", 16 << 20, []string{"mkntfs", "-q", "-F", "-f", "-L", "Temporary Storage", "@"}, "ntfs", ""}
	file := m.make(t, dir)
	if got := read(t, file); !got.RootRead || len(got.Root) != 0 {
		t.Errorf("a new one has Root %q, read whole: %v", got.Root, got.RootRead)
	}
	var want []string
	for i := range 60 {
		name := "DATALOSS_WARNING_README_" + strings.Repeat("é", 1+i%5) + "_" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".txt"
		want = append(want, name)
		cmd := exec.CommandContext(t.Context(), ntfscp, "-q", "-f", file, filepath.Join(dir, "key"), name)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ntfscp: %v: %s", err, out)
		}
	}
	slices.Sort(want)
	got := read(t, file)
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(got.Root))); diff != "" || !got.RootRead {
		t.Errorf("read whole: %v, Root (-want +got):\n%s", got.RootRead, diff)
	}
}

// TestLargeExtRoot fills a root directory beyond one block, with and without
// extents.
func TestLargeExtRoot(t *testing.T) {
	tier.Full(t)
	mke2fs := tier.Tool(t, "mke2fs")
	for _, kind := range []string{"ext2", "ext3", "ext4"} {
		dir := t.TempDir()
		tree := filepath.Join(dir, "tree")
		if err := os.Mkdir(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		want := []string{"lost+found"}
		for i := range 700 {
			name := "a-name-of-some-length-" + string(rune('a'+i%26)) + "-" + strings.Repeat("x", i/26)
			want = append(want, name)
			if err := os.WriteFile(filepath.Join(tree, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(want)
		file := filepath.Join(dir, "image")
		out, err := exec.CommandContext(t.Context(), mke2fs, "-q", "-t", kind, "-b", "1024", "-N", "2000", "-d", tree, file, "16M").CombinedOutput()
		if err != nil {
			t.Fatalf("mke2fs: %v: %s", err, out)
		}
		got := read(t, file)
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(got.Root))); diff != "" || !got.RootRead {
			t.Errorf("%s: read whole: %v, (-want +got):\n%s", kind, got.RootRead, diff)
		}
	}
}

func read(t *testing.T, file string) probe.Content {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c, err := probe.Read(f, info.Size())
	if err != nil {
		t.Fatalf("Read(%s) = %v", file, err)
	}
	return c
}

// TestLVM needs a block device: pvcreate takes nothing else.
func TestLVM(t *testing.T) {
	tier.Root(t)
	pvcreate, losetup := tier.Tool(t, "pvcreate"), tier.Tool(t, "losetup")
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), losetup, "--find", "--show", file).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	text, makeErr := exec.CommandContext(t.Context(), pvcreate, "-ff", "-y", loop).CombinedOutput()
	if err := exec.CommandContext(t.Context(), losetup, "-d", loop).Run(); err != nil {
		t.Errorf("losetup -d %s: %v", loop, err)
	}
	if makeErr != nil {
		t.Fatalf("pvcreate: %v: %s", makeErr, text)
	}
	got := read(t, file)
	says, err := exec.CommandContext(t.Context(), tier.Tool(t, "blkid"), "-p", "-o", "value", "-s", "TYPE", "-s", "UUID", file).Output()
	if err != nil || got.Type != "LVM2_member" || !strings.Contains(string(says), got.UUID) || got.UUID == "" {
		t.Errorf("type %q, uuid %q; blkid %q, %v", got.Type, got.UUID, says, err)
	}
}

package build_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"debug/elf"
	"encoding/binary"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/image/build"
	"github.com/micavm/mica/internal/image/format"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/tier"
)

// program is an ELF header that says static x86-64.
func program(t *testing.T, machine elf.Machine) string {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64,
	}); err != nil {
		t.Fatal(err)
	}
	return save(t, "mica-guest", b.Bytes())
}

func key(t *testing.T) string {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return save(t, "os.example.org.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func save(t *testing.T, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func options(t *testing.T) build.Options {
	t.Helper()
	return build.Options{
		Output:  filepath.Join(t.TempDir(), "x.iso"),
		Command: image.CommandLine{Repository: "os.example.org", Servers: []string{"s1.example.org"}, Tag: "v1"},
		Keys:    []string{key(t)}, Guest: program(t, elf.EM_X86_64), Cache: t.TempDir(), Run: run.NewReplay(),
	}
}

func TestRefusedBeforeAnythingRuns(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(o *build.Options)
		class fail.Class
		says  string
	}{
		{"no repository", func(o *build.Options) { o.Command.Repository = "" }, fail.Usage, "repository name"},
		{"path as repository", func(o *build.Options) { o.Command.Repository = "../../etc" }, fail.Usage, "repository name"},
		{"no server", func(o *build.Options) { o.Command.Servers = nil }, fail.Usage, "no server"},
		{"both kinds of server", func(o *build.Options) { o.Command.URLs = []string{"http://x"} }, fail.Usage, "both"},
		{"no key", func(o *build.Options) { o.Keys = nil }, fail.Usage, "no key"},
		{"missing key", func(o *build.Options) { o.Keys = []string{"/nonexistent.pub"} }, fail.NotFound, "no key at"},
		{"not a key", func(o *build.Options) { o.Keys = []string{o.Guest} }, fail.Usage, "key"},
		{"one key twice", func(o *build.Options) { o.Keys = append(o.Keys, o.Keys[0]) }, fail.Usage, "two keys"},
		{"missing guest", func(o *build.Options) { o.Guest = "/nonexistent" }, fail.NotFound, "no guest binary"},
		{"script as guest", func(o *build.Options) { o.Guest = o.Keys[0] }, fail.Usage, "guest binary"},
		{"guest of another machine", func(o *build.Options) { o.Guest = program(t, elf.EM_AARCH64) }, fail.Usage, "EM_AARCH64, the image for x86_64"},
		{"guest of this machine for another", func(o *build.Options) { o.Command.Arch = image.ARM }, fail.Usage, "EM_X86_64, the image for aarch64"},
		{"unknown architecture", func(o *build.Options) { o.Command.Arch = "sparc" }, fail.Usage, "architecture"},
		{"xz for another", func(o *build.Options) { o.Command.Arch, o.Compression = image.ARM, build.XZ }, fail.Usage, "x86-64"},
		{"unknown compression", func(o *build.Options) { o.Compression = "lzo" }, fail.Usage, "compression"},
		{"injected words", func(o *build.Options) { o.Command.Tag = "x init=/bin/sh" }, fail.Usage, "command line"},
	} {
		o := options(t)
		tc.spoil(&o)
		_, err := build.Image(t.Context(), o, format.ISO)
		if !fail.Is(err, tc.class) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: Image = %v (class %d), want class %d with %q", tc.name, err, fail.ClassOf(err), tc.class, tc.says)
		}
		if _, err := os.Stat(o.Output); err == nil {
			t.Errorf("%s: an image was written", tc.name)
		}
	}
}

func TestAptsComplaintReachesTheUser(t *testing.T) {
	o := options(t)
	o.Run = run.NewReplay(run.Exchange{Line: "apt-cache depends --important linux-image-amd64", Code: 100, Stderr: "E: No packages found\n"})
	_, err := build.Image(t.Context(), o, format.ISO)
	if !fail.Is(err, fail.Refused) || !strings.Contains(err.Error(), "No packages found") || !strings.Contains(strings.Join(fail.Hints(err), " "), "apt-get update") {
		t.Errorf("Image = %v, hints %q", err, fail.Hints(err))
	}
}

func TestParseEpoch(t *testing.T) {
	for text, want := range map[string]int64{"": build.DefaultEpoch.Unix(), "1700000000": 1_700_000_000} {
		if got, err := build.ParseEpoch(text); err != nil || got.Unix() != want {
			t.Errorf("ParseEpoch(%q) = %v, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-1", "0", "99999999999"} {
		if _, err := build.ParseEpoch(text); !fail.Is(err, fail.Usage) {
			t.Errorf("ParseEpoch(%q) = %v, want a usage error", text, err)
		}
	}
}

// TestRealBuild builds from Debian's packages: once with apt, once more in another
// folder from the cache with every program refused, and looks at the results with
// other tools.
func TestRealBuild(t *testing.T) {
	tier.Full(t)
	tier.Tool(t, "apt-get")
	zstd, cpio, isoinfo := tier.Tool(t, "zstd"), tier.Tool(t, "cpio"), tier.Tool(t, "isoinfo")
	o := options(t)
	o.Compression, o.Run = build.Zstd, run.Host{}
	first, err := build.Image(t.Context(), o, format.ISO)
	if fail.Is(err, fail.Refused) {
		t.Skipf("apt has no packages: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	one := o.Output
	o.Output, o.Run = filepath.Join(t.TempDir(), "deeper", "y.iso"), run.NewReplay()
	if err := os.Mkdir(filepath.Dir(o.Output), 0o700); err != nil {
		t.Fatal(err)
	}
	second, err := build.Image(t.Context(), o, format.ISO)
	if err != nil {
		t.Fatalf("from the cache: %v", err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("manifests (-first +second):\n%s", diff)
	}
	a, errA := os.ReadFile(one)
	b, errB := os.ReadFile(o.Output)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("two builds differ (%v, %v)", errA, errB)
	}
	if v, err := image.Check(one); err != nil || !v.Verified || v.SHA256 != first.SHA256 {
		t.Errorf("Check = %+v, %v", v, err)
	}
	if c, err := format.ISO.Open(bytes.NewReader(a), int64(len(a))); err != nil || !slices.Equal(c.Firmware, []string{"BIOS", "EFI", "BIOS from a disk", "EFI from a disk"}) {
		t.Errorf("starts by %q, %v", c.Firmware, err)
	}
	const budget = 18 << 20
	if len(a) > budget {
		t.Errorf("image of %d bytes, without a guest, is above %d", len(a), budget)
	}
	packed, err := exec.Command(isoinfo, "-R", "-i", one, "-x", "/cernvm/initrd.img").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, part := range frames(t, zstd, packed) {
		list := exec.Command(cpio, "-it", "--quiet")
		list.Stdin = bytes.NewReader(part)
		out, err := list.Output()
		if err != nil {
			t.Fatalf("cpio: %v", err)
		}
		names = append(names, strings.Fields(string(out))...)
	}
	have := map[string]bool{}
	for _, n := range names {
		have[n] = true
	}
	tree := "lib/modules/" + first.KernelRelease
	for _, want := range []string{
		"init", "bin/mica-guest", "bin/busybox", "bin/sh", "sbin/mke2fs", "sbin/mkfs.ext4", "sbin/e2fsck", "sbin/resize2fs", "sbin/tune2fs", "etc/mke2fs.conf",
		"lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6", "lib/x86_64-linux-gnu/libext2fs.so.2", "etc/cvmfs/keys/os.example.org/os.example.org.pub",
		"version", "etc/mica/build-time", "dev/console", tree + "/modules.dep", tree + "/modules.alias", tree + "/modules.softdep", tree + "/modules.builtin",
	} {
		if !have[want] {
			t.Errorf("the initramfs has no %s", want)
		}
	}
	for _, m := range []string{"virtio_pci", "virtio_blk", "virtio_net", "ext4", "overlay", "fuse", "isofs", "udf", "vfat", "ahci", "sr_mod", "9p", "virtiofs", "vboxsf", "hv_netvsc", "xen_blkfront", "nvme"} {
		found := false
		for _, n := range first.Modules {
			found = found || n == m
		}
		if !found {
			t.Errorf("the boot set has no %s", m)
		}
	}
}

// frames unpacks the two frames of an initramfs, between which there may be
// zeros for the kernel's alignment.
func frames(t *testing.T, zstd string, packed []byte) [][]byte {
	t.Helper()
	decode := func(b []byte) ([]byte, error) {
		cmd := exec.Command(zstd, "-dc")
		cmd.Stdin = bytes.NewReader(b)
		return cmd.Output()
	}
	magic := []byte("\x28\xb5\x2f\xfd")
	for at := 4; at < len(packed); at += 4 {
		if !bytes.HasPrefix(packed[at:], magic) {
			continue
		}
		// The first frame's checksum may end in zeros.
		for end := at; end > at-4; end-- {
			first, err := decode(packed[:end])
			if err != nil {
				continue
			}
			if second, err := decode(packed[at:]); err == nil {
				return [][]byte{first, second}
			}
		}
	}
	t.Fatal("the initramfs does not have two zstd frames")
	return nil
}

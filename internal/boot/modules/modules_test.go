package modules

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ulikunitz/xz"
)

// tree is a small module tree with the awkward cases: a chain, a dash in a
// name, a softdep, compressed files, a dependency that is missing.
func tree() fstest.MapFS {
	return fstest.MapFS{
		"modules.dep": {Data: []byte(`# made by hand
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko kernel/fs/mbcache.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc16.ko:
kernel/fs/mbcache.ko:
kernel/crypto/crc32c_generic.ko.xz:
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/virtio_net.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/ata/ata-piix.ko:
kernel/broken.ko: kernel/missing.ko
kernel/a.ko:
kernel/b.ko:
`)},
		"modules.alias": {Data: []byte("alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\nalias virtio:d00000001v* virtio_net\n" +
			"alias fs-ext4 ext4\nalias crypto-crc32c crc32c_generic\nalias pci:v00008086d00007010sv*sd*bc*sc*i* ata-piix\nalias gone nowhere\n")},
		"modules.softdep": {Data: []byte("softdep ext4 pre: crc32c_generic post: a\nsoftdep a pre: b\nsoftdep b pre: a\n")},
		"modules.builtin": {Data: []byte("kernel/fs/fuse/fuse.ko\nkernel/drivers/virtio/virtio-mmio.ko\n")},
	}
}

func TestResolve(t *testing.T) {
	x, err := Open(tree())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, want string }{
		{"ext4", "crc32c_generic mbcache crc16 jbd2 ext4"},
		{"fs-ext4", "crc32c_generic mbcache crc16 jbd2 ext4"},
		{"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "virtio virtio_ring virtio_pci"},
		{"virtio:d00000001v00001AF4", "virtio virtio_ring virtio_net"},
		{"ata-piix", "ata_piix"},
		{"ata_piix", "ata_piix"},
		{"fuse", ""},        // built in
		{"virtio-mmio", ""}, // built in, with a dash
		{"gone", ""},        // an alias to a module that is not in this tree
		{"a", "b a"},        // softdeps in a circle
	} {
		files, err := x.Resolve(tc.name)
		if err != nil {
			t.Errorf("Resolve(%q): %v", tc.name, err)
			continue
		}
		var names []string
		for _, f := range files {
			names = append(names, Name(f))
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("Resolve(%q) = %q, want %q", tc.name, got, tc.want)
		}
	}
	if _, err := x.Resolve("nothing"); !errors.Is(err, ErrUnknown) {
		t.Errorf("Resolve(nothing) = %v, want ErrUnknown", err)
	}
	if _, err := x.Resolve("broken"); err == nil || !strings.Contains(err.Error(), "missing.ko") {
		t.Errorf("Resolve(broken) = %v, want an error that names missing.ko", err)
	}
}

func TestOpenWithoutDep(t *testing.T) {
	if _, err := Open(fstest.MapFS{}); err == nil {
		t.Error("Open of an empty tree succeeded")
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"a*c", "abbc", true},
		{"a*c", "abb", false},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"a[0-9]", "a5", true},
		{"a[0-9]", "ax", false},
		{"a[!0-9]", "ax", true},
		{"[abc]d", "bd", true},
		{"a[", "a[", true},
		{"*a*b*c", "xxaxxbxxc", true},
		{strings.Repeat("*a", 30) + "b", strings.Repeat("a", 3000), false}, // must not take exponential time
	} {
		if got := Match(tc.pattern, tc.text); got != tc.want {
			t.Errorf("Match(%q, %.20q) = %v, want %v", tc.pattern, tc.text, got, tc.want)
		}
	}
}

// TestColdplug gives a fixture sysfs in which loading one driver makes the next
// device appear.
func TestColdplug(t *testing.T) {
	sys, dir := t.TempDir(), t.TempDir()
	for name, f := range tree() {
		if err := os.WriteFile(filepath.Join(dir, name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	device := func(name, alias string) {
		d := filepath.Join(sys, "bus", name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "modalias"), []byte(alias+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	device("pci/devices/00", "pci:v00001AF4d00001000sv0sd0bc02sc00i00")
	device("pci/devices/01", "pci:v0000FFFFd00001000sv0sd0bc02sc00i00") // no driver for it
	l, err := NewLoader(dir)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	l.insert = func(file string) error {
		order = append(order, Name(file))
		if Name(file) == "virtio_pci" {
			device("virtio/devices/virtio0", "virtio:d00000001v00001AF4")
		}
		return nil
	}
	if errs := l.Coldplug(t.Context(), sys); len(errs) != 0 {
		t.Errorf("Coldplug: %v", errs)
	}
	if got, want := strings.Join(order, " "), "virtio virtio_ring virtio_pci virtio_net"; got != want {
		t.Errorf("loaded %q, want %q", got, want)
	}
	l.insert = func(string) error { return errors.New("should not load again") }
	if err := l.Load("virtio_net"); err != nil {
		t.Errorf("second Load: %v", err)
	}
}

func TestUnpack(t *testing.T) {
	want := bytes.Repeat([]byte("\x7fELF module "), 1000)
	var gz, xzb bytes.Buffer
	g := gzip.NewWriter(&gz)
	x, err := xz.NewWriter(&xzb)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []interface {
		Write([]byte) (int, error)
		Close() error
	}{g, x} {
		if _, err := w.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string][]byte{"m.ko": want, "m.ko.gz": gz.Bytes(), "m.ko.xz": xzb.Bytes()} {
		got, err := Unpack(name, bytes.NewReader(data))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("Unpack(%q) = %d bytes, %v; want %d bytes", name, len(got), err, len(want))
		}
		if name != "m.ko" {
			if _, err := Unpack(name, bytes.NewReader(data[:len(data)/2])); err == nil {
				t.Errorf("Unpack(%q) of half the file succeeded", name)
			}
		}
	}
	if _, err := Unpack("m.ko.zst", bytes.NewReader(nil)); err == nil || !strings.Contains(err.Error(), "m.ko.zst") {
		t.Errorf("Unpack(m.ko.zst) = %v, want a refusal that names it", err)
	}
}

func FuzzIndex(f *testing.F) {
	fixture := tree()
	f.Add(fixture["modules.dep"].Data, fixture["modules.alias"].Data, fixture["modules.softdep"].Data, "ext4")
	f.Add([]byte("a.ko: b.ko\nb.ko: a.ko\n"), []byte("alias * a"), []byte("softdep a pre: b"), "a")
	f.Fuzz(func(t *testing.T, dep, alias, soft []byte, name string) {
		x, err := Open(fstest.MapFS{"modules.dep": {Data: dep}, "modules.alias": {Data: alias}, "modules.softdep": {Data: soft}})
		if err != nil {
			t.Fatal(err)
		}
		files, err := x.Resolve(name)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, file := range files {
			if seen[file] {
				t.Errorf("Resolve(%q) loads %q twice", name, file)
			}
			seen[file] = true
		}
	})
}

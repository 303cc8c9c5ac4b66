package modules_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"

	"github.com/micavm/mica/internal/boot/modules"
	build "github.com/micavm/mica/internal/image/build/modules"
)

// object is a minimal ELF object with a .modinfo section.
func object(info ...string) []byte {
	data := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	const header, section = 64, 64
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	offset := header + len(data) + len(names)
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(offset), Ehsize: header, Shentsize: section, Shnum: 3, Shstrndx: 2,
	})
	b.Write(data)
	b.Write(names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(data))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(header + len(data)), Size: uint64(len(names))})
	return b.Bytes()
}

func parse(t *testing.T, p string, info ...string) build.Module {
	t.Helper()
	m, err := build.Parse(p, object(info...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func all(t *testing.T) []build.Module {
	return []build.Module{
		parse(t, "kernel/fs/ext4/ext4.ko", "license=GPL", "alias=fs-ext4", "depends=jbd2,mbcache,crc16", "softdep=pre: crypto-crc32c"),
		parse(t, "kernel/fs/jbd2/jbd2.ko", "depends=crc16"),
		parse(t, "kernel/fs/mbcache.ko", "depends="),
		parse(t, "kernel/lib/crc16.ko"),
		parse(t, "kernel/crypto/crc32c-generic.ko", "alias=crypto-crc32c", "alias=crypto-crc32c-generic"),
		parse(t, "kernel/drivers/unwanted.ko", "alias=pci:v*"),
		parse(t, "kernel/drivers/net/e1000.ko", "alias=pci:v00008086d0000100Esv*sd*bc*sc*i*", "depends=builtin_thing"),
	}
}

const builtin = "kernel/lib/builtin-thing.ko\nkernel/drivers/char/hw_random/rng-core.ko\n"

func TestChooseAndIndex(t *testing.T) {
	s, err := build.Choose(all(t), []byte(builtin), []string{"ext4", "e1000", "rng_core", "no-such"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"no-such"}, s.Missing); diff != "" {
		t.Errorf("Missing (-want +got):\n%s", diff)
	}
	want := map[string]string{
		"modules.dep": "kernel/crypto/crc32c-generic.ko:\nkernel/drivers/net/e1000.ko:\n" +
			"kernel/fs/ext4/ext4.ko: kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n" +
			"kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\nkernel/fs/mbcache.ko:\nkernel/lib/crc16.ko:\n",
		"modules.alias": "alias crypto-crc32c crc32c_generic\nalias crypto-crc32c-generic crc32c_generic\n" +
			"alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\nalias fs-ext4 ext4\n",
		"modules.softdep": "softdep ext4 pre: crypto-crc32c\n",
		"modules.builtin": builtin,
	}
	got := map[string]string{}
	tree := fstest.MapFS{}
	for name, data := range s.Index() {
		got[name] = string(data)
		tree[name] = &fstest.MapFile{Data: data}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Index (-want +got):\n%s", diff)
	}
	if _, err := modules.Open(tree); err != nil {
		t.Errorf("the guest's loader does not read the index: %v", err)
	}
}

func TestDependencyThatIsNotThere(t *testing.T) {
	if _, err := build.Choose([]build.Module{parse(t, "a.ko", "depends=gone")}, nil, []string{"a"}); err == nil || !strings.Contains(err.Error(), `"gone"`) {
		t.Errorf("Choose = %v, want an error that names the module", err)
	}
}

func TestDependencyCycleEnds(t *testing.T) {
	s, err := build.Choose([]build.Module{parse(t, "a.ko", "depends=b"), parse(t, "b.ko", "depends=a")}, nil, []string{"a"})
	if err != nil || len(s.Modules) != 2 {
		t.Errorf("Choose = %d modules, %v; want 2", len(s.Modules), err)
	}
	_ = s.Index()
}

func TestCompressedModule(t *testing.T) {
	plain := object("depends=b-c")
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(plain)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := build.Parse("kernel/a.ko.xz", b.Bytes())
	if err != nil || m.Path != "kernel/a.ko" || !bytes.Equal(m.Data, plain) || len(m.Depends) != 1 || m.Depends[0] != "b_c" {
		t.Errorf("Parse = path %q, depends %q, %v", m.Path, m.Depends, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(object("depends=a,b", "alias=x"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = build.Parse("kernel/x.ko", data) })
}

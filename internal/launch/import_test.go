package launch_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/tier"
)

const description = `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="f" ovf:href="d.vmdk"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="67108864" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<VirtualSystem ovf:id="My Appliance"><VirtualHardwareSection>
<Item><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>/disk/d</rasd:HostResource></Item>%s
</VirtualHardwareSection></VirtualSystem></Envelope>`

// appliance writes an OVA file.
func (d *desk) appliance(name, ovf string, disk []byte) string {
	d.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []struct{ name, data string }{
		{"a.ovf", ovf},
		{"d.vmdk", string(disk)},
		{"a.mf", fmt.Sprintf("SHA1(a.ovf)= %x\nSHA1(d.vmdk)= %x\n", sha1.Sum([]byte(ovf)), sha1.Sum(disk))},
	} {
		_, err := w.Write(nil)
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data)), Typeflag: tar.TypeReg}))
		_, werr := w.Write([]byte(e.data))
		if err = errors.Join(err, werr); err != nil {
			d.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		d.Fatal(err)
	}
	return d.write(name, b.String())
}

func TestImport(t *testing.T) {
	tier.Full(t)
	d := newDesk(t)
	// What the fake takes for a disk, with the mark of a VDI image.
	disk := fmt.Appendf(nil, "fake disk\n%s\n64\n", "33333333-3333-4333-8333-333333333333")
	disk = append(append(disk, make([]byte, 0x40-len(disk))...), "\x7f\x10\xda\xbe"...)
	disk = append(disk, make([]byte, 512-len(disk))...)
	disk[0x4c] = 1 // it grows, and is whole
	ovf := strings.Replace(fmt.Sprintf(description, ""), "vmdk.html#streamOptimized", "vdi.html", 1)
	ovf = strings.Replace(ovf, "vmware.com/interfaces/specifications", "virtualbox.org", 1)
	file := d.appliance("my file.ova", ovf, disk)
	r := d.run("y\n", "import", "--no-start", "--name", "x", file)
	if r.code != 0 || strings.Contains(r.out, "[Y/n]") || !strings.HasPrefix(r.out, "Using image file: "+file+"\n") {
		t.Fatalf("import ended with %d\n%s%s", r.code, r.out, r.err)
	}
	if got := d.record(); got["flags"] != "517" || got["ovaImport"] != "true" || got["ovaPath"] != file {
		t.Errorf("flags %q, ovaImport %q, ovaPath %q", got["flags"], got["ovaImport"], got["ovaPath"])
	}
	if out := d.must("list").out; !strings.HasPrefix(out, "x:\tCVM: My Appliance\t") {
		t.Errorf("list said %q", out)
	}
	disks := d.vboxManage("list", "hdds")
	for range 2 { // the original deletes a disk each time
		d.must("start", "x")
		d.must("stop", "x")
	}
	if after := d.vboxManage("list", "hdds"); after != disks {
		t.Errorf("VirtualBox had disks %q, has %q", disks, after)
	}
	d.must("destroy", "x")
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestImportRefuses(t *testing.T) {
	d := newDesk(t)
	d.useMemory()
	good := []byte("KDMV disk")
	bad := d.appliance("bad.ova", fmt.Sprintf(description, ""), good)
	text := d.read(bad)
	d.write("bad.ova", strings.Replace(text, "KDMV disk", "KDMV DISK", 1))
	for file, want := range map[string]string{
		bad: "the manifest says",
		d.appliance("format.ova", fmt.Sprintf(description, ""), []byte("no disk")):                                                                                     "is no",
		d.appliance("two.ova", fmt.Sprintf(description, "<Item><rasd:ResourceType>17</rasd:ResourceType><rasd:HostResource>/disk/d</rasd:HostResource></Item>"), good): "has 2 disks",
		d.write("none.ova", "no archive"): "appliance " + d.path("none.ova"),
	} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			d.fails(4, want, "import", "--name", "x", file)
			if left := d.left(); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

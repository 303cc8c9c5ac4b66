package machine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/machine/ova"
)

const applianceText = `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="f" ovf:href="disk.vmdk"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="73400320" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<VirtualSystem ovf:id="box"><VirtualHardwareSection>
<Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>3</rasd:VirtualQuantity></Item>
<Item><rasd:HostResource>/disk/d</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
`

// newAppliance writes an OVA file whose disk can be booted.
func newAppliance(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	raw, vmdk, path := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "box.ova")
	if err := os.WriteFile(raw, drivertest.BootDisk(drivertest.Guest{}), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, vmdk)
	disk, err := os.ReadFile(vmdk)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range [][2]string{{"a.ovf", applianceText}, {"disk.vmdk", string(disk)}} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: e[0], Mode: 0o644, Size: int64(len(e[1])), Typeflag: tar.TypeReg}))
		_, werr := w.Write([]byte(e[1]))
		err = errors.Join(err, werr)
	}
	if err = errors.Join(err, w.Close(), os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func importAppliance(ctx context.Context, f *machine.Fleet, name, path string) error {
	a, err := ova.Open(ctx, path)
	if err != nil {
		return err
	}
	o := orderOf(name, "")
	if err := o.Appliance(a, path); err != nil {
		return err
	}
	o.Sizes(a, func(name string) bool { return name == "memory" })
	_, err = f.Create(ctx, o)
	return err
}

func TestImport(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	if err := importAppliance(t.Context(), w.Fleet, "m", newAppliance(t)); err != nil {
		t.Fatal(err)
	}
	w.state("m", machine.Running)
	m, err := w.Get(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	if s := m.Record.Instance.Spec; s.CPUs != 3 || s.DiskMiB != 70 || s.MemoryMiB != orderOf("m", "").Spec.MemoryMiB || s.Image.Format != "vmdk" || s.Image.Verified {
		t.Errorf("the machine is %+v, want processors and disk of the appliance, not verified for want of a manifest", s)
	}
}

// TestKilledImport kills an import at each step that differs from those of
// other machines, and sees that gc clears what is left.
func TestKilledImport(t *testing.T) {
	path := newAppliance(t)
	for _, step := range []string{"boot image", "instance", "created"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t, drivertest.Guest{})
			w.create("other")
			w.iso = path
			w.killed(step, "import")
			w.age()
			if _, err := w.Sweep(t.Context(), false); err != nil {
				t.Errorf("Sweep: %v", err)
			}
			if m, err := w.Get(t.Context(), "m"); err == nil { // it was complete but for the start
				if err := w.Destroy(t.Context(), "m", true); err != nil {
					t.Errorf("destroying what is %s: %v", m.State, err)
				}
			}
			if diff := cmp.Diff([]string{"other"}, w.machines()); diff != "" {
				t.Errorf("machines (-want +got):\n%s", diff)
			}
			w.state("other", machine.Running)
		})
	}
}

// TestSweepDownloads sees that gc clears images that were fetched, but neither
// young ones nor the locks that others may wait for.
func TestSweepDownloads(t *testing.T) {
	w := newWorld(t, drivertest.Guest{})
	dir := filepath.Join(string(w.Home), "cache", "downloads")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"old": time.Hour, "old.lock": time.Hour, "young": 0} {
		path, at := filepath.Join(dir, name), time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, []byte(name), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	swept, err := w.Sweep(t.Context(), false)
	if err != nil || len(swept) != 1 || swept[0].Name != "old" || swept[0].Kind != "image" {
		t.Errorf("Sweep = %v, %v; want the old download", swept, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left: %v, want the lock and the young one", left)
	}
}

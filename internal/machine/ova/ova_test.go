package ova_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/tier"
)

// ovf is a description as VirtualBox writes it, with one disk.
const ovf = `<?xml version="1.0"?>
<Envelope ovf:version="1.0" xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References><File ovf:id="file1" ovf:href="d.vmdk" ovf:size="9"%s/></References>
  <DiskSection>
    <Disk ovf:capacity="20" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
    <Disk ovf:capacity="1000" ovf:diskId="empty"/>
  </DiskSection>
  <VirtualSystem ovf:id="CernVM">
    <VirtualHardwareSection>
      <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
      <Item><rasd:HostResource>/disk/vmdisk1</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:HostResource>ovf:/disk/empty</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`

type entry struct {
	name, data string
	kind       byte
}

func archive(t testing.TB, entries ...entry) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o644, Typeflag: e.kind}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		} else {
			h.Size, h.Linkname = 0, "/etc/passwd"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.kind == 0 {
			if _, err := w.Write([]byte(e.data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.ova")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func describe(more string) string { return fmt.Sprintf(ovf, more) }

const disk = "KDMV disk"

func manifest(sums ...string) entry {
	return entry{name: "a.mf", data: strings.Join(sums, "\n") + "\n"}
}

func sum256(name, data string) string {
	return fmt.Sprintf("SHA256(%s)= %x", name, sha256.Sum256([]byte(data)))
}

func TestAppliance(t *testing.T) {
	description := describe("")
	path := archive(t, entry{name: "a.ovf", data: description}, entry{name: "d.vmdk", data: disk}, manifest(
		fmt.Sprintf("SHA1 (a.ovf) = %x", sha1.Sum([]byte(description))),
		fmt.Sprintf("SHA512(d.vmdk)= %X", sha512.Sum512([]byte(disk)))))
	a, err := ova.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	want := &ova.Appliance{
		Name: "CernVM", CPUs: 2, MemoryMiB: 1024, Manifest: true,
		Disks: []ova.Disk{{File: "d.vmdk", Size: int64(len(disk)), Capacity: 20 << 20, Format: "vmdk"}},
	}
	if diff := cmp.Diff(want, a, cmpopts.IgnoreUnexported(ova.Appliance{}, ova.Disk{})); diff != "" {
		t.Errorf("Open (-want +got):\n%s", diff)
	}
	var out bytes.Buffer
	if err := a.Extract(t.Context(), a.Disks[0], &out); err != nil || out.String() != disk {
		t.Errorf("Extract = %q, %v, want %q", out.String(), err, disk)
	}
}

func TestCompressedDisk(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte(disk))
	_ = w.Close()
	description := describe(` ovf:compression="gzip"`)
	path := archive(t, entry{name: "a.ovf", data: description}, manifest(sum256("a.ovf", description), sum256("d.vmdk", z.String())), entry{name: "d.vmdk", data: z.String()})
	a, err := ova.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := a.Extract(t.Context(), a.Disks[0], &out); err != nil || out.String() != disk {
		t.Errorf("Extract = %q, %v, want %q", out.String(), err, disk)
	}
}

func TestRefused(t *testing.T) {
	d := describe("")
	good, vmdk := entry{name: "a.ovf", data: d}, entry{name: "d.vmdk", data: disk}
	for _, tc := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"nothing", nil, "no .ovf"},
		{"no description", []entry{vmdk}, "no .ovf"},
		{"no disk", []entry{good}, `lacks the file "d.vmdk"`},
		{"path up", []entry{good, vmdk, {name: "../x", data: "x"}}, "no plain name"},
		{"absolute", []entry{good, vmdk, {name: "/x", data: "x"}}, "no plain name"},
		{"backslash", []entry{good, vmdk, {name: `..\x`, data: "x"}}, "no plain name"},
		{"link", []entry{good, {name: "d.vmdk", kind: tar.TypeSymlink}}, "no plain file"},
		{"hard link", []entry{good, {name: "d.vmdk", kind: tar.TypeLink}}, "no plain file"},
		{"twice", []entry{good, vmdk, vmdk}, "twice"},
		{"description changed", []entry{good, vmdk, manifest(sum256("a.ovf", "else"), sum256("d.vmdk", disk))}, "the manifest says"},
		{"description not listed", []entry{good, vmdk, manifest(sum256("d.vmdk", disk))}, `lacks "a.ovf"`},
		{"listed, not there", []entry{good, vmdk, manifest(sum256("a.ovf", d), sum256("e.vmdk", disk))}, "not in the archive"},
		{"short digest", []entry{good, vmdk, manifest("SHA256(a.ovf)= abcd")}, "no whole digest"},
		{"strange line", []entry{good, vmdk, manifest("MD5(a.ovf)= abcd")}, "has a line"},
		{"chunks", []entry{{name: "a.ovf", data: describe(` ovf:chunkSize="7"`)}, vmdk}, "chunks"},
		{"bzip2", []entry{{name: "a.ovf", data: describe(` ovf:compression="bzip2"`)}, vmdk}, "compressed by"},
		{"no XML", []entry{{name: "a.ovf", data: "no"}, vmdk}, "reading the description"},
		{"two machines", []entry{{name: "a.ovf", data: strings.Replace(d, "</Envelope>", "<VirtualSystem/></Envelope>", 1)}, vmdk}, "2 machines"},
		{"unknown disk", []entry{{name: "a.ovf", data: strings.Replace(d, "/disk/vmdisk1", "/disk/other", 1)}, vmdk}, `disk "other"`},
		{"description too long", []entry{{name: "a.ovf", data: d + strings.Repeat(" ", 4<<20)}, vmdk}, "more than"},
	} {
		_, err := ova.Open(t.Context(), archive(t, tc.entries...))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Open = %v, want an error with %q", tc.name, err, tc.want)
		}
	}
}

func TestDamagedDisk(t *testing.T) {
	d := describe("")
	for name, sums := range map[string][]string{
		"changed":    {sum256("a.ovf", d), sum256("d.vmdk", "else")},
		"not listed": {sum256("a.ovf", d)},
	} {
		a, err := ova.Open(t.Context(), archive(t, entry{name: "a.ovf", data: d}, manifest(sums...), entry{name: "d.vmdk", data: disk}))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Extract(t.Context(), a.Disks[0], &bytes.Buffer{}); !fail.Is(err, fail.Unverified) {
			t.Errorf("%s: Extract = %v, want Unverified", name, err)
		}
	}
}

func TestCutShort(t *testing.T) {
	path := archive(t, entry{name: "a.ovf", data: describe("")}, entry{name: "d.vmdk", data: strings.Repeat(disk, 1000)})
	if err := os.Truncate(path, 6000); err != nil {
		t.Fatal(err)
	}
	if _, err := ova.Open(t.Context(), path); !fail.Is(err, fail.Unverified) {
		t.Errorf("Open = %v, want Unverified", err)
	}
}

func TestCancelled(t *testing.T) {
	a, err := ova.Open(t.Context(), archive(t, entry{name: "a.ovf", data: describe("")}, entry{name: "d.vmdk", data: disk}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Extract(ctx, a.Disks[0], &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Extract = %v, want a cancellation", err)
	}
}

// TestRealDisk has qemu-img make the disk, and compares what comes out.
func TestRealDisk(t *testing.T) {
	qemu := tier.Tool(t, "qemu-img")
	dir := t.TempDir()
	image := filepath.Join(dir, "d.vmdk")
	out, err := exec.CommandContext(t.Context(), qemu, "create", "-f", "vmdk", "-o", "subformat=streamOptimized", image, "20M").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	d := describe("")
	a, err := ova.Open(t.Context(), archive(t, entry{name: "a.ovf", data: d}, entry{name: "d.vmdk", data: string(data)}, manifest(sum256("a.ovf", d), sum256("d.vmdk", string(data)))))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "copy.vmdk")
	f, err := os.Create(copied)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Extract(t.Context(), a.Disks[0], f), f.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), qemu, "compare", image, copied).CombinedOutput(); err != nil {
		t.Errorf("the disk changed: %s", out)
	}
}

func FuzzRead(f *testing.F) {
	for _, entries := range [][]entry{
		{{name: "a.ovf", data: describe("")}, {name: "d.vmdk", data: disk}},
		{{name: "a.ovf", data: describe("")}, {name: "d.vmdk", data: disk}, manifest(sum256("d.vmdk", disk))},
		{{name: "../a", data: "x"}},
	} {
		data, err := os.ReadFile(archive(f, entries...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ova.Read(t.Context(), bytes.NewReader(data), "fuzz.ova")
		if err != nil {
			return
		}
		for _, d := range a.Disks {
			if strings.ContainsAny(d.File, "/\\") || d.Capacity < 0 {
				t.Errorf("disk %+v", d)
			}
		}
	})
}

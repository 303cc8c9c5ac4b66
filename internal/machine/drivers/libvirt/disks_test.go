package libvirt_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/libvirt"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/machine/ova"
	"github.com/micavm/mica/internal/tier"
)

// bootable makes a disk image that boots, of so many bytes.
func bootable(t *testing.T, path, format, size string, options ...string) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, drivertest.BootDisk(drivertest.Guest{}), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg := tier.Tool(t, "qemu-img")
	for _, args := range [][]string{
		{"resize", "-q", "-f", "raw", raw, size},
		append(append([]string{"convert", "-f", "raw", "-O", format}, options...), raw, path),
	} {
		if out, err := exec.CommandContext(t.Context(), qemuImg, args...).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img %q: %v\n%s", args, err, out)
		}
	}
}

// domain is the machine's at libvirt, past the driver.
func (g *guest) domain(l *rpc.Libvirt) rpc.Domain {
	g.Helper()
	dom, err := l.DomainLookupByUUID(rpc.UUID(uuid.MustParse(g.Spec.ID)))
	g.must("looking for the domain", err)
	return dom
}

// disk sees how many MiB a disk of the machine's has.
func (g *guest) disk(l *rpc.Libvirt, target string, mib uint64) {
	g.Helper()
	_, size, _, err := l.DomainGetBlockInfo(g.domain(l), target, 0)
	if err != nil || size != mib<<20 {
		g.Errorf("disk %s has %d bytes, %v; want %d MiB", target, size, err, mib)
	}
}

// TestBesideImages boots machines of disk images, whose disks grow as others do.
func TestBesideImages(t *testing.T) {
	beside(t, "system", "pool")
	l := dial(t)
	for _, tc := range []struct{ format, size, target string }{{"qcow2", "100M", "vda"}, {"vmdk", "1M", "sda"}} {
		t.Run(tc.format, func(t *testing.T) {
			s := order(t, func(s *machine.Spec) { s.Image.Format = tc.format })
			bootable(t, s.ImagePath(), tc.format, tc.size)
			d := libvirt.Real()
			i, err := d.Create(t.Context(), s)
			if err != nil {
				t.Fatalf("Create: %v (hints %q)", err, fail.Hints(err))
			}
			g := &guest{t, d, i}
			defer func() { g.must("Destroy", d.Destroy(context.Background(), g.Instance)) }()
			want := map[string]int64{"100M": 100, "1M": 64}[tc.size]
			if i.Spec.DiskMiB != want {
				t.Errorf("Create = a disk of %d MiB, want %d", i.Spec.DiskMiB, want)
			}
			g.disk(l, tc.target, uint64(want))
			to := g.Spec
			to.DiskMiB = 160
			g.Instance, err = d.(machine.Changer).Change(t.Context(), g.Instance, to)
			g.must("Change", err)
			g.disk(l, tc.target, 160)
			snap := d.(machine.Snapshotter)
			g.must("Snapshot", snap.Snapshot(t.Context(), g.Instance, "s"))
			to.DiskMiB, to.MemoryMiB = 200, 96
			g.Instance, err = d.(machine.Changer).Change(t.Context(), g.Instance, to)
			g.must("Change", err)
			g.must("Revert", snap.Revert(t.Context(), g.Instance, "s"))
			g.disk(l, tc.target, 200) // what was changed since stays
			if _, memory, _, _, _, err := l.DomainGetInfo(g.domain(l)); err != nil || memory != 96<<10 {
				t.Errorf("after Revert the machine has %d KiB of memory, %v; want %d", memory, err, 96<<10)
			}
			g.start()
			g.says("booted from the data disk")
			image, err := os.ReadFile(s.ImagePath())
			g.must("reading the image", err)
			again := filepath.Join(t.TempDir(), "again")
			bootable(t, again, tc.format, tc.size)
			if fresh, err := os.ReadFile(again); err != nil || tc.format == "qcow2" && !bytes.Equal(image, fresh) {
				t.Errorf("the image that the machine was made of has changed, %v", err)
			}
		})
	}
	t.Run("half", func(t *testing.T) {
		s := order(t, func(s *machine.Spec) { s.Image.Format = "qcow2" })
		bootable(t, s.ImagePath(), "qcow2", "1M")
		before := traces(t, s.Dir)
		if err := os.Truncate(s.ImagePath(), 300<<10); err != nil {
			t.Fatal(err)
		}
		if _, err := libvirt.Real().Create(t.Context(), s); !fail.Is(err, fail.Unverified) {
			t.Errorf("Create of half an image = %v, want class Unverified", err)
		}
		if diff := cmp.Diff(before, traces(t, s.Dir)); diff != "" {
			t.Errorf("traces (-before +after):\n%s", diff)
		}
	})
}

// TestBesideDisks has a machine with further disks, one of them the user's.
func TestBesideDisks(t *testing.T) {
	beside(t, "system", "pool")
	dir := t.TempDir()
	for at := dir; at != "/tmp" && at != "/"; at = filepath.Dir(at) { // QEMU may be another user
		if err := os.Chmod(at, 0o755); err != nil { //nolint:gosec // so that it can look into it
			t.Fatal(err)
		}
	}
	theirs := filepath.Join(dir, "theirs, größer & <ours>.img")
	content := bytes.Repeat([]byte("precious "), 1<<17)
	content = content[:1<<20]
	if err := os.WriteFile(theirs, content, 0o640); err != nil { //nolint:gosec // its permissions are looked at
		t.Fatal(err)
	}
	looks := func() string {
		t.Helper()
		info, err := os.Stat(theirs)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s %x", info.Mode(), sha256.Sum256(data))
	}
	was := looks()
	l := dial(t)
	more := func(s *machine.Spec) {
		s.Disks = []machine.Disk{{MiB: 32}, {Path: theirs, Format: "raw"}, {MiB: 16}}
	}
	s := order(t, more)
	before := traces(t, s.Dir)
	d := libvirt.Real()
	i, err := d.Create(t.Context(), s)
	if err != nil {
		t.Fatalf("Create: %v (hints %q)", err, fail.Hints(err))
	}
	g := &guest{t, d, i}
	see := func(g *guest, sizes ...uint64) {
		t.Helper()
		for n, mib := range sizes {
			g.disk(l, "vd"+string(rune('a'+n)), mib)
		}
	}
	see(g, 64, 32, 1, 16)
	twin := order(t, func(s *machine.Spec) { s.Disks = []machine.Disk{{MiB: 32}, {MiB: 16}} })
	cloned, err := d.(machine.Cloner).Clone(t.Context(), g.Instance, twin)
	g.must("Clone", err)
	c := &guest{t, d, cloned}
	see(c, 64, 32, 16)
	if _, _, _, err := l.DomainGetBlockInfo(c.domain(l), "vdd", 0); err == nil {
		t.Error("the clone has the user's disk, too")
	}
	for _, g := range []*guest{g, c} {
		g.start()
		g.says("hello")
	}
	second := order(t, more)
	other, err := d.Create(t.Context(), second)
	g.must("Create", err)
	if err := d.Start(t.Context(), other); !fail.Is(err, fail.Conflict) || len(fail.Hints(err)) == 0 {
		t.Errorf("Start with a disk that another machine uses = %v, hints %q; want class Conflict and a hint", err, fail.Hints(err))
	}
	g.must("Destroy", d.Destroy(t.Context(), other))
	g.must("Destroy", d.Destroy(t.Context(), c.Instance))
	g.must("Destroy", d.Destroy(t.Context(), g.Instance))
	if diff := cmp.Diff(before, traces(t, s.Dir)); diff != "" {
		t.Errorf("traces (-before +after):\n%s", diff)
	}
	if now := looks(); now != was {
		t.Errorf("the user's disk is now %s, want %s", now, was)
	}
}

// TestBesideShares changes the shared folders of a machine.
func TestBesideShares(t *testing.T) {
	beside(t, "system", "pool")
	g := made(t, nil)
	l := dial(t)
	change := g.d.(machine.Changer).Change
	sees := func(want ...string) {
		t.Helper()
		doc, err := l.DomainGetXMLDesc(g.domain(l), rpc.DomainXMLInactive)
		g.must("reading the domain", err)
		if n := strings.Count(doc, "<filesystem "); n != len(want) {
			t.Errorf("the domain has %d shared folders, want %d", n, len(want))
		}
		_, medium, err := libvirt.Medium(t.Context(), g.d, g.Instance)
		g.must("reading the medium", err)
		for _, name := range want {
			if !strings.Contains(doc, "<target dir='"+name+"'/>") {
				t.Errorf("the domain does not share %s:\n%s", name, doc)
			}
			if !bytes.Contains(medium, []byte(name)) {
				t.Errorf("the medium does not tell of %s", name)
			}
		}
	}
	folder := t.TempDir()
	to := g.Spec
	to.Shares = []machine.Share{{Name: "first-folder", Path: folder}, {Name: "second-folder", Path: folder, ReadOnly: true}}
	if _, err := change(t.Context(), g.Instance, to); err == nil {
		t.Error("Change of shares without the context = nil, want an error")
	}
	sees()
	for _, shares := range [][]machine.Share{to.Shares, to.Shares[1:], nil} {
		to.Shares, to.Context, to.PublicKeys = shares, []byte("#!/bin/sh\nexit\n"), []string{"ssh-ed25519 AAAA test"}
		before := g.Instance
		for _, from := range []machine.Instance{before, before} { // once more, as after a killed command
			i, err := change(t.Context(), from, to)
			g.must("Change", err)
			g.Instance = i
		}
		var names []string
		for _, share := range shares {
			names = append(names, share.Name)
		}
		sees(names...)
	}
	to.Shares = []machine.Share{{Name: "nowhere", Path: folder}}
	g.must("Snapshot", g.d.(machine.Snapshotter).Snapshot(t.Context(), g.Instance, "s"))
	if _, err := change(t.Context(), g.Instance, to); !fail.Is(err, fail.Conflict) {
		t.Errorf("Change of shares with a snapshot = %v, want class Conflict", err)
	}
	g.must("DropSnapshot", g.d.(machine.Snapshotter).DropSnapshot(t.Context(), g.Instance, "s"))
	g.start()
	g.says("hello")
}

// TestBesideUEFI starts machines whose firmware is UEFI, which says so on the
// console, and sees that its variables go with them.
func TestBesideUEFI(t *testing.T) {
	kind := beside(t, "system", "pool")
	for name, change := range map[string]func(*machine.Spec){
		"x86_64": func(*machine.Spec) {},
		"aarch64": func(s *machine.Spec) {
			s.Arch, s.Display, s.Disks = machine.ARM64, machine.DisplayVNC, []machine.Disk{{MiB: 16}}
		},
	} {
		if kind == "pool" && name == "aarch64" {
			continue // the processor has nothing to do with where the files are
		}
		t.Run(name, func(t *testing.T) {
			d := libvirt.Real()
			s := order(t, func(s *machine.Spec) { s.Firmware, s.MemoryMiB = machine.UEFI, 256; change(s) })
			g := &guest{t, d, machine.Instance{Spec: s}}
			before := traces(t, s.Dir)
			g.must("Check", d.(machine.Checker).Check(t.Context(), s))
			i, err := d.Create(t.Context(), s)
			g.must("Create", err)
			g.Instance = i
			defer func() { _ = d.Destroy(context.Background(), g.Instance) }()
			g.start()
			g.says("BdsDxe")
			if err := d.(machine.Snapshotter).Snapshot(t.Context(), g.Instance, "s"); err != nil && len(fail.Hints(err)) == 0 {
				t.Errorf("Snapshot = %v without a hint", err)
			}
			g.off()
			to := g.Spec
			to.Name, to.MemoryMiB = "renamed", 200
			if all, err := d.(machine.Snapshotter).Snapshots(t.Context(), g.Instance); err != nil || len(all) > 0 {
				t.Logf("this libvirt has snapshots of UEFI machines that run: %v", err)
				g.must("DropSnapshot", d.(machine.Snapshotter).DropSnapshot(t.Context(), g.Instance, "s"))
			}
			g.Instance, err = d.(machine.Changer).Change(t.Context(), g.Instance, to)
			g.must("Change", err)
			twin := order(t, func(s *machine.Spec) { s.Firmware, s.MemoryMiB = machine.UEFI, 200; change(s) })
			cloned, err := d.(machine.Cloner).Clone(t.Context(), g.Instance, twin)
			g.must("Clone", err)
			for _, i := range []machine.Instance{g.Instance, cloned} {
				if size := nvram(t, i, kind); size < 64<<10 {
					t.Errorf("the variables of %s have %d bytes", i.Spec.Name, size)
				}
			}
			c := &guest{t, d, cloned}
			c.start()
			g.start()
			g.must("Destroy", d.Destroy(t.Context(), cloned))
			g.must("Destroy", d.Destroy(t.Context(), g.Instance))
			if diff := cmp.Diff(before, traces(t, s.Dir)); diff != "" {
				t.Errorf("traces (-before +after):\n%s", diff)
			}
		})
	}
}

// nvram is how large the file with the variables is.
func nvram(t *testing.T, i machine.Instance, kind string) int64 {
	t.Helper()
	path := i.Spec.Path("nvram.fd")
	if kind == "pool" {
		path = "/var/lib/libvirt/images/mica-" + i.Spec.ID + "-nvram.fd"
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// appliance makes an OVA file of a disk that boots.
func appliance(t *testing.T, path string) {
	t.Helper()
	vmdk := filepath.Join(t.TempDir(), "disk.vmdk")
	bootable(t, vmdk, "vmdk", "1M", "-o", "subformat=streamOptimized")
	disk, err := os.ReadFile(vmdk)
	if err != nil {
		t.Fatal(err)
	}
	ovf := `<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References><File ovf:id="f" ovf:href="disk.vmdk" ovf:size="` + fmt.Sprint(len(disk)) + `"/></References>
  <DiskSection><Disk ovf:capacity="1048576" ovf:diskId="d" ovf:fileRef="f" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
  <VirtualSystem ovf:id="a"><VirtualHardwareSection>
    <Item><rasd:HostResource>/disk/d</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
  </VirtualHardwareSection></VirtualSystem>
</Envelope>`
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	sums := fmt.Sprintf("SHA256(a.ovf)= %x\nSHA256(disk.vmdk)= %x\n", sha256.Sum256([]byte(ovf)), sha256.Sum256(disk))
	for _, entry := range []struct{ name, data string }{{"a.ovf", ovf}, {"a.mf", sums}, {"disk.vmdk", string(disk)}} {
		err := w.WriteHeader(&tar.Header{Name: entry.name, Size: int64(len(entry.data)), Mode: 0o644, Typeflag: tar.TypeReg})
		if err == nil {
			_, err = w.Write([]byte(entry.data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// applianceOrder orders a machine of an appliance.
func applianceOrder(ctx context.Context, path string) (machine.Order, error) {
	o := fleetOrder(path)
	a, err := ova.Open(ctx, path)
	if err == nil {
		err = o.Appliance(a, path)
	}
	return o, err
}

// TestBesideImport makes a machine of an appliance, and clones it.
func TestBesideImport(t *testing.T) {
	beside(t, "system", "pool")
	home := t.TempDir()
	path := filepath.Join(home, "appliance.ova")
	appliance(t, path)
	machines := filepath.Join(home, "machines")
	before := traces(t, machines)
	d := libvirt.Real()
	f := fleet(home, d)
	o, err := applianceOrder(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	o.Off = true
	r, err := f.Create(t.Context(), o)
	if err != nil {
		t.Fatalf("Create: %v (hints %q)", err, fail.Hints(err))
	}
	g := &guest{t, d, r.Instance}
	l := dial(t)
	g.disk(l, "sda", 64)
	twin, err := f.Clone(t.Context(), "m", "twin", nil)
	g.must("Clone", err)
	c := &guest{t, d, twin.Instance}
	c.disk(l, "sda", 64)
	for name, g := range map[string]*guest{"m": g, "twin": c} {
		_, err := f.Start(t.Context(), name)
		g.must("Start", err)
		g.says("booted from the data disk")
		g.must("Destroy", f.Destroy(t.Context(), name, true))
	}
	if diff := cmp.Diff(before, traces(t, machines)); diff != "" {
		t.Errorf("traces (-before +after):\n%s", diff)
	}
}

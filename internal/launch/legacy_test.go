package launch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

const oldID = "11111111-1111-4111-8111-111111111111"

// old makes a machine as the original made it, by its commands, and its record.
// It returns the machine's folder.
func (d *desk) old(flags string) string {
	d.Helper()
	id := "22222222-2222-4222-8222-222222222222"
	folder := d.path(".cernvm/run/" + oldID)
	scratch := filepath.Join(folder, "tmpAbCdEf.vdi")
	iso := d.write(".cernvm/cache/0123-ucernvm.iso", string(drivertest.BootISO(drivertest.Guest{Says: "old\r\n"})))
	context := d.write(".cernvm/run/"+oldID+"/tmpGhIjKl.iso", strings.Repeat("c", 4096))
	for _, args := range [][]string{
		{"createvm", "--name", "old", "--ostype", "Linux26_64", "--uuid", id, "--basefolder", folder, "--register"},
		{"storagectl", id, "--name", "IDE", "--add", "ide"},
		{"storagectl", id, "--name", "SATA", "--add", "sata", "--portcount", "4"},
		{"storagectl", id, "--name", "Floppy", "--add", "floppy"},
		{
			"modifyvm", id, "--cpus", "1", "--memory", "64", "--vram", "32", "--acpi", "on", "--ioapic", "on", "--boot1", "dvd",
			"--nic1", "nat", "--nictype1", "virtio", "--natdnshostresolver1", "on",
		},
		{"modifyvm", id, "--natpf1", "guestapi,tcp,127.0.0.1,2299,,22"},
		{"storageattach", id, "--storagectl", "IDE", "--port", "0", "--device", "0", "--type", "dvddrive", "--medium", iso},
		{"createmedium", "disk", "--filename", scratch, "--size", "64", "--format", "VDI"},
		{"storageattach", id, "--storagectl", "SATA", "--port", "0", "--device", "0", "--type", "hdd", "--medium", scratch},
		{"storageattach", id, "--storagectl", "SATA", "--port", "1", "--device", "0", "--type", "dvddrive", "--medium", context},
	} {
		d.vboxManage(args...)
	}
	d.write(".cernvm/run/vbsess-"+oldID+".conf", strings.Join([]string{
		"apiPort=22", "cernvmVersion=" + version, "cpus=1", "disk=64", "executionCap=100", "flags=" + flags, "initialized=1", "ip=",
		"local/apiHost=127.0.0.1", "local/apiPort=2299", "local/baseFolder=" + folder, "local/bootISO=" + iso, "local/initialized=1",
		"local/state=2", `local/vmapi_contents=[amiconfig]\nplugins=cernvm\n`, "machine/NIC 1=MAC: 0800", "memory=64", "name=old",
		"secret=defaultSecret", `userData=[amiconfig]\nplugins=cernvm\n`, "uuid=" + oldID, "vboxid=" + id, "",
	}, "\n"))
	d.commands()
	return folder
}

// TestOriginalsMachine goes on with a machine that the original made.
func TestOriginalsMachine(t *testing.T) {
	tier.Full(t)
	d := newDesk(t)
	folder := d.old("1")
	before := d.read(d.records()[0])
	if got, want := d.must("list").out, "old:\tCVM: "+version+"\tport: 2299\n"; got != want {
		t.Errorf("list = %q, want %q", got, want)
	}
	if after := d.read(d.records()[0]); after != before {
		t.Errorf("list changed the record (-before +after):\n%s", cmp.Diff(before, after))
	}
	disks := d.vboxManage("list", "hdds")
	d.must("start", "old")
	if d.told("createmedium") {
		t.Error("the start made another disk")
	}
	if after := d.vboxManage("list", "hdds"); after != disks {
		t.Errorf("VirtualBox had disks %q, has %q", disks, after)
	}
	found, err := delivery.Inspect(filepath.Join(folder, "config.iso"))
	if err != nil || string(found.UserData) != "[amiconfig]\nplugins=cernvm\n" {
		t.Errorf("the context is %q, %v", found.UserData, err)
	}
	d.must("stop", "old")
	d.must("start", "old")
	d.must("pause", "old")
	d.must("start", "old")

	got := d.record()
	for _, key := range []string{"secret", "machine/NIC 1", "local/state", "uuid", "vboxid"} { // not ours, and kept
		if !strings.Contains(before, key+"="+got[key]+"\n") {
			t.Errorf("%s = %q in the record now", key, got[key])
		}
	}
	if kept := d.read(d.path(".cernvm/run/vbsess-" + oldID + ".conf.orig")); kept != before {
		t.Errorf("the record kept (-before +kept):\n%s", cmp.Diff(before, kept))
	}
	if got["local/apiPort"] != "2299" {
		t.Errorf("the port is %s", got["local/apiPort"])
	}
	iso := got["local/bootISO"]
	d.must("destroy", "--force", "old")
	if left := d.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(iso); err != nil {
		t.Errorf("the cached image is gone: %v", err)
	}
	if out := d.vboxManage("list", "vms"); strings.TrimSpace(out) != "" {
		t.Errorf("VirtualBox still has %q", out)
	}
}

// TestOriginalsAppliance does not touch the scratch disk that is where the
// context belongs.
func TestOriginalsAppliance(t *testing.T) {
	d := newDesk(t)
	d.old("513")
	d.fails(4, "imported by the original", "start", "old")
	if changes := d.commands(); len(changes) != 0 {
		t.Errorf("VirtualBox was told %q", changes)
	}
}

// TestOriginalsDisks is a machine that VirtualBox 7 and the original gave a disk
// at each start, in a folder with a name that patterns would take for their own.
func TestOriginalsDisks(t *testing.T) {
	for name, tc := range map[string]struct{ note, want string }{
		"the newest":           {"", "tmpBbbbbb.vdi"},
		"the one attached":     {"machine/SATA (0, 0)=%s/tmpAaaaaa.vdi (UUID: 33333333-3333-4333-8333-333333333333)\n", "tmpAaaaaa.vdi"},
		"the one that is gone": {"machine/SATA (0, 0)=%s/tmpDddddd.vdi (UUID: 33333333-3333-4333-8333-333333333333)\n", "tmpBbbbbb.vdi"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			m := d.useMemory()
			home := d.path("[a-b]*")
			d.write(".cernvm-launch.conf", strings.Replace(d.read(d.path(".cernvm-launch.conf")), "launchHomeFolder="+d.home, "launchHomeFolder="+home, 1))
			run := "[a-b]*/.cernvm/run/"
			folder := d.path(run + oldID)
			for file, age := range map[string]time.Duration{"tmpAaaaaa.vdi": 3, "tmpBbbbbb.vdi": 1, "tmpCccccc.vdi": 2} {
				when := time.Now().Add(-age * time.Hour)
				if err := os.Chtimes(d.write(run+oldID+"/"+file, string(vdi(file))), when, when); err != nil {
					t.Fatal(err)
				}
			}
			iso := d.write("[a-b]*/.cernvm/cache/0123-ucernvm.iso", "iso")
			note := tc.note
			if note != "" {
				note = fmt.Sprintf(note, folder)
			}
			d.write(run+"vbsess-"+oldID+".conf", "apiPort=22\ncernvmVersion="+version+"\ncpus=1\ndisk=64\nflags=1\nlocal/bootISO="+iso+
				"\n"+note+"memory=64\nmica/handle={\"note\":\"line\\\\nbreak\"}\nname=old\nuserData=x\\n\nuuid="+oldID+"\nvboxid="+oldID+"\n")
			m.set(oldID, machine.Stopped)
			r := d.must("start", "old")
			if !strings.Contains(r.err, "left 3 disks") || !strings.Contains(r.err, tc.want) {
				t.Errorf("start does not speak of the disks: %s", r.err)
			}
			if got, err := os.Readlink(filepath.Join(folder, "disk.vdi")); err != nil || got != tc.want {
				t.Errorf("the machine's disk is %q, want %q (%v)", got, tc.want, err)
			}
		})
	}
}

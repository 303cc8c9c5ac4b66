package disk

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/boot/disk/probe"
)

const gib = 1 << 30

// The devices of the table. Each is a disk that a machine may really have.

func plain(name string, change ...func(*Device)) Device {
	d := Device{Name: name, Path: "/dev/" + name, Kind: Disk, Size: 20 * gib, Sector: 512}
	for _, c := range change {
		c(&d)
	}
	return d
}

func part(name, parent string, number int, change ...func(*Device)) Device {
	d := Device{
		Name: name, Path: "/dev/" + name, Kind: Part, Parent: parent, Partition: number,
		Start: mib, Size: 10 * gib, Sector: 512, Type: gpt.LinuxData,
	}
	for _, c := range change {
		c(&d)
	}
	return d
}

func blankDev(d *Device)  { d.Blank = true }
func data(d *Device)      { d.DataAt = 5 << 20 }
func removable(d *Device) { d.Removable = true }
func readOnly(d *Device)  { d.ReadOnly = true }
func inUseDev(d *Device)  { d.InUse = true }
func halfDone(d *Device)  { d.Unfinished = true }
func local(d *Device)     { d.Model = instanceStore }
func small(d *Device)     { d.Size = 700 * mib }

func serialNo(n string) func(*Device)      { return func(d *Device) { d.Serial = n } }
func withType(kind string) func(*Device)   { return func(d *Device) { d.Type = kind } }
func withProblem(why string) func(*Device) { return func(d *Device) { d.Problem = why } }
func named(name string) func(*Device)      { return func(d *Device) { d.PartName = name } }
func kind(k Kind) func(*Device)            { return func(d *Device) { d.Kind = k } }

func holds(kind string, usage probe.Usage, label string) func(*Device) {
	return func(d *Device) {
		d.Content = probe.Content{Type: kind, Usage: usage, Label: label, UUID: "id-of-" + d.Name, All: []string{kind}}
	}
}

// extFS is an ext file system with those names in its root.
func extFS(kind, label string, root ...string) func(*Device) {
	return func(d *Device) {
		holds(kind, probe.Filesystem, label)(d)
		d.Content.Root, d.Content.RootRead, d.Content.Ext = root, true, &probe.Ext{Clean: true, Mounts: 3, Mounted: 1}
	}
}

func ntfsFS(label string, root ...string) func(*Device) {
	return func(d *Device) {
		holds("ntfs", probe.Filesystem, label)(d)
		d.Content.Root, d.Content.RootRead = root, true
	}
}

func uroot(d *Device) { extFS("ext4", "UROOT", "lost+found", "aux", "persistent")(d) }

func table(scheme gpt.Scheme, parts int) func(*Device) {
	return func(d *Device) {
		d.Table.Scheme = scheme
		for i := range parts {
			d.Table.Entries = append(d.Table.Entries, gpt.Entry{Number: i + 1, Start: 2048, Sectors: 2048, Type: gpt.LinuxData})
		}
	}
}

func bootDisk(scheme gpt.Scheme, parts int, free int64, clean bool) func(*Device) {
	return func(d *Device) {
		table(scheme, parts)(d)
		d.Boot, d.Free, d.FreeBlank = true, Extent{64 * mib, free}, clean
	}
}

func TestChoose(t *testing.T) {
	boot := plain("sda", bootDisk(gpt.GPT, 2, 19*gib, true))
	for _, tc := range []struct {
		name    string
		devices []Device
		p       Preferences
		want    string // action and device, or the reason that the error gives for the last device
	}{
		// Row 1: a UROOT.
		{"uroot", []Device{plain("sda", table(gpt.GPT, 1)), part("sda1", "sda", 1, uroot)}, Preferences{}, "reuse sda1"},
		{"uroot on a whole disk", []Device{plain("vdb", uroot)}, Preferences{}, "reuse vdb"},
		{"uroot of ext3", []Device{part("sda1", "sda", 1, extFS("ext3", "UROOT", "aux"))}, Preferences{}, "reuse sda1"},
		{"uroot before blank disk", []Device{plain("sda", blankDev), part("sdb1", "sdb", 1, uroot)}, Preferences{}, "reuse sdb1"},
		{"uroot before use_boothd", []Device{boot, part("sdb1", "sdb", 1, uroot)}, Preferences{UseBootHD: true}, "reuse sdb1"},
		{"uroot on a stick", []Device{plain("sdb", removable, table(gpt.MBR, 2)), part("sdb2", "sdb", 2, removable, uroot)}, Preferences{}, "reuse sdb2"},
		{"uroot never mounted", []Device{part("sda1", "sda", 1, extFS("ext4", "UROOT", "lost+found"))}, Preferences{}, "reuse sda1"},
		{"uroot stopped in its first boot", []Device{part("sda1", "sda", 1, extFS("ext4", "UROOT", "lost+found", "persistent", "cache"))}, Preferences{}, "reuse sda1"},
		{"label by chance", []Device{part("sda1", "sda", 1, extFS("ext4", "UROOT", "lost+found", "home"))}, Preferences{}, `labelled UROOT, but has no aux directory and holds "home"`},
		{"uroot inside of a raid member", []Device{part("sda1", "sda", 1, uroot, func(d *Device) { d.Content.All = []string{"ext4", "nilfs2"} })}, Preferences{}, "carries nilfs2 as well"},
		{"uroot read-only", []Device{part("sda1", "sda", 1, uroot, readOnly)}, Preferences{}, "is read-only, though it is labelled UROOT"},
		{"uroot mounted", []Device{part("sda1", "sda", 1, uroot, inUseDev)}, Preferences{}, "is in use, though it is labelled UROOT"},
		{"ext2 is not one", []Device{part("sda1", "sda", 1, extFS("ext2", "UROOT", "aux"))}, Preferences{}, `holds ext2 (label "UROOT")`},
		{"xfs is not one", []Device{part("sda1", "sda", 1, holds("xfs", probe.Filesystem, "UROOT"))}, Preferences{}, `holds xfs (label "UROOT")`},
		{"two", []Device{part("sda1", "sda", 1, uroot), part("sdb1", "sdb", 1, uroot)}, Preferences{}, "more than one disk is a UROOT: /dev/sda1 (UUID=id-of-sda1), /dev/sdb1"},
		{"two, one named", []Device{part("sda1", "sda", 1, uroot), part("sdb1", "sdb", 1, uroot)}, Preferences{UROOT: "UUID=ID-OF-sdb1"}, "reuse sdb1"},
		{"another named", []Device{plain("sda", blankDev), part("sdb1", "sdb", 1, uroot)}, Preferences{UROOT: "UUID=zzz"}, "is the UROOT id-of-sdb1, not the one that cvm_uroot asks for"},
		{"named, none", []Device{plain("sda", blankDev)}, Preferences{UROOT: "UUID=zzz"}, "is not the UROOT that cvm_uroot asks for"},

		// Row 2 and 3: blank disks.
		{"blank disk", []Device{plain("sda", blankDev)}, Preferences{}, "partition sda"},
		{"empty GPT", []Device{plain("sda", blankDev, table(gpt.GPT, 0))}, Preferences{}, "partition sda"},
		{"empty MBR", []Device{plain("sda", blankDev, table(gpt.MBR, 0))}, Preferences{}, "partition sda"},
		{"first blank disk", []Device{boot, plain("sdb", blankDev), plain("sdc", blankDev)}, Preferences{}, "partition sdb"},
		{"blank nvme", []Device{plain("nvme0n1", blankDev)}, Preferences{}, "partition nvme0n1"},
		{"data at 5 MiB", []Device{plain("sda", data)}, Preferences{}, "holds data that is not known (at 5120 KiB)"},
		{"empty table, data behind", []Device{plain("sda", data, table(gpt.GPT, 0))}, Preferences{}, "holds data that is not known"},
		{"small disk", []Device{plain("sda", blankDev, small)}, Preferences{}, "is smaller than 1024 MiB"},
		{"stick", []Device{plain("sdb", blankDev, removable)}, Preferences{}, "is removable"},
		{"write-protected", []Device{plain("sdb", blankDev, readOnly)}, Preferences{}, "is read-only"},
		{"cd", []Device{plain("sr0", blankDev, kind(Optical))}, Preferences{}, "optical drives are not for writing"},
		{"floppy", []Device{plain("fd0", blankDev, kind(Floppy))}, Preferences{}, "floppy drives are not for writing"},
		{"bad sectors", []Device{plain("sda", blankDev, withProblem("cannot be read: EIO"))}, Preferences{}, "cannot be read: EIO"},
		{"multipath path", []Device{plain("sda", blankDev, inUseDev)}, Preferences{}, "is in use"},
		{"half-made table", []Device{plain("sdb", blankDev), plain("sdc", halfDone, table(gpt.GPT, 1))}, Preferences{}, "partition sdc"},

		// Row 4: blank partitions.
		{"blank partition", []Device{plain("sda", table(gpt.GPT, 1)), part("sda1", "sda", 1, blankDev)}, Preferences{}, "format sda1"},
		{"blank MBR partition", []Device{plain("sda", table(gpt.MBR, 1)), part("sda1", "sda", 1, blankDev, withType("0x83"))}, Preferences{}, "format sda1"},
		{"disk before partition", []Device{part("sda1", "sda", 1, blankDev), plain("sdb", blankDev)}, Preferences{}, "partition sdb"},
		{"named partition first", []Device{part("sda1", "sda", 1, blankDev), part("sda2", "sda", 2, blankDev, named("UROOT"))}, Preferences{}, "format sda2"},
		{"unfinished first", []Device{plain("sdb", blankDev), part("sda2", "sda", 2, halfDone)}, Preferences{}, "format sda2"},
		{"unfinished, half a file system", []Device{part("sda2", "sda", 2, halfDone, extFS("ext4", "UROOT"))}, Preferences{}, "format sda2"},
		{"partition with data", []Device{part("sda1", "sda", 1, data)}, Preferences{}, "holds data that is not known"},
		{"BIOS boot partition", []Device{part("sda1", "sda", 1, blankDev, withType("21686148-6449-6e6f-744e-656564454649"))}, Preferences{}, "is not for Linux files"},
		{"Microsoft reserved", []Device{part("sda1", "sda", 1, blankDev, withType("e3c9e316-0b5c-4db8-817d-f92df00215ae"))}, Preferences{}, "is not for Linux files"},
		{"blank swap partition", []Device{part("sda1", "sda", 1, blankDev, withType("0x82"))}, Preferences{}, "is not for Linux files"},
		{"frame of logical ones", []Device{part("sda4", "sda", 4, withProblem("is only the frame of logical partitions"))}, Preferences{}, "only the frame"},
		{"small partition", []Device{part("sda1", "sda", 1, blankDev, small)}, Preferences{}, "is smaller than 750 MiB"},
		{"partition of a stick", []Device{part("sdb1", "sdb", 1, blankDev, removable)}, Preferences{}, "is on a removable disk"},
		{"table that only we read", []Device{part("", "sdb", 1, blankDev)}, Preferences{}, "the kernel does not accept the partition table"},

		// Row 5: ephemeral disks that the metadata lists.
		{"listed ephemeral", []Device{plain("xvdb", extFS("ext3", "", "lost+found"))}, Preferences{Platform: "ec2", Ephemeral: []string{"sdb"}}, "format xvdb"},
		{"on Xen", []Device{plain("xvdb", extFS("ext4", "", "lost+found"))}, Preferences{Platform: "xen", Ephemeral: []string{"/dev/xvdb"}}, "format xvdb"},
		{"not listed", []Device{plain("xvdb", extFS("ext3", "", "lost+found"))}, Preferences{Platform: "ec2"}, "holds ext3"},
		{"listed, elsewhere", []Device{plain("sdb", extFS("ext3", "", "lost+found"))}, Preferences{Ephemeral: []string{"sdb"}}, "holds ext3"},
		{"listed, with files", []Device{plain("xvdb", extFS("ext3", "", "lost+found", "home"))}, Preferences{Platform: "ec2", Ephemeral: []string{"sdb"}}, "holds ext3 with files"},
		{"listed, labelled", []Device{plain("xvdb", extFS("ext3", "data", "lost+found"))}, Preferences{Platform: "ec2", Ephemeral: []string{"sdb"}}, `holds ext3 (label "data")`},
		{"listed, dirty", []Device{plain("xvdb", extFS("ext3", "", "lost+found"), func(d *Device) { d.Content.Ext.Clean = false })}, Preferences{Platform: "ec2", Ephemeral: []string{"sdb"}}, "holds ext3"},
		{"listed, not readable", []Device{plain("xvdb", extFS("ext3", "", "lost+found"), func(d *Device) { d.Content.RootRead = false })}, Preferences{Platform: "ec2", Ephemeral: []string{"sdb"}}, "holds ext3"},

		// Row 6: ephemeral disks by wish.
		{"ephemeral0", []Device{plain("vdb", extFS("ext4", "ephemeral0", "lost+found"))}, Preferences{UseEphemeral: true}, "format vdb"},
		{"ephemeral0, not wished", []Device{plain("vdb", extFS("ext4", "ephemeral0", "lost+found"))}, Preferences{}, "use_ephemeral=1 takes it"},
		{"ephemeral0 with files", []Device{plain("vdb", extFS("ext4", "ephemeral0", "lost+found", "thesis.tex"))}, Preferences{UseEphemeral: true}, "with files"},
		{"azure", []Device{part("sdb1", "sdb", 1, extFS("ext4", "", "lost+found", dataLoss))}, Preferences{UseEphemeral: true, Platform: "azure"}, "format sdb1"},
		{"azure, not wished", []Device{part("sdb1", "sdb", 1, extFS("ext4", "", "lost+found", dataLoss))}, Preferences{Platform: "azure"}, "use_ephemeral=1 takes it"},
		{"its warning elsewhere", []Device{part("sdb1", "sdb", 1, extFS("ext4", "", dataLoss))}, Preferences{UseEphemeral: true, Platform: "gce"}, "holds ext4"},
		{"azure, as delivered", []Device{part("sdb1", "sdb", 1, ntfsFS("Temporary Storage", dataLoss, "System Volume Information"))}, Preferences{UseEphemeral: true, Platform: "azure"}, "format sdb1"},
		{"azure, as delivered, not wished", []Device{part("sdb1", "sdb", 1, ntfsFS("Temporary Storage"))}, Preferences{Platform: "azure"}, "use_ephemeral=1 takes it"},
		{"azure, used by Windows", []Device{part("sdb1", "sdb", 1, ntfsFS("Temporary Storage", dataLoss, "pagefile.sys"))}, Preferences{UseEphemeral: true, Platform: "azure"}, "holds ntfs (label \"Temporary Storage\") with files"},
		{"another ntfs", []Device{part("sdb1", "sdb", 1, ntfsFS("Data"))}, Preferences{UseEphemeral: true, Platform: "azure"}, "holds ntfs"},
		{"that ntfs elsewhere", []Device{part("sdb1", "sdb", 1, ntfsFS("Temporary Storage"))}, Preferences{UseEphemeral: true}, "holds ntfs"},
		{"azure ntfs, not readable", []Device{part("sdb1", "sdb", 1, holds("ntfs", probe.Filesystem, "Temporary Storage"))}, Preferences{UseEphemeral: true, Platform: "azure"}, "holds ntfs"},

		// Row 7: instance stores.
		{"local preferred", []Device{plain("nvme0n1", blankDev), plain("nvme1n1", blankDev, local)}, Preferences{PreferLocal: true}, "partition nvme1n1"},
		{"local not preferred", []Device{plain("nvme0n1", blankDev, local), plain("nvme1n1", blankDev)}, Preferences{}, "partition nvme1n1"},
		{"local is all there is", []Device{plain("nvme0n1", blankDev, local)}, Preferences{}, "partition nvme0n1"},
		{"local with data", []Device{plain("nvme0n1", data, local)}, Preferences{PreferLocal: true}, "holds data"},

		// Row 8: the boot disk.
		{"boot disk last", []Device{boot, plain("sdb", blankDev)}, Preferences{}, "partition sdb"},
		{"boot disk alone", []Device{boot}, Preferences{}, "append sda"},
		{"boot disk first", []Device{boot, plain("sdb", blankDev)}, Preferences{UseBootHD: true}, "append sda"},
		{"boot disk, mounted", []Device{plain("sda", bootDisk(gpt.GPT, 2, 19*gib, true), inUseDev)}, Preferences{}, "append sda"},
		{"boot stick", []Device{plain("sdb", bootDisk(gpt.MBR, 1, 7*gib, true), removable)}, Preferences{}, "append sdb"},
		{"hybrid ISO", []Device{plain("vda", holds("iso9660", probe.Filesystem, "UCERNVM"), bootDisk(gpt.MBR, 1, 7*gib, true))}, Preferences{}, "append vda"},
		{"boot disk full", []Device{plain("sda", bootDisk(gpt.GPT, 2, 749*mib, true))}, Preferences{}, "has only 749 MiB of free space, not 750 MiB"},
		{"boot disk, leftovers", []Device{plain("sda", bootDisk(gpt.GPT, 2, 19*gib, false))}, Preferences{}, "there are leftovers in its free space; use_boothd=1"},
		{"boot disk, leftovers, forced", []Device{plain("sda", bootDisk(gpt.GPT, 2, 19*gib, false))}, Preferences{UseBootHD: true}, "append sda"},
		{"boot disk, four partitions", []Device{plain("sda", bootDisk(gpt.MBR, 4, 19*gib, true))}, Preferences{}, "four partitions are taken"},
		{"boot disk, beyond MBR", []Device{plain("sda", bootDisk(gpt.MBR, 1, 3<<40, true))}, Preferences{}, "beyond the reach of its MBR"},
		{"boot disk without table", []Device{plain("sda", holds("vfat", probe.Filesystem, "UCERNVM"), bootDisk(gpt.None, 0, 0, false))}, Preferences{}, "has no partition table to add to"},
		{"boot disk, damaged table", []Device{plain("sda", bootDisk(gpt.Damaged, 0, 0, false))}, Preferences{UseBootHD: true}, "has no partition table to add to"},

		// Row 9: everything else, never.
		{"ext4 on the whole disk", []Device{plain("sda", extFS("ext4", "data", "lost+found"))}, Preferences{}, `holds ext4 (label "data")`},
		{"ntfs", []Device{part("sda1", "sda", 1, holds("ntfs", probe.Filesystem, "Windows"))}, Preferences{}, "holds ntfs"},
		{"LVM on the whole disk", []Device{plain("sda", holds("LVM2_member", probe.Raid, ""))}, Preferences{}, "holds LVM2_member"},
		{"LUKS partition", []Device{part("sda1", "sda", 1, holds("crypto_LUKS", probe.Crypto, ""))}, Preferences{}, "holds crypto_LUKS"},
		{"RAID member", []Device{plain("sda", holds("linux_raid_member", probe.Raid, "h:0"))}, Preferences{}, "holds linux_raid_member"},
		{"ZFS", []Device{plain("sda", holds("zfs_member", probe.Raid, ""))}, Preferences{}, "holds zfs_member"},
		{"swap", []Device{part("sda1", "sda", 1, holds("swap", probe.Other, ""))}, Preferences{}, "holds swap"},
		{"hibernated", []Device{part("sda1", "sda", 1, holds("swsuspend", probe.Other, ""))}, Preferences{}, "holds swsuspend"},
		{"BSD label", []Device{plain("sda", holds("bsd", probe.Labelled, ""))}, Preferences{}, "holds bsd"},
		{"someone's GPT", []Device{plain("sda", table(gpt.GPT, 3))}, Preferences{}, "has a partition table, with 3 partitions"},
		{"damaged GPT", []Device{plain("sda", table(gpt.Damaged, 0))}, Preferences{}, "has a damaged partition table"},
		{"loop device", []Device{plain("sda", table(gpt.GPT, 3)), plain("loop0", blankDev, kind(Virtual))}, Preferences{}, "3 partitions"},

		// What the user added to the machine.
		{"added disk", []Device{plain("vdb", blankDev, serialNo("mica-disk1"))}, Preferences{}, "was added to the machine for its user (serial number mica-disk1)"},
		{"added disk before the data disk", []Device{plain("vda", blankDev, serialNo("mica-disk1")), plain("vdb", blankDev, serialNo("mica-disk"))}, Preferences{}, "partition vdb"},
		{"added disk beside a boot disk", []Device{boot, plain("vdb", blankDev, serialNo("mica-disk12"))}, Preferences{}, "append sda"},
		{"added disk, half made", []Device{plain("vdb", halfDone, serialNo("mica-disk1"))}, Preferences{}, "was added to the machine"},
		{"partition of an added disk", []Device{plain("vdb", table(gpt.GPT, 1), serialNo("mica-disk1")), part("vdb1", "vdb", 1, blankDev, serialNo("mica-disk1"))}, Preferences{}, "was added to the machine"},
		{"uroot on an added disk", []Device{plain("vdb", uroot, serialNo("mica-disk1"))}, Preferences{}, "reuse vdb"},
		{"booted from an added disk", []Device{plain("vdb", bootDisk(gpt.GPT, 2, 19*gib, true), serialNo("mica-disk1"))}, Preferences{}, "append vdb"},
		{"slice", []Device{plain("vdb", holds(probe.Slice, probe.Other, ""))}, Preferences{UseEphemeral: true}, "holds a slice of a repository"},

		// Row 10: nothing.
		{"nothing at all", nil, Preferences{}, "the machine has no block devices"},
		{"RAM", []Device{plain("sda", table(gpt.GPT, 1))}, Preferences{RAMRoot: true, Memory: 4 * gib}, "ram"},
		{"RAM, too little", []Device{plain("sda", table(gpt.GPT, 1))}, Preferences{RAMRoot: true, Memory: 2*gib - 1}, "has a partition table"},
		{"RAM is not wished", []Device{plain("sda", table(gpt.GPT, 1))}, Preferences{Memory: 64 * gib}, "has a partition table"},
		{"RAM comes after disks", []Device{plain("sda", blankDev)}, Preferences{RAMRoot: true, Memory: 4 * gib}, "partition sda"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Choose(tc.devices, tc.p)
			got := strings.TrimSpace(string(c.Action) + " " + c.Device.Name)
			if c.Action == Partition || c.Action == Append {
				got = string(c.Action) + " " + c.Disk.Name
			}
			if err != nil {
				if got = err.Error(); strings.Contains(got, tc.want) {
					return
				}
			}
			if got != tc.want {
				t.Errorf("Choose = %q, want %q", got, tc.want)
			}
			if err == nil && c.Action != RAM && c.Reason == "" {
				t.Error("the choice gives no reason")
			}
		})
	}
}

// TestNeverWrites goes through every combination of the properties that forbid
// writing: no wish of the user lifts any of them.
func TestNeverWrites(t *testing.T) {
	everything := Preferences{
		UseBootHD: true, UseEphemeral: true, PreferLocal: true, Platform: "ec2",
		Ephemeral: []string{"sdx", "sdx1"}, RAMRoot: false, Memory: 64 * gib,
	}
	forbidden := []func(*Device){
		readOnly, inUseDev, withProblem("cannot be read"), kind(Optical), kind(Floppy), kind(Virtual), data,
		holds("xfs", probe.Filesystem, ""), holds("crypto_LUKS", probe.Crypto, "ephemeral0"), holds("LVM2_member", probe.Raid, ""),
		holds("swap", probe.Other, ""), holds("vfat", probe.Filesystem, "UROOT"), extFS("ext4", "", "lost+found", "file"),
	}
	for i, one := range forbidden {
		for _, base := range []Device{plain("sdx"), part("sdx1", "sdx", 1)} {
			base.Blank = i < 6
			one(&base)
			for _, more := range []func(*Device){func(*Device) {}, local, named("UROOT"), table(gpt.GPT, 0)} {
				d := base
				more(&d)
				if c, err := Choose([]Device{d}, everything); err == nil {
					t.Errorf("property %d, %s: Choose = %q %s%s, want a refusal", i, d.Kind, c.Action, c.Disk.Name, c.Device.Name)
				}
			}
		}
	}
}

func TestErrorsHaveRemedies(t *testing.T) {
	_, err := Choose([]Device{plain("sda", table(gpt.GPT, 1)), part("sda1", "sda", 1, holds("ntfs", probe.Filesystem, "")), plain("loop0", kind(Virtual))}, Preferences{})
	var none *NoDisk
	if !errors.As(err, &none) {
		t.Fatalf("Choose = %v, want a *NoDisk", err)
	}
	want := []Rejected{{"/dev/sda", 20 * gib, "has a partition table, with 1 partition"}, {"/dev/sda1", 10 * gib, "holds ntfs"}}
	if diff := cmp.Diff(want, none.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if !strings.Contains(none.Remedy, "attach a blank disk") {
		t.Errorf("remedy = %q", none.Remedy)
	}
	same := func(d *Device) { uroot(d); d.Content.UUID = "same" }
	_, err = Choose([]Device{part("sda1", "sda", 1, same), part("sdb1", "sdb", 1, same)}, Preferences{})
	var two *Ambiguous
	if !errors.As(err, &two) || !strings.Contains(two.Remedy, "copies of each other") {
		t.Errorf("Choose with two copies = %v, want an *Ambiguous that says so", err)
	}
}

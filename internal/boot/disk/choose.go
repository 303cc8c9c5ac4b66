package disk

import (
	"fmt"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/boot/disk/gpt"
	"github.com/micavm/mica/internal/boot/disk/probe"
	"github.com/micavm/mica/internal/fail"
)

const (
	label    = "UROOT"
	labelNew = "UROOT-NEW" // while it is being made

	minDisk = 1 << 30 // of a whole disk
	minPart = 750 * mib
	minRAM  = 2 << 30
	limit   = 20 << 30 // of UROOT, when it is not to grow
	maxMBR  = 1 << 32  // sectors

	dataLoss   = "DATALOSS_WARNING_README.txt" // on Azure's temporary disks
	azureLabel = "Temporary Storage"

	instanceStore = "Amazon EC2 NVMe Instance Storage"
)

// Preferences are what the user, the context and the platform say about the
// choice of UROOT.
type Preferences struct {
	UROOT        string // cvm_uroot=UUID=…: the one UROOT to use
	UseBootHD    bool   // use_boothd: the boot disk's free space comes first
	UseEphemeral bool   // use_ephemeral: take disks that the platform wipes
	PreferLocal  bool   // uroot_prefer=local: instance store before network volumes
	Limited      bool   // resize_rootfs is off: 20 GiB, the rest is another partition

	Platform  string   // "ec2", "xen", "azure", "gce", …; empty if unknown
	Ephemeral []string // kernel names that the platform's metadata lists as ephemeral

	RAMRoot bool  // cvm_ramroot=1: a tmpfs if no disk fits
	Memory  int64 // bytes of RAM of the machine
}

// Action is what is to be done to get a UROOT.
type Action string

// The actions, mildest first.
const (
	Reuse     Action = "reuse"     // Device holds a UROOT: check it
	RAM       Action = "ram"       // no disk: a tmpfs of Size bytes
	Format    Action = "format"    // Device is an unused partition: make the file system
	Partition Action = "partition" // Disk is blank: partition table, then as Format
	Append    Action = "append"    // Disk is the boot disk: one more partition in Free, then as Format
)

// Choice is a decision, ready for Prepare.
type Choice struct {
	Action Action
	Disk   Device // the whole disk, for Partition and Append; else the disk that holds Device
	Device Device // the partition, for Reuse and Format
	Free   Extent // for Append
	Size   int64  // for RAM: bytes

	Limited bool // at most 20 GiB, the rest becomes another partition
	Forced  bool // the user named the place (use_boothd), so leftovers in it do not matter
	Reason  string
}

// claim says by which rule a device may become UROOT. The order is that of
// preference.
type claim int

const (
	never claim = iota
	isUROOT
	bootDiskFirst // use_boothd
	localBlank    // uroot_prefer=local
	unfinished
	blankDisk
	blankPart
	localDisk // instance store, when nobody asked for it
	listedEphemeral
	wantedEphemeral // use_ephemeral
	bootDiskLast
)

// verdict is what the rules say of one device.
type verdict struct {
	claim  claim
	reason string
}

// Choose decides which device becomes UROOT. It is a pure function. The error
// is a *NoDisk that lists each device with the reason it was not used, or an
// *Ambiguous if two devices have an equal claim to be the existing UROOT; both
// come wrapped in a *fail.Error that has their remedy as its hint.
func Choose(devices []Device, p Preferences) (Choice, error) {
	verdicts := make([]verdict, len(devices))
	for i, d := range devices {
		verdicts[i] = judge(d, p)
	}
	for c := isUROOT; c <= bootDiskLast; c++ {
		var who []int
		for i, v := range verdicts {
			if v.claim == c {
				who = append(who, i)
			}
		}
		if len(who) == 0 {
			continue
		}
		if c == isUROOT && len(who) > 1 {
			e := ambiguous(devices, who)
			return Choice{}, fail.New(fail.Conflict, "%w", e).Hint("%s", e.Remedy)
		}
		best := devices[who[0]]
		for _, i := range who[1:] { // one whose partition says so comes before others
			if devices[i].PartName == label && best.PartName != label {
				best = devices[i]
			}
		}
		return decide(devices, best, c, p), nil
	}
	if p.RAMRoot && p.Memory >= minRAM {
		return Choice{Action: RAM, Size: p.Memory / 2, Reason: "no disk fits, and cvm_ramroot=1"}, nil
	}
	e := noDisk(devices, verdicts, p)
	return Choice{}, fail.New(fail.HostLacks, "%w", e).Hint("%s", e.Remedy)
}

func decide(devices []Device, d Device, c claim, p Preferences) Choice {
	choice := Choice{Device: d, Disk: d, Limited: p.Limited, Reason: reasons()[c]}
	if d.Kind == Part {
		for _, o := range devices {
			if o.Name == d.Parent {
				choice.Disk = o
			}
		}
	}
	switch {
	case c == isUROOT:
		choice.Action = Reuse
	case c == bootDiskFirst || c == bootDiskLast:
		choice.Action, choice.Device, choice.Free, choice.Forced = Append, Device{}, d.Free, p.UseBootHD
	case d.Kind == Disk && !d.Content.Known() && !d.marked:
		choice.Action, choice.Device = Partition, Device{}
	default:
		choice.Action = Format
	}
	return choice
}

func reasons() map[claim]string {
	return map[claim]string{
		isUROOT:         "it is a UROOT already",
		bootDiskFirst:   "use_boothd asks for the free space of the boot disk",
		localBlank:      "uroot_prefer=local asks for the blank instance store",
		unfinished:      "it was being made into a UROOT when the machine stopped",
		blankDisk:       "the disk is blank",
		blankPart:       "the partition is blank",
		localDisk:       "the instance store is blank, and nothing else is free",
		listedEphemeral: "the platform lists it as ephemeral, and it is empty",
		wantedEphemeral: "use_ephemeral allows it, and it is empty",
		bootDiskLast:    "nothing else is free, and the boot disk has space",
	}
}

// judge applies the rules to one device. Whatever is not allowed is refused.
func judge(d Device, p Preferences) verdict {
	no := func(format string, args ...any) verdict { return verdict{never, fmt.Sprintf(format, args...)} }
	switch {
	case d.Problem != "":
		return no("%s", d.Problem)
	case d.Kind == Optical, d.Kind == Floppy:
		return no("%s drives are not for writing", d.Kind)
	case d.Kind != Disk && d.Kind != Part:
		return no("is not a disk")
	case d.ReadOnly:
		return no("is read-only%s", also(d))
	case d.InUse && !d.Boot:
		return no("is in use%s", also(d))
	}
	if d.Content.Label == label && (d.Content.Type == "ext4" || d.Content.Type == "ext3") && !d.Unfinished {
		return judgeUROOT(d, p)
	}
	if p.UROOT != "" {
		return no("is not the UROOT that cvm_uroot asks for")
	}
	switch {
	case d.Content.Type == probe.Slice:
		return no("holds a slice of a repository")
	case d.further() && !d.Boot:
		return no("was added to the machine for its user (serial number %s)", d.Serial)
	case d.Kind == Part:
		return judgePartition(d, p)
	}
	return judgeDisk(d, p)
}

// judgeUROOT accepts a file system of that label that has the layout of a
// UROOT, or that nobody has written to yet. It will not be formatted, only used.
func judgeUROOT(d Device, p Preferences) verdict {
	if want := strings.TrimPrefix(p.UROOT, "UUID="); want != "" && !strings.EqualFold(want, d.Content.UUID) {
		return verdict{never, "is the UROOT " + d.Content.UUID + ", not the one that cvm_uroot asks for"}
	}
	switch {
	case len(d.Content.All) > 1:
		return verdict{never, "is labelled UROOT, but carries " + strings.Join(d.Content.All[1:], ", ") + " as well"}
	case !d.Content.RootRead, slices.Contains(d.Content.Root, "aux"):
		return verdict{claim: isUROOT}
	}
	for _, name := range d.Content.Root {
		if !slices.Contains(layout(), name) {
			return verdict{never, fmt.Sprintf("is labelled UROOT, but has no aux directory and holds %q", name)}
		}
	}
	return verdict{claim: isUROOT}
}

// layout lists what may be in a UROOT that was stopped before it was complete.
func layout() []string {
	return []string{
		"lost+found", "persistent", "ovlwork", "cache", "cvmfs", "aux", "context", "kexec", "ulogs",
		"swapfile", "afs-cache", "containers", "docker",
	}
}

func judgePartition(d Device, p Preferences) verdict {
	no := func(format string, args ...any) verdict { return verdict{never, fmt.Sprintf(format, args...)} }
	switch {
	case d.Unfinished:
		return verdict{claim: unfinished}
	case d.Content.Known():
		return judgeEphemeral(d, p)
	case !d.Blank:
		return no("holds data that is not known (at %s)", amount(d.DataAt))
	case d.Type != "" && !slices.Contains([]string{gpt.LinuxData, gpt.LinuxRootX86, gpt.LinuxRootARM, gpt.MBRLinux}, d.Type):
		return no("is blank, but its type %s is not for Linux files", d.Type)
	case d.Name == "" && d.PartName != label:
		return no("is blank, but the kernel does not accept the partition table it is in")
	case d.Removable:
		return no("is on a removable disk")
	case d.Size < minPart:
		return no("is smaller than %s", amount(minPart))
	}
	return verdict{claim: blankPart}
}

func judgeDisk(d Device, p Preferences) verdict {
	no := func(format string, args ...any) verdict { return verdict{never, fmt.Sprintf(format, args...)} }
	switch {
	case d.Boot:
		return judgeBoot(d, p)
	case d.Unfinished && (d.marked || !d.Content.Known()):
		return verdict{claim: unfinished}
	case d.Content.Known():
		return judgeEphemeral(d, p)
	case d.Table.Scheme == gpt.Damaged:
		return no("has a damaged partition table")
	case len(d.Table.Entries) > 0:
		return no("has a partition table, with %s", count(len(d.Table.Entries), "partition"))
	case !d.Blank:
		return no("has no partitions, but holds data that is not known (at %s)", amount(d.DataAt))
	case d.Removable:
		return no("is removable")
	case d.Size < minDisk:
		return no("is smaller than %s", amount(minDisk))
	}
	switch local := strings.Contains(d.Model, instanceStore); {
	case local && p.PreferLocal:
		return verdict{claim: localBlank}
	case local:
		return verdict{claim: localDisk}
	}
	return verdict{claim: blankDisk}
}

func judgeBoot(d Device, p Preferences) verdict {
	no := func(format string, args ...any) verdict { return verdict{never, fmt.Sprintf(format, args...)} }
	inMBR := 0
	for _, e := range d.Table.Entries {
		if e.Number <= 4 {
			inMBR++
		}
	}
	switch {
	case d.Content.Known() && d.Content.Type != "iso9660", d.Table.Scheme != gpt.GPT && d.Table.Scheme != gpt.MBR:
		return no("is the boot disk, and has no partition table to add to")
	case d.Free.Size < minPart:
		return no("is the boot disk, and has only %s of free space, not %s", amount(d.Free.Size), amount(minPart))
	case d.Table.Scheme == gpt.MBR && inMBR > 3:
		return no("is the boot disk, and its four partitions are taken")
	case d.Table.Scheme == gpt.MBR && (d.Free.Start+d.Free.Size)/max(d.Sector, 512) > maxMBR:
		return no("is the boot disk, and its free space is beyond the reach of its MBR")
	case p.UseBootHD:
		return verdict{claim: bootDiskFirst}
	case !d.FreeBlank:
		return no("is the boot disk, and there are leftovers in its free space; use_boothd=1 takes it all the same")
	}
	return verdict{claim: bootDiskLast}
}

// judgeEphemeral is for file systems that a platform puts on the disks that it
// wipes. Only an empty one is ever taken, and never by a guess.
func judgeEphemeral(d Device, p Preferences) verdict {
	c := d.Content
	no := func(format string, args ...any) verdict { return verdict{never, fmt.Sprintf(format, args...)} }
	what := "holds " + c.Type
	if c.Label != "" {
		what += fmt.Sprintf(" (label %q)", c.Label)
	}
	asDelivered := c.Type == "ntfs" && c.Label == azureLabel // before anyone formats it for Linux
	switch {
	case len(c.All) > 1, !c.RootRead, c.Type != "ext3" && c.Type != "ext4" && !asDelivered, c.Ext != nil && !c.Ext.Clean:
		return no("%s", what)
	}
	for _, name := range c.Root {
		if !slices.Contains([]string{"lost+found", "System Volume Information", "$RECYCLE.BIN"}, name) && !strings.EqualFold(name, dataLoss) {
			return no("%s with files", what)
		}
	}
	warned := asDelivered || slices.ContainsFunc(c.Root, func(name string) bool { return strings.EqualFold(name, dataLoss) })
	switch {
	case c.Label == "" && !warned && (p.Platform == "ec2" || p.Platform == "xen") && listed(d, p.Ephemeral):
		return verdict{claim: listedEphemeral}
	case c.Label != "ephemeral0" && (!warned || p.Platform != "azure"):
		return no("%s", what)
	case !p.UseEphemeral:
		return no("%s; its content is lost when the platform moves the machine, use_ephemeral=1 takes it", what)
	}
	return verdict{claim: wantedEphemeral}
}

// listed compares names as Xen does: what the metadata calls sdb is xvdb here.
func listed(d Device, names []string) bool {
	plain := func(s string) string {
		s = strings.TrimPrefix(s, "/dev/")
		return strings.TrimPrefix(strings.TrimPrefix(s, "xvd"), "sd")
	}
	return slices.ContainsFunc(names, func(n string) bool { return plain(n) == plain(d.Name) })
}

func also(d Device) string {
	if d.Content.Label == label {
		return ", though it is labelled UROOT"
	}
	return ""
}

func ambiguous(devices []Device, who []int) *Ambiguous {
	e := &Ambiguous{}
	ids := map[string]bool{}
	for _, i := range who {
		id := devices[i].Content.UUID
		e.Devices = append(e.Devices, fmt.Sprintf("%s (UUID=%s)", devices[i].title(), id))
		ids[id] = true
	}
	e.Remedy = "detach all but one, or start with cvm_uroot=UUID=… on the kernel command line"
	if len(ids) < len(who) {
		e.Remedy = "detach all but one: they are copies of each other, and not even their identifiers differ"
	}
	return e
}

func noDisk(devices []Device, verdicts []verdict, p Preferences) *NoDisk {
	e := &NoDisk{Remedy: "attach a blank disk of 1 GiB or more, better 20 GiB; a disk in the list can be made blank with blkdiscard or wipefs if nothing on it is needed"}
	for i, d := range devices {
		if d.Kind != Virtual { // dozens of loop and RAM devices tell nobody anything
			e.Devices = append(e.Devices, Rejected{d.title(), d.Size, verdicts[i].reason})
		}
	}
	switch {
	case p.UROOT != "":
		e.Remedy = fmt.Sprintf("attach the disk that cvm_uroot=%s names, or start without that word", p.UROOT)
	case p.RAMRoot:
		e.Remedy += fmt.Sprintf("; cvm_ramroot needs %s of memory, and there is %s", amount(minRAM), amount(p.Memory))
	}
	return e
}

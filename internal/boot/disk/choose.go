package disk

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
	Reason  string
}

// Choose decides which device becomes UROOT. It is a pure function. The error
// is a *NoDisk that lists each device with the reason it was not used, or an
// *Ambiguous if two devices have an equal claim.
func Choose(devices []Device, p Preferences) (Choice, error) {
	return choose(devices, p)
}

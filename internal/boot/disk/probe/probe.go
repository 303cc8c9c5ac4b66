package probe

// Content is what a device holds.
type Content struct {
	// Type is the kind of the strongest signature, in libblkid's words: "ext4",
	// "vfat", "crypto_LUKS", "LVM2_member", "swap"; empty if nothing is known.
	Type  string
	Usage Usage
	Label string
	UUID  string

	// All lists the type of every signature, the strongest first.
	All []string

	// Root lists the names in the root directory, for ext2 to ext4, vfat and
	// iso9660; RootRead says that it could be read whole.
	Root     []string
	RootRead bool

	// Ext is set for ext2 to ext4.
	Ext *Ext
}

// Usage says what a signature is for.
type Usage string

// The usages.
const (
	Filesystem Usage = "filesystem"
	Raid       Usage = "raid" // member of a volume group, RAID set, pool or cache
	Crypto     Usage = "crypto"
	Other      Usage = "other" // swap
)

// Ext is what only an ext superblock says.
type Ext struct {
	Mounts      uint16 // times mounted since the last check
	LastMounted string // where
	Mounted     int64  // when, seconds since 1970; 0 is never
	Written     int64
	Size        int64 // bytes of the file system
	Clean       bool
}

package gpt

// Scheme is the kind of a partition table.
type Scheme string

// The schemes.
const (
	None    Scheme = ""
	MBR     Scheme = "mbr"
	GPT     Scheme = "gpt"
	Damaged Scheme = "damaged" // there is a GPT, but no copy of it is whole
)

// Table is a partition table.
type Table struct {
	Scheme  Scheme
	DiskID  string // GUID of a GPT, eight hexadecimal digits of an MBR
	Entries []Entry

	// The rest describes a GPT: how it is to be kept when it is rewritten.
	FirstUsable, LastUsable int64 // sectors
	BackupLBA               int64 // where the backup header is
	PrimaryOK, BackupOK     bool
	slots, slotSize         int
}

// Entry is one partition. Start and Sectors are in logical sectors.
type Entry struct {
	Number     int
	Start      int64
	Sectors    int64
	Type       string // GUID in lower case, or "0x83"
	ID         string // unique GUID, of a GPT
	Name       string // of a GPT
	Attributes uint64 // of a GPT
	Boot       bool   // active, of an MBR
}

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

// Partition types.
const (
	LinuxData    = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	LinuxRootX86 = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	LinuxRootARM = "b921b045-1df0-41c3-af44-4c6f280d3fae" // 64 bit

	MBRLinux      = "0x83"
	mbrProtective = 0xEE
)

// Table is a partition table.
type Table struct {
	Scheme  Scheme
	DiskID  string // GUID of a GPT, eight hexadecimal digits of an MBR
	Entries []Entry

	// The rest describes a GPT: how it is to be kept when it is rewritten.
	FirstUsable, LastUsable int64 // sectors
	BackupLBA               int64 // where the primary header says that the backup is
	PrimaryOK, BackupOK     bool

	sector, sectors int64 // of the disk it was read from
	slots, slotSize int
	raw             []byte // the whole array of entries, as read
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
	Container  bool   // an extended partition: its logical ones are listed, too
}

// End is the sector after the last one.
func (e Entry) End() int64 { return e.Start + e.Sectors }

// Extent is a run of sectors.
type Extent struct{ Start, Sectors int64 }

// Free lists the unpartitioned runs of a disk of so many sectors, cut to
// multiples of align sectors, in order. The place of the tables is not free: for
// a GPT it is reckoned as if the backup were at the end of the disk already.
func (t Table) Free(sectors, align int64) []Extent {
	first, last := align, sectors/align*align-align
	if t.Scheme == GPT {
		first = max(first, t.FirstUsable)
		last = min(last, sectors-1-t.arraySectors())
	}
	if t.Scheme == Damaged || align <= 0 {
		return nil
	}
	taken := sortedByStart(t.Entries)
	var free []Extent
	at := first
	add := func(end int64) {
		from, to := (at+align-1)/align*align, end/align*align
		if to > from {
			free = append(free, Extent{from, to - from})
		}
	}
	for _, e := range taken {
		add(min(e.Start, last))
		at = max(at, e.End())
	}
	add(last)
	return free
}

// Largest returns the largest run of Free, the first of equals.
func (t Table) Largest(sectors, align int64) Extent {
	var best Extent
	for _, e := range t.Free(sectors, align) {
		if e.Sectors > best.Sectors {
			best = e
		}
	}
	return best
}

// IsLast reports whether no partition begins after partition number.
func (t Table) IsLast(number int) bool {
	var start int64 = -1
	for _, e := range t.Entries {
		if e.Number == number {
			start = e.Start
		}
	}
	for _, e := range t.Entries {
		if e.Start > start && e.Number != number && !e.Container {
			return false
		}
	}
	return start >= 0
}

// Entry returns partition number.
func (t Table) Entry(number int) (Entry, bool) {
	for _, e := range t.Entries {
		if e.Number == number {
			return e, true
		}
	}
	return Entry{}, false
}

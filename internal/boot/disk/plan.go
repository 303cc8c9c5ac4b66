package disk

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // a name-based identifier, RFC 9562 section 5.5, is made with it
	"encoding/hex"
	"fmt"
	"io"
	"runtime"

	"github.com/micavm/mica/internal/boot/disk/gpt"
)

// plan is the partition table of a disk of our own. It is a function of the
// disk's size, the identifier of its first partition and whether that one is
// limited, so that a half-written one can be told from anything else.
func plan(size, sector int64, partID string, limited bool) (gpt.Table, error) {
	t, err := gpt.New(size, sector, derived(partID, "disk"))
	if err != nil {
		return gpt.Table{}, err
	}
	free := t.Largest(size/sector, mib/sector)
	first := free
	if limited {
		first.Sectors = min(free.Sectors, limit/sector)
	}
	if t, err = t.Add(gpt.Entry{Start: first.Start, Sectors: first.Sectors, Type: rootType(), ID: partID, Name: label}); err != nil {
		return gpt.Table{}, err
	}
	if rest := (gpt.Extent{Start: first.Start + first.Sectors, Sectors: free.Sectors - first.Sectors}); rest.Sectors > 0 {
		t, err = t.Add(gpt.Entry{Start: rest.Start, Sectors: rest.Sectors, Type: gpt.LinuxData, ID: derived(partID, "rest"), Name: "rest"})
	}
	return t, err
}

// writes lists the sectors of a plan in the order in which they are written. The
// first holds the identifier from which all others follow.
func writes(t gpt.Table) []gpt.Write {
	list := append(t.Backup(), t.Primary()...)
	return append(list, t.Protective())
}

// halfMade reports whether a disk carries a plan of which some writes are
// missing, and nothing else, and returns the plan.
func halfMade(r io.ReaderAt, size, sector int64) (gpt.Table, bool, error) {
	if size < 8*mib || sector <= 0 {
		return gpt.Table{}, false, nil
	}
	empty, err := gpt.New(size, sector, derived("", ""))
	if err != nil {
		return gpt.Table{}, false, nil //nolint:nilerr // too small for a table is no table
	}
	first := make([]byte, 128)
	if _, err := r.ReadAt(first, empty.Backup()[0].Offset); err != nil {
		return gpt.Table{}, false, fmt.Errorf("reading the place of the backup partition table: %w", err)
	}
	e, used := gpt.DecodeEntry(first)
	if !used || e.Name != label || e.Type != rootType() {
		return gpt.Table{}, false, nil
	}
	for _, limited := range []bool{false, true} {
		t, err := plan(size, sector, e.ID, limited)
		if err != nil || t.Entries[0].Start != e.Start || t.Entries[0].Sectors != e.Sectors {
			continue
		}
		missing, ok, err := subset(r, writes(t))
		if err != nil || !ok || !missing {
			return gpt.Table{}, false, err
		}
		// Behind the table there must be nothing yet.
		usable := Extent{t.FirstUsable * sector, (t.LastUsable + 1 - t.FirstUsable) * sector}
		_, ok, err = blank(r, usable)
		return t, ok, err
	}
	return gpt.Table{}, false, nil
}

// subset reports whether each of the writes is either on the disk or its place
// is zero, sector by sector, and whether any is missing.
func subset(r io.ReaderAt, list []gpt.Write) (missing, ok bool, err error) {
	const sector = 512
	for _, w := range list {
		got := make([]byte, len(w.Data))
		if _, err := r.ReadAt(got, w.Offset); err != nil && err != io.EOF {
			return false, false, fmt.Errorf("reading the place of the %s: %w", w.What, err)
		}
		for i := 0; i+sector <= len(got); i += sector {
			have, want := got[i:i+sector], w.Data[i:i+sector]
			switch {
			case bytes.Equal(have, want):
			case bytes.Equal(have, make([]byte, sector)):
				missing = true
			default:
				return false, false, nil
			}
		}
	}
	return missing, true, nil
}

// derived is a name-based UUID in the name space of another.
func derived(base, name string) string {
	space, err := gpt.ParseGUID(base)
	if err != nil {
		space = [16]byte{}
	}
	sum := sha1.Sum(append(space[:], name...)) //nolint:gosec // see the import
	return formatUUID(sum[:16], 5)
}

// randomUUID is a version 4 UUID.
func randomUUID(r io.Reader) (string, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("making an identifier: %w", err)
	}
	return formatUUID(b, 4), nil
}

func formatUUID(b []byte, version byte) string {
	b = bytes.Clone(b)
	b[6], b[8] = b[6]&0x0f|version<<4, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// rootType is the partition type of this architecture's root file system.
func rootType() string {
	if runtime.GOARCH == "arm64" {
		return gpt.LinuxRootARM
	}
	return gpt.LinuxRootX86
}

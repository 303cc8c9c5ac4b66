package iso9660

import (
	"encoding/binary"
	"fmt"
	"time"
)

// bothEndian32 and bothEndian16 append a number little endian, then big endian
// (ECMA-119 7.3.3 and 7.2.3).
func bothEndian32(b []byte, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, v), v)
}

func bothEndian16(b []byte, v uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, v), v)
}

// shortTime is the seven byte time of a directory record, always in UTC.
func shortTime(t time.Time) []byte {
	t = t.UTC()
	return []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0}
}

// longTime is the seventeen byte time of a volume descriptor.
func longTime(t time.Time) []byte {
	t = t.UTC()
	return append([]byte(fmt.Sprintf("%04d%02d%02d%02d%02d%02d%02d", t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond()/10_000_000)), 0)
}

const flagDirectory = 0x02

// directoryRecord is a record of ECMA-119 9.1 with its system use area.
func directoryRecord(id []byte, extent, size uint32, t time.Time, dir bool, systemUse []byte) []byte {
	b := make([]byte, 2, 64)
	b = bothEndian32(b, extent)
	b = bothEndian32(b, size)
	b = append(b, shortTime(t)...)
	var flags byte
	if dir {
		flags = flagDirectory
	}
	b = append(b, flags, 0, 0)
	b = bothEndian16(b, 1)
	b = append(b, byte(len(id)))
	b = append(b, id...)
	if len(id)%2 == 0 {
		b = append(b, 0)
	}
	b = append(b, systemUse...)
	if len(b)%2 != 0 {
		b = append(b, 0)
	}
	b[0] = byte(len(b))
	return b
}

// recordRoom is what a record with this identifier leaves for system use.
func recordRoom(id []byte) int {
	used := 33 + len(id)
	used += used % 2
	return 254 - used
}

// area collects pieces that must not cross a sector boundary.
type area []byte

func (a area) add(piece []byte) (area, int) {
	if left := SectorSize - len(a)%SectorSize; len(piece) > left {
		a = append(a, make([]byte, left)...)
	}
	at := len(a)
	return append(a, piece...), at
}

func (a area) pad() area {
	if n := len(a) % SectorSize; n != 0 {
		a = append(a, make([]byte, SectorSize-n)...)
	}
	return a
}

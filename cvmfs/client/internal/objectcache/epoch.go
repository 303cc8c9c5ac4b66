package objectcache

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
)

// An unclean end of any user of the cache, a power cut perhaps, makes all objects
// of before doubtful, however many clean ends follow before one is used again. So
// such ends are counted, and each object has a record of the count it was last
// known to be good at.

// epochFile has the count, for all repositories that share the cache.
const epochFile = "epoch"

// recordAttr is the extended attribute with an object's record.
const recordAttr = "user.mica.object"

// record is what the cache knows of an object beside its content.
type record struct {
	sum   [4]byte // CRC-32C of the content
	comp  cvmfs.Compression
	epoch uint32
}

const recordSize = 9

// getRecord is false where there is none: the file system has no attributes, or
// another kind of client wrote the object.
func getRecord(f *os.File) (record, bool) {
	var b [recordSize + 1]byte
	n, err := unix.Fgetxattr(int(f.Fd()), recordAttr, b[:])
	if err != nil {
		return record{}, false
	}
	return parseRecord(b[:n])
}

func parseRecord(b []byte) (record, bool) {
	if len(b) != recordSize {
		return record{}, false
	}
	return record{sum: [4]byte(b[:4]), epoch: binary.LittleEndian.Uint32(b[4:]), comp: cvmfs.Compression(b[8])}, true
}

func (r record) bytes() []byte {
	return append(binary.LittleEndian.AppendUint32(r.sum[:], r.epoch), byte(r.comp))
}

// setRecord reports whether the file system took it. An object without one is
// just not checked after an unclean end.
func (c *Cache) setRecord(f *os.File, r record) bool {
	return unix.Fsetxattr(int(f.Fd()), recordAttr, r.bytes(), 0) == nil
}

func (c *Cache) readEpoch() uint32 {
	data, err := c.root.ReadFile(epochFile)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.opt.Log.Warn("the count of unclean ends cannot be read", "cache", c.dir, "err", err)
		}
		return 0
	}
	return parseEpoch(string(data))
}

// parseEpoch reads the count. Of a damaged one it makes one that no object has, so
// that all are checked.
func parseEpoch(text string) uint32 {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return 1<<32 - 1
	}
	return uint32(n)
}

// nextEpoch counts an unclean end. Where that cannot be written down the mark of
// it stays, and the next user comes here again.
func (c *Cache) nextEpoch() {
	c.epoch++
	if c.epoch == 0 {
		c.epoch = 1
	}
	if err := c.replace(epochFile, []byte(strconv.FormatUint(uint64(c.epoch), 10)+"\n"), true); err != nil {
		c.unnoted = true
		c.opt.Log.Warn("the unclean end is not written down", "cache", c.dir, "err", err)
	}
}

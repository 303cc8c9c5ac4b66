package build

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/micavm/mica/internal/fail"
)

// Compression is how an initramfs is packed.
type Compression string

// The compressions. Both are built into Debian's kernels.
const (
	XZ   Compression = "xz"   // smallest
	Zstd Compression = "zstd" // unpacks many times faster
)

// window is the dictionary of either: larger than the initramfs gains nothing,
// smaller loses.
const window = 32 << 20

// writer packs what is written to it into w.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	switch c {
	case XZ:
		// The kernel's decoder knows no other checksum than CRC32.
		z, err := xz.WriterConfig{DictCap: window, CheckSum: xz.CRC32}.NewWriter(w)
		if err != nil {
			return nil, fmt.Errorf("packing: %w", err)
		}
		return z, nil
	case Zstd:
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, fmt.Errorf("packing: %w", err)
		}
		return z, nil
	}
	return nil, fail.New(fail.Usage, "unknown compression %q", c).Hint("use xz or zstd")
}

// DefaultCompression is chosen by measuring; see docs/boot-image.md.
const DefaultCompression = XZ

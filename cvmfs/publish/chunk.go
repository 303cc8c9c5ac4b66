package publish

import (
	"errors"
	"fmt"
)

// ChunkSizes are the limits of content-defined chunking in bytes. Files up to
// Min are stored whole.
type ChunkSizes struct{ Min, Avg, Max int64 }

// defaultChunks are the original's.
var defaultChunks = ChunkSizes{Min: 4 << 20, Avg: 8 << 20, Max: 16 << 20}

func (c ChunkSizes) check() error {
	if c.Min < window || c.Min >= c.Avg || c.Avg >= c.Max {
		return fmt.Errorf("chunk sizes %d, %d, %d do not rise from at least %d: %w", c.Min, c.Avg, c.Max, window, errors.ErrUnsupported)
	}
	return nil
}

// window is how many bytes before the earliest cut the rolling value starts.
const window = 32

// detector finds the places where a stream is cut. It reproduces the original's
// arithmetic, so that equal files published by either have equal chunks.
type detector struct {
	min, max  int64
	threshold int32
	pos       int64 // of the next byte
	last      int64 // of the last cut
	x         uint32
}

func newDetector(c ChunkSizes) *detector {
	return &detector{min: c.Min, max: c.Max, threshold: int32(0xffffffff / c.Avg)} //nolint:gosec // Avg is above 32
}

// next looks at the bytes that follow in the stream. It returns the index of
// the first byte of the next chunk and has then consumed those before it, or
// len(b) and false, having consumed them all.
func (d *detector) next(b []byte) (int, bool) {
	i := 0
	if skip := d.last + d.min - window - d.pos; skip > 0 {
		i = int(min(skip, int64(len(b))))
	}
	first := d.last + d.min // the earliest cut
	for ; i < len(b); i++ {
		at := d.pos + int64(i)
		if at == d.last+d.max {
			return d.cut(i)
		}
		d.x = d.x<<1 ^ uint32(b[i])
		if at >= first && d.hit() {
			return d.cut(i)
		}
	}
	d.pos += int64(len(b))
	return len(b), false
}

func (d *detector) hit() bool {
	distance := int32(d.x - 0x7fffffff) //nolint:gosec // wraps as in the original
	if distance < 0 {
		distance = -distance // the smallest number stays negative and counts, as in C
	}
	return distance < d.threshold
}

func (d *detector) cut(i int) (int, bool) {
	d.pos += int64(i)
	d.last, d.x = d.pos, 0
	return i, true
}

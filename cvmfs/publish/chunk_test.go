package publish

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/micavm/mica/internal/tier"
)

// cuts feeds data in pieces of the given size.
func cuts(c ChunkSizes, data []byte, piece int) []int64 {
	var list []int64
	d := newDetector(c)
	for len(data) > 0 {
		b := data[:min(piece, len(data))]
		n, cut := d.next(b)
		if cut {
			list = append(list, d.pos)
		}
		data = data[n:]
	}
	return list
}

// cutsOfFile is the algorithm as it is written down, over a whole file.
func cutsOfFile(c ChunkSizes, b []byte) []int64 {
	var list []int64
	if int64(len(b)) <= c.Min {
		return nil
	}
	th := int32(0xffffffff / c.Avg) //nolint:gosec // small
	last := int64(0)
	for {
		x, cut := uint32(0), int64(-1)
		for o := last + c.Min - 32; o < int64(len(b)); o++ {
			if o == last+c.Max {
				cut = o
				break
			}
			x = x<<1 ^ uint32(b[o])
			v := int32(x - 0x7fffffff) //nolint:gosec // wraps
			if v < 0 {
				v = -v
			}
			if o >= last+c.Min && v < th {
				cut = o
				break
			}
		}
		if cut < 0 {
			return list
		}
		list = append(list, cut)
		last = cut
	}
}

func TestCutsEqualReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	c := ChunkSizes{Min: 64, Avg: 128, Max: 256}
	for length := range 1500 {
		data := make([]byte, length)
		for i := range data {
			data[i] = byte(random.Uint32() >> (length % 9)) //nolint:gosec // test data
		}
		want := cutsOfFile(c, data)
		for _, piece := range []int{1, 7, 64, 4096} {
			if got := cuts(c, data, piece); !slices.Equal(got, want) {
				t.Fatalf("cuts of %d bytes in pieces of %d = %v, want %v", length, piece, got, want)
			}
		}
	}
}

// A hundred megabytes of a linear congruential generator, cut by the original.
func TestCutsOfOriginal(t *testing.T) {
	tier.Full(t)
	data := make([]byte, 104857600)
	s := uint64(42)
	for i := range data {
		s = s*6364136223846793005 + 1442695040888963407
		data[i] = byte(float64(s) / 18446744073709551616.0 * 256)
	}
	got := cuts(ChunkSizes{Min: 512000, Avg: 1024000, Max: 2048000}, data, 256<<10)
	head := []int64{742752, 2790752, 3521796, 4188893, 4940543, 5884591, 7131564, 8520617, 9159233, 9999783, 11202120, 11778185, 13781177, 15331152}
	tail := []int64{101755336, 103405168, 104269441}
	if len(got) != 104 || !slices.Equal(got[:len(head)], head) || !slices.Equal(got[len(got)-3:], tail) {
		t.Errorf("cuts = %v (%d), want %v … %v (104)", got, len(got), head, tail)
	}
}

func TestCutsOfZeros(t *testing.T) {
	c := ChunkSizes{Min: 16384, Avg: 32768, Max: 65536}
	if got, want := cuts(c, make([]byte, 204800), 1000), []int64{65536, 131072, 196608}; !slices.Equal(got, want) {
		t.Errorf("cuts of zeros = %v, want %v", got, want)
	}
	if got := cuts(c, bytes.Repeat([]byte{7}, 16384), 1000); got != nil {
		t.Errorf("cuts of a file of the smallest size = %v, want none", got)
	}
}

func BenchmarkCuts(b *testing.B) {
	data := make([]byte, 32<<20)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	for i := range data {
		data[i] = byte(random.Uint32()) //nolint:gosec // test data
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		cuts(defaultChunks, data, 256<<10)
	}
}

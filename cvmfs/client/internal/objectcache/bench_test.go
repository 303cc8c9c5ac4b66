package objectcache

import (
	"syscall"
	"testing"

	"github.com/micavm/mica/cvmfs"
)

// cpu reports the processor time of each operation: on a busy machine, unlike the
// time on the wall, it is good for comparisons.
func cpu(b *testing.B) {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	b.Cleanup(func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") })
}

// many returns names of small objects.
func many(n int) []cvmfs.Hash {
	list := make([]cvmfs.Hash, n)
	for i := range list {
		list[i] = cvmfs.SHA1.Sum([]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)})
	}
	return list
}

func BenchmarkStore(b *testing.B) {
	c := openCache(b, b.TempDir(), Options{})
	defer c.Close()
	data := make([]byte, 1000)
	names := many(b.N)
	b.ResetTimer()
	cpu(b)
	for _, h := range names {
		store(b, c, h, cvmfs.Zlib, data)
	}
	b.StopTimer()
}

func BenchmarkGet(b *testing.B) {
	c := openCache(b, b.TempDir(), Options{})
	defer c.Close()
	names := many(1000)
	for _, h := range names {
		store(b, c, h, cvmfs.Zlib, []byte("content"))
	}
	b.ResetTimer()
	cpu(b)
	for i := range b.N {
		o, err := c.Get(names[i%len(names)], Expect{Size: -1, Compression: cvmfs.Zlib})
		if err != nil {
			b.Fatal(err)
		}
		if err := o.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
}

func BenchmarkMiss(b *testing.B) {
	c := openCache(b, b.TempDir(), Options{})
	defer c.Close()
	names := many(1000)
	b.ResetTimer()
	cpu(b)
	for i := range b.N {
		if c.Has(names[i%len(names)]) {
			b.Fatal("there is an object that nobody stored")
		}
		if _, err := c.Get(names[i%len(names)], Expect{Size: -1}); err == nil {
			b.Fatal("got an object that nobody stored")
		}
	}
	b.StopTimer()
}

package mount

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Latency is how long requests of one kind took.
type Latency struct {
	Request string // such as "lookup"
	Count   int64
	h       *histogram
}

// Quantile returns what a share of the requests, from 0 to 1, did not exceed;
// 0 if there were none. Its error is below the value's half.
func (l Latency) Quantile(share float64) time.Duration { return l.h.quantile(share) }

// requests are the kinds that are timed, in the order of the original's report
// (cvmfs: cvmfs/talk.cc). A listing with attributes counts as readdir.
var requests = []string{"lookup", "forget", "getattr", "readlink", "opendir", "releasedir", "readdir", "open", "read", "release"}

// histogram counts durations by the number of their bits in nanoseconds.
type histogram struct {
	bins [64]atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	h.bins[bits.Len64(uint64(max(d, 0)))&63].Add(1)
}

func (h *histogram) count() (n int64) {
	for i := range h.bins {
		n += h.bins[i].Load()
	}
	return n
}

// quantile goes straight through the bin that it falls into.
func (h *histogram) quantile(share float64) time.Duration {
	rank := share * float64(h.count())
	for i := range h.bins {
		n := float64(h.bins[i].Load())
		if n > 0 && rank <= n {
			low, high := int64(1)<<i>>1, int64(1)<<i
			return time.Duration(low) + time.Duration(float64(high-low)*rank/n)
		}
		rank -= n
	}
	return 0
}

// timed is a file system that takes the time of requests.
type timed struct {
	*fileSystem
	took map[string]*histogram // of each kind of request; never changed
}

func newTimed(f *fileSystem) *timed {
	t := &timed{fileSystem: f, took: map[string]*histogram{}}
	for _, r := range requests {
		t.took[r] = &histogram{}
	}
	return t
}

// latencies returns what was counted; nothing of a nil file system.
func (t *timed) latencies() []Latency {
	list := make([]Latency, 0, len(requests))
	for _, r := range requests {
		h := &histogram{}
		if t != nil {
			h = t.took[r]
		}
		list = append(list, Latency{Request: r, Count: h.count(), h: h})
	}
	return list
}

func (t *timed) since(request string, start time.Time) { t.took[request].add(time.Since(start)) }

func (t *timed) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	defer t.since("lookup", time.Now())
	return t.fileSystem.Lookup(cancel, in, name, out)
}

func (t *timed) Forget(id, lookups uint64) {
	defer t.since("forget", time.Now())
	t.fileSystem.Forget(id, lookups)
}

func (t *timed) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer t.since("getattr", time.Now())
	return t.fileSystem.GetAttr(cancel, in, out)
}

func (t *timed) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	defer t.since("readlink", time.Now())
	return t.fileSystem.Readlink(cancel, in)
}

func (t *timed) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer t.since("opendir", time.Now())
	return t.fileSystem.OpenDir(cancel, in, out)
}

func (t *timed) ReleaseDir(in *fuse.ReleaseIn) {
	defer t.since("releasedir", time.Now())
	t.fileSystem.ReleaseDir(in)
}

func (t *timed) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer t.since("readdir", time.Now())
	return t.fileSystem.ReadDir(cancel, in, out)
}

func (t *timed) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer t.since("readdir", time.Now())
	return t.fileSystem.ReadDirPlus(cancel, in, out)
}

func (t *timed) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer t.since("open", time.Now())
	return t.fileSystem.Open(cancel, in, out)
}

func (t *timed) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	defer t.since("read", time.Now())
	return t.fileSystem.Read(cancel, in, buf)
}

func (t *timed) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	defer t.since("release", time.Now())
	t.fileSystem.Release(cancel, in)
}

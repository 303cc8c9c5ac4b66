package client

import (
	"context"
	"slices"
	"sync"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
)

// aheadSlots bounds the downloads nobody waits for.
const aheadSlots = 16

// fetchAhead downloads an object that will probably be wanted, if there is a
// slot for it and it is not there yet.
func (r *Repository) fetchAhead(w want) bool {
	landed := r.landed.Load()
	if r.cache.Has(w.hash) {
		return true
	}
	select {
	case r.ahead <- struct{}{}:
	default:
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life.Err() != nil {
		<-r.ahead
		return false
	}
	r.tasks.Go(func() {
		defer func() { <-r.ahead }()
		o, err := r.share(r.life, w, landed)
		if err != nil {
			r.log.Debug("fetching ahead", "object", w.hash.String(), "err", err)
			return
		}
		r.stats.ahead.Add(1)
		_ = o.Close()
	})
	return true
}

// How far a scan is read ahead of.
const (
	firstWindow  = 4       // files, once two were opened in order
	widestWindow = 64      // files
	aheadBytes   = 4 << 20 // of one window, inflated
	aheadFile    = 1 << 20 // files larger than this one are worth their own wait
	nearby       = 8       // files that may be left out between two of one scan
	keptScans    = 16      // directories that are watched at a time
	keptNames    = 8192    // in their listings, that of the last one not counted
	momentum     = 8       // files opened in order, after which the next directory is expected to be read too
	nextDirs     = 64      // directories that are looked into ahead, as long as they have few files
)

// What a walk through directories may fetch in vain, in eighths of a file: 32
// files to begin with, half a file for each that was wanted, and one for every
// eight that somebody had to wait for. A boot jumps about in a way that looks
// like a walk a hundred times, and is none.
const (
	stake     = 32 * price
	price     = 8
	winnings  = 12
	orderly   = 4
	smallGain = 1
	maxCredit = 8 * stake
	maxBets   = 1024 // files that nobody has wanted yet; then they are given up
)

// scans notices that a directory's files are opened in the order of its
// listing, as tar, cp, find with grep and compilers do, and has the next ones
// downloaded before they are asked for, so that reading many small files is not
// a matter of round trips. What is opened here and there costs nothing: the
// first files of a directory are never fetched ahead, unless whole directories
// were read before, and the window grows only with files that were wanted.
type scans struct {
	r     *Repository
	queue chan task // to the goroutine that waits for slots

	mu     sync.Mutex // guards the following
	recent []*scan    // the one used last at the end
	pace   int        // files opened in order since the last that was not
	dir    string     // of the file opened last
	hot    int        // directories to look at before it is believed that all is in the cache
	credit int        // of the walk
	bets   map[cvmfs.Hash]struct{}
}

// task is an object to fetch, or a directory that is read, after which the next
// ones may be.
type task struct {
	want
	readDir string // if the object has no hash
	sure    bool   // its files were read in order, nearly to the end
}

// scan is one directory.
type scan struct {
	dir    string
	names  []string // in order; nil until a second file is opened
	wants  []want   // of each name; without a hash where there is nothing to fetch
	last   string   // name that was opened last
	at     int      // its index, -1 if not known
	done   int      // index up to which was fetched
	window int
}

func newScans(r *Repository) *scans {
	s := &scans{r: r, queue: make(chan task, 2*widestWindow), credit: stake, bets: map[cvmfs.Hash]struct{}{}}
	r.tasks.Go(s.feed)
	return s
}

// feed waits for slots, and looks into directories, so that whoever opens a file
// need not.
func (s *scans) feed() {
	next := &walker{r: s.r, places: map[string]found{}}
	for {
		select {
		case <-s.r.life.Done():
			return
		case t := <-s.queue:
			if t.hash.IsZero() {
				s.follow(next, t)
			} else {
				s.fetch(t.want)
			}
		}
	}
}

// fetch has an object downloaded as soon as there is a slot.
func (s *scans) fetch(w want) {
	for !s.r.fetchAhead(w) {
		select { // a slot that comes free is taken at the next try
		case <-s.r.life.Done():
			return
		case s.r.ahead <- struct{}{}:
			<-s.r.ahead
		}
	}
}

// follow fetches the files of the directories that come after dir, some
// directories or many files far.
func (s *scans) follow(w *walker, t task) {
	if likely := w.read(t.readDir); !t.sure && !likely {
		return
	}
	if w.inOrder() {
		s.earn(orderly)
	}
	if _, known := w.places[t.readDir]; !known && w.seek(t.readDir) != nil {
		return
	}
	for at := w.places[t.readDir]; w.total.dirs-at.dirs < nextDirs && w.total.files-at.files < widestWindow && w.total.bytes-at.bytes < aheadBytes; {
		if !s.solvent() {
			return
		}
		files, more := w.step()
		if !more {
			return
		}
		for _, one := range files {
			if s.r.cache.Has(one.hash) {
				continue
			}
			if !s.bet(one.hash) {
				return
			}
			s.fetch(one)
		}
	}
}

// bet reports whether the walk may fetch one more file.
func (s *scans) bet(hash cvmfs.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit < price {
		return false
	}
	s.credit -= price
	if len(s.bets) == maxBets {
		clear(s.bets)
	}
	s.bets[hash] = struct{}{}
	s.hot = nextDirs
	return true
}

func (s *scans) solvent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.credit >= price
}

// settle hears that a file is wanted, for which somebody has to wait if it is
// not in the cache. s.mu is held.
func (s *scans) settle(hash cvmfs.Hash, cached bool) {
	if _, won := s.bets[hash]; won {
		delete(s.bets, hash)
		s.add(winnings)
	} else if !cached {
		s.add(smallGain)
	}
}

func (s *scans) earn(gain int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(gain)
}

// add is called with the lock held.
func (s *scans) add(gain int) { s.credit = min(s.credit+gain, maxCredit) }

// small is what to fetch of an entry, without a hash where there is nothing, or
// too much.
func (r *Repository) small(dir string, e catalog.Entry) want {
	if !e.IsRegular() || e.IsChunked() || e.IsExternal() || e.Size <= 0 || e.Size > aheadFile {
		return want{}
	}
	w := wholeOf(e)
	if r.opt.Network.SendInfo { // else nobody wants to know
		w.path = dir + "/" + e.Name
	}
	return w
}

// opened hears of every file that is opened. There is nothing to be gained
// where it is in the cache, unless it is there because it was fetched ahead.
func (s *scans) opened(ctx context.Context, path string, hash cvmfs.Hash) {
	cached := s.r.cache.Has(hash)
	dir := parentOf(path)
	name := path[len(dir)+1:]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(hash, cached)
	if !cached {
		s.hot = nextDirs
	}
	if dir != s.dir && s.hot > 0 { // the first of many, or of one
		s.hot--
		s.dir = dir
		s.push(task{readDir: dir})
	}
	one := s.scanOf(dir)
	if one == nil {
		if moving := s.pace >= momentum; moving || !cached {
			one = s.watch(dir)
			one.last = name
			if moving && s.list(ctx, one) {
				s.advance(one, name)
			}
		}
		return
	}
	if one.names == nil && (cached || !s.list(ctx, one)) {
		return
	}
	s.advance(one, name)
}

func (s *scans) scanOf(dir string) *scan {
	for i, one := range s.recent {
		if one.dir == dir {
			s.recent = append(slices.Delete(s.recent, i, i+1), one)
			return one
		}
	}
	return nil
}

func (s *scans) watch(dir string) *scan {
	if len(s.recent) == keptScans {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	one := &scan{dir: dir, at: -1}
	s.recent = append(s.recent, one)
	return one
}

// list gets the directory's files. It is in the catalogue that the file just
// looked up is in, so that nothing is downloaded for it.
func (s *scans) list(ctx context.Context, one *scan) bool {
	entries, err := s.r.ReadDir(ctx, one.dir)
	if err != nil {
		return false
	}
	one.names, one.wants = make([]string, 0, len(entries)), make([]want, 0, len(entries))
	for _, e := range entries {
		one.names, one.wants = append(one.names, e.Name), append(one.wants, s.r.small(one.dir, e))
	}
	one.at = one.index(one.last)
	one.done = one.at
	names := 0
	for i := len(s.recent) - 2; i >= 0; i-- {
		if names += len(s.recent[i].names); names > keptNames {
			s.recent = slices.Delete(s.recent, 0, i+1)
			break
		}
	}
	return true
}

func (one *scan) index(name string) int {
	i, found := slices.BinarySearch(one.names, name)
	if !found {
		return -1
	}
	return i
}

// advance has more fetched if the file follows the one before.
func (s *scans) advance(one *scan, name string) {
	i := one.index(name)
	if i < 0 {
		return
	}
	step := i - one.at
	one.last, one.at = name, i
	switch {
	case step == 0 && s.pace >= momentum && one.window == 0: // the first of a directory, in the middle of a tree
		one.window = 2 * firstWindow
	case step < 1 || step > nearby:
		one.window, s.pace = 0, 0
		return
	default:
		one.window = min(max(firstWindow, 2*one.window), widestWindow)
		s.pace++
	}
	room := int64(aheadBytes)
	for one.done = max(one.done, i); one.done+1 < len(one.wants) && one.done < i+one.window; one.done++ {
		w := one.wants[one.done+1]
		if room -= w.size; room < 0 {
			return
		}
		if w.hash.IsZero() {
			continue
		}
		if !s.push(task{want: w}) {
			return
		}
	}
	if one.done+1 >= len(one.wants) && s.pace >= momentum {
		s.push(task{readDir: one.dir, sure: true})
	}
}

// push is false if the network is behind already.
func (s *scans) push(t task) bool {
	select {
	case s.queue <- t:
		return true
	default:
		return false
	}
}

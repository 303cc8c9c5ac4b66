package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// graftPrefix before a name makes a file that describes the content of the one of
// that name, which the source does not have.
const graftPrefix = ".cvmfsgraft-"

// maxGraft bounds such a file: 64 bytes a chunk, and 16 MiB of content at most in
// each that is worth one.
const maxGraft = 64 << 20

// graft is the description of a content.
//
// Compat: cvmfs: cvmfs/sync_item.cc, CheckGraft: lines "size=", "checksum=" (forty
// zeros where only chunks have one), "chunk_offsets=", "chunk_checksums=" and
// "compression=", blanks around each part, "#" before comments. The file that is
// described has a place, mode and owner in the source; its own content, an empty
// one as a rule, is not looked at. What describes is not published.
//
// Differs: any line that is wrong ends the publication and is named; the original
// aborts without saying which, and passes over words that it does not know. The
// attributes of the file are published with it. A hard link to it is a file of its
// own.
type graft struct {
	size        int64
	hash        cvmfs.Hash
	chunks      []catalog.Chunk
	compression *cvmfs.Compression // nil is that of the publication
}

// parseGraft reads the description in a file.
func parseGraft(file string, data []byte) (*graft, error) {
	g := &graft{size: -1}
	var offsets []int64
	var sums []cvmfs.Hash
	lines := make(map[string]int) // where what was said
	bad := func(key, format string, args ...any) error {
		return fmt.Errorf("source: %q line %d: %s: %w", file, lines[key], fmt.Sprintf(format, args...), ErrSource)
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		_, twice := lines[key]
		lines[key] = number
		if !found || twice {
			return nil, bad(key, "%.80q is no KEY=VALUE, or is there twice", line)
		}
		var err error
		switch key {
		case "size":
			g.size, err = parseSize(value)
		case "checksum":
			g.hash, err = parseContentHash(value)
		case "chunk_offsets":
			offsets, err = parseList(value, parseSize)
		case "chunk_checksums":
			sums, err = parseList(value, func(text string) (cvmfs.Hash, error) { return parseContentHash(strings.TrimSuffix(text, "P")) })
		case "compression":
			g.compression, err = parseGraftCompression(value)
		default:
			err = fmt.Errorf("%.80q: want size, checksum, chunk_offsets, chunk_checksums or compression", key)
		}
		if err != nil {
			return nil, bad(key, "%v", err)
		}
	}
	for _, key := range []string{"size", "checksum"} {
		if lines[key] == 0 {
			lines[key] = max(number, 1)
			return nil, bad(key, "the file ends without %s=", key)
		}
	}
	if len(offsets) != len(sums) {
		key := "chunk_checksums"
		if lines[key] == 0 {
			key = "chunk_offsets"
		}
		return nil, bad(key, "%d offsets and %d checksums of chunks", len(offsets), len(sums))
	}
	for i, at := range offsets {
		end := g.size
		if i+1 < len(offsets) {
			end = offsets[i+1]
		}
		if i == 0 && at != 0 || at >= end || end > g.size {
			return nil, bad("chunk_offsets", "a chunk from %d to %d in a file of %d bytes; they begin at 0 and rise", at, end, g.size)
		}
		if sums[i].IsZero() || sums[i].Algorithm != sums[0].Algorithm || !g.hash.IsZero() && sums[i].Algorithm != g.hash.Algorithm {
			return nil, bad("chunk_checksums", "%v: want checksums of one algorithm", sums[i])
		}
		g.chunks = append(g.chunks, catalog.Chunk{Offset: at, Size: end - at, Hash: sums[i]})
	}
	if g.hash.IsZero() && len(g.chunks) == 0 {
		return nil, bad("checksum", "no content has this one, and there are no chunks")
	}
	return g, nil
}

func parseSize(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%.80q is no number of bytes", text)
	}
	return n, nil
}

func parseContentHash(text string) (cvmfs.Hash, error) {
	h, err := cvmfs.ParseHash(text)
	if err == nil && h.Algorithm == cvmfs.MD5 {
		err = fmt.Errorf("%v is by md5, which contents are not named by", h)
	}
	if err == nil && h.IsZero() {
		return cvmfs.Hash{}, nil
	}
	return h, err
}

func parseList[T any](text string, parse func(string) (T, error)) ([]T, error) {
	var list []T
	for part := range strings.SplitSeq(text, ",") {
		v, err := parse(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func parseGraftCompression(text string) (*cvmfs.Compression, error) {
	names := map[string]cvmfs.Compression{"default": cvmfs.Zlib, "zlib": cvmfs.Zlib, "none": cvmfs.Plain}
	c, known := names[text]
	if !known {
		return nil, fmt.Errorf("compression %.80q: want zlib or none", text)
	}
	return &c, nil
}

// onto gives a file the content that is described.
func (g *graft) onto(n *node) {
	e := &n.entry
	n.grafted, n.inode = true, inode{}
	e.Size, e.Hash, n.chunks = g.size, g.hash, g.chunks
	if len(g.chunks) > 0 {
		e.Flags |= catalog.FlagChunked
	} else {
		e.Flags &^= catalog.FlagChunked
	}
	if g.compression != nil {
		e.Compression = *g.compression
	}
}

// grafts reads the descriptions that are among the entries of a directory, by the
// names they are of.
func (s *scanner) grafts(path string, entries []fs.DirEntry) (map[string]*graft, error) {
	var found map[string]*graft
	for _, entry := range entries {
		target, is := strings.CutPrefix(entry.Name(), graftPrefix)
		if !is {
			continue
		}
		at := path + "/" + entry.Name()
		f, err := os.OpenFile(s.file(at), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("reading source: %w", err)
		}
		g, err := readGraft(at, f)
		_ = f.Close() // it was only read from
		if err != nil {
			return nil, err
		}
		if found == nil {
			found = make(map[string]*graft)
		}
		found[target] = g
	}
	return found, nil
}

func readGraft(at string, r io.Reader) (*graft, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxGraft+1))
	if err != nil {
		return nil, fmt.Errorf("reading source: %q: %w: %w", at, ErrSource, err)
	}
	if len(data) > maxGraft {
		return nil, fmt.Errorf("source: %q has more than %d bytes: %w", at, maxGraft, ErrSource)
	}
	return parseGraft(at, data)
}

// graft gives the files of a directory the contents that are described there.
func (s *scanner) graft(path string, found map[string]*graft, file func(name string) *node) {
	for _, name := range slices.Sorted(maps.Keys(found)) {
		n := file(name)
		if n == nil || !n.entry.IsRegular() {
			s.warn("%q describes a file that is not there, left out", path+"/"+graftPrefix+name)
			continue
		}
		found[name].onto(n)
		s.grafted = append(s.grafted, placed{path + "/" + name, n})
	}
}

// missingGrafts warns of contents that were only described and are not in the
// repository: whoever described them has to put them there.
func (s *scanner) missingGrafts(ctx context.Context, store storage.Store) error {
	var mu sync.Mutex // guards missing
	var missing []string
	var group errgroup.Group
	group.SetLimit(store.Parallel())
	for _, p := range s.grafted {
		if p.n.entry.IsExternal() {
			continue
		}
		group.Go(func() error {
			for _, object := range p.n.objects() {
				_, err := store.Stat(ctx, object)
				if errors.Is(err, fs.ErrNotExist) {
					mu.Lock()
					missing = append(missing, p.path)
					mu.Unlock()
					return nil
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	slices.Sort(missing)
	for _, path := range missing {
		s.warn("%q is published by its description, and its content is not in the repository", path)
	}
	return nil
}

// objects names what the content of a file consists of.
func (n *node) objects() (list []string) {
	for _, c := range n.chunks {
		list = append(list, c.Hash.ObjectPath(cvmfs.SuffixPartial))
	}
	if len(n.chunks) == 0 {
		list = append(list, n.entry.Hash.ObjectPath(cvmfs.SuffixNone))
	}
	return list
}

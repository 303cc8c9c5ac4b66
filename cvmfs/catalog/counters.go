package catalog

import (
	"maps"

	"github.com/micavm/mica/cvmfs"
)

// Counters are the statistics of a catalogue, or of all catalogues below one.
type Counters struct {
	Regular          int64 // regular files, chunked and external ones included
	Symlink          int64
	Special          int64
	Dir              int64 // a transition point counts in both catalogues
	Nested           int64 // nested catalogues, bind mountpoints excluded
	Chunked          int64 // chunked files
	Chunks           int64
	FileSize         int64 // bytes of all regular files
	ChunkedSize      int64
	Xattr            int64 // entries with extended attributes
	External         int64
	ExternalFileSize int64
}

// Entries is the number of files and directories.
func (c Counters) Entries() int64 { return c.Regular + c.Symlink + c.Special + c.Dir }

// Plus adds two sets of counters.
func (c Counters) Plus(d Counters) Counters {
	a, b := c.values(), d.values()
	for i := range a {
		*a[i].value += *b[i].value
	}
	return c
}

// Count adds one entry with its chunks.
func (c *Counters) Count(e Entry, chunks []Chunk) {
	switch {
	case e.IsDir():
		c.Dir++
	case e.IsSymlink():
		c.Symlink++
	case e.IsSpecial():
		c.Special++
	default:
		c.Regular++
		c.FileSize += e.Size
		if e.IsChunked() {
			c.Chunked++
			c.Chunks += int64(len(chunks))
			c.ChunkedSize += e.Size
		}
		if e.IsExternal() {
			c.External++
			c.ExternalFileSize += e.Size
		}
	}
	if e.HasXattrs {
		c.Xattr++
	}
}

type counter struct {
	name  string
	value *int64
}

// values is the list of counters with the format's names.
func (c *Counters) values() []counter {
	return []counter{
		{"regular", &c.Regular},
		{"symlink", &c.Symlink},
		{"special", &c.Special},
		{"dir", &c.Dir},
		{"nested", &c.Nested},
		{"chunked", &c.Chunked},
		{"chunks", &c.Chunks},
		{"file_size", &c.FileSize},
		{"chunked_size", &c.ChunkedSize},
		{"xattr", &c.Xattr},
		{"external", &c.External},
		{"external_file_size", &c.ExternalFileSize},
	}
}

// Map returns the counters under their names in the file: prefix "self_" or
// "subtree_".
func (c Counters) Map(prefix string) map[string]int64 {
	m := make(map[string]int64)
	for _, v := range c.values() {
		m[prefix+v.name] = *v.value
	}
	return m
}

// ReadCounters returns both sets of a catalogue. Counters the file lacks are 0.
func (c *Catalog) ReadCounters() (self, subtree Counters, err error) {
	all, err := c.Counters()
	if err != nil {
		return Counters{}, Counters{}, err
	}
	for _, v := range self.values() {
		*v.value = all["self_"+v.name]
	}
	for _, v := range subtree.values() {
		*v.value = all["subtree_"+v.name]
	}
	return self, subtree, nil
}

// counterRows returns every counter of a file by its name.
func counterRows(self, subtree Counters) map[string]int64 {
	rows := self.Map("self_")
	maps.Copy(rows, subtree.Map("subtree_"))
	return rows
}

// typeFlags are the bits that follow from what the entry is.
func typeFlags(e Entry, a cvmfs.Algorithm) Flags {
	switch {
	case e.IsDir():
		return FlagDir
	case e.IsSymlink():
		return FlagRegular | FlagSymlink // Compat: the original writes both (cvmfs: cvmfs/catalog_sql.cc)
	case e.IsSpecial():
		return FlagRegular | FlagSpecial // Compat: as above
	}
	return FlagRegular | Flags(a-1)<<hashShift | Flags(e.Compression)<<compressionShift
}

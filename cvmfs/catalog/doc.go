// Package catalog reads and writes catalogues: the SQLite files that hold what
// a repository knows about a directory tree (names, modes, sizes, owners, times,
// links, extended attributes, hashes of contents).
//
// One catalogue covers a subtree. Nested catalogues hang below it at transition
// points: a directory that has a row in the upper catalogue, without children
// there, and is the root of the lower one. A directory's entries are never split
// over two catalogues. The package handles one file at a time; who follows
// transition points is a client or a checker.
//
// # Reading
//
// A catalogue may come from anywhere and is treated as hostile: every column is
// checked for its type and range, names for what a name may be, the schema for
// views and triggers. What does not hold gives an error that wraps
// cvmfs.ErrMalformed; nothing panics. The SQLite engine is opened read-only and
// immutable, with a small page cache and without memory mapping.
//
// A [Catalog] may be used by several goroutines; calls take turns.
//
// # Paths
//
// Paths are those of the repository: "" is its root, others start with a slash
// and have none at the end. Names are bytes, not text. Rows are found by the MD5
// of the path, split in two signed little-endian halves; a re-planted root (bind
// mountpoint) hashes the paths inside itself, so the caller strips the prefix.
//
// # Format
//
// CernVM-FS catalogue schema 2.5 revision 7, down to 2.4, and what of the schemas
// before 2.0 can be read by looking at the columns.
package catalog

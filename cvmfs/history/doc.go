// Package history reads and writes the tags of a repository: the SQLite file
// behind the manifest's H, in which each tag names a root catalogue and its
// revision. It knows nothing of where the file comes from; the caller has
// checked its hash.
//
// The format is the tag database of CernVM-FS, schema 1.0 revision 3
// (cvmfs/history_sqlite.cc). Files are treated as hostile, like catalogues.
package history

// Package objectcache keeps verified objects of repositories on disk, in the
// directory layout of the original client, so that a cache filled by either is
// good for the other (cvmfs: cvmfs/cache_posix.cc): two-digit directories 00 to
// ff with the plain content under the hash of the stored form and no suffix,
// txn for files being written, quarantaine (spelled so) for files of a wrong
// size, and small state files beside them.
//
// Invariants:
//   - a file appears under its name complete and verified, by rename;
//   - what is there is checked again for its size, and for its checksum if any
//     user has ended uncleanly since it was last; a bad file is taken away, and is
//     then simply missing;
//   - two contents that come from the same stored bytes, by different compression,
//     are never taken for one another;
//   - several processes may share one cache, each may be killed at any time;
//   - the quota is for all of these processes together. Beyond it are never more
//     than a sixteenth of it, a sixty-fourth for each process, the objects that are
//     being stored, and what was stored by processes killed since the last count,
//     which each start and each eviction is one of. What is pinned or in use stays,
//     also if that is more than the quota; room for the rest is then made once a
//     second;
//   - all access is relative to a directory descriptor: the process may change
//     its root, and the disk may be mounted elsewhere meanwhile;
//   - a cache that cannot be written to (full, read-only, gone) makes objects
//     live in memory, up to a limit, and never makes wrong bytes.
//
// Differs: there is no database of objects. The time of last use is the file's
// modification time, set at most once an hour, and eviction looks at the files;
// it runs in the background, and holds up who stores only where it is left behind.
// The checksum lies in an extended attribute, where the file system has them. No
// process manages a shared cache for the others: they add up in a file what they
// store, each keeps to its own quota, of which the smallest so counts, and not that
// of who came first.
package objectcache

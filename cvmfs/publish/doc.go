// Package publish makes repositories: a directory tree or a tar archive becomes a
// signed revision of a CernVM-FS repository in a local directory, which any web
// server can then hand out, or in a bucket of an S3 service. It also checks
// repositories, lists and sets tags, compares revisions, signs whitelists anew,
// removes what nothing refers to, copies repositories from other servers, and
// takes over those of the original's server.
//
// A repository NAME lies in STORAGE/NAME, where STORAGE is a directory or
// s3://BUCKET/PREFIX?endpoint=URL; its keys lie elsewhere, in files named as the
// original names them (NAME.masterkey, NAME.pub, NAME.key, NAME.crt).
//
// # What is promised
//
//   - All or nothing. Objects are written aside, made durable, and only then
//     given their names; the manifest comes last, atomically. A killed
//     publication leaves at most files that nothing refers to: the next one
//     removes those without a name, and uses the others or leaves them to
//     garbage collection.
//   - One writer at a time: a lock beside the repository, freed by the kernel; in
//     a bucket a lease, and a manifest that is replaced only if nobody else has.
//   - A replica is whole: a catalogue comes after all it refers to, the manifest
//     last, and nothing unverified.
//   - Equal input gives equal catalogues and objects: the clock is an option, the
//     order is that of names, and nothing of the machine gets in (sizes of
//     directories, inode numbers).
//   - Files that look the same as in the revision before (type, mode, owner,
//     size, modification time to the nanosecond, attributes, link target) keep
//     their content hashes without being read; catalogues nothing changed in are
//     kept as they are.
//   - Memory is bounded by the number of files (about half a kilobyte each), not
//     by their size.
//
// # What is left out
//
// Union file systems as input, alternative catalogue paths and gateways. An
// archive is the whole next revision, not an addition. A tree that changes while
// it is published is an error, not a snapshot.
//
// # Formats followed
//
// CernVM-FS 2.12: repository layout, catalogue schema 2.5 revision 7, history
// 1.0 revision 3, reflog 1.0, content-defined chunking of
// cvmfs/ingestion/chunk_detector.cc, .cvmfsdirtab of cvmfs/catalog_mgr_rw.cc and
// cvmfs/dirtab.cc.
//
// Differs: objects are compressed by another zlib than the original's, so that
// the same file published by both is stored twice, and the original's
// cvmfs_fsck, which compresses again to compare, drops these objects from a
// client's cache; the client then fetches them anew.
package publish

// Package cvmfs reads and writes the small signed and hashed parts of a
// CernVM-FS repository: content hashes and the names of objects, the manifest
// (.cvmfspublished), the whitelist (.cvmfswhitelist), the chain of trust between
// them, and the verification of one object's bytes. The packages below it hold
// the rest: catalog and history read and write the SQLite files, client reads a
// repository over the network, mount shows it through FUSE, publish makes one,
// serve hands it out.
//
// The package does no I/O of its own and keeps no state. All functions may be
// called from several goroutines.
//
// # The chain of trust
//
// A master key, which the user has beforehand, signs the whitelist. The
// whitelist names certificates by fingerprint. A certificate's key signs the
// manifest. The manifest holds the hash of the root catalogue, which holds the
// hashes of everything below. [Trust.Verify] follows the first three steps, and
// [CopyVerified] each step that is a hash.
//
// # What is easily got wrong
//
//   - An object's hash is over its stored bytes, that is after compression.
//   - The manifest's signature is RSASSA-PKCS1-v1_5 with SHA-1 over the ASCII
//     text of a hash, whatever algorithm that hash has. The whitelist's is the
//     bare RSA operation with PKCS #1 type 1 padding over the text, without a
//     DigestInfo.
//   - The suffix of an object (C for catalogues, P for chunks …) is part of its
//     file name and never of its hash.
//   - The algorithm is a property of each hash: one repository may mix them.
//
// # Compatibility
//
// The format followed is that of CernVM-FS 2.12 (manifest, whitelist and hash
// syntax of cvmfs/manifest.cc, cvmfs/whitelist.cc and cvmfs/crypto/hash.cc).
// Exported names of this package and of those below it are meant for other
// programs to import; until version 1 they may still change, with a note.
package cvmfs

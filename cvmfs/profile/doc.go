// Package profile is the list of the objects that somebody read from a
// repository, in the order in which they were first wanted: what a machine
// fetches while it boots, for one. A client that has the list fetches along it,
// many objects at a time, instead of waiting for one after the other.
//
// The list is advice. It names objects by hash, so it can make a client fetch
// what it does not need and never show what is not in the repository; it is
// signed all the same, by the certificate that signs the repository's manifest,
// so that nobody on the way can make clients fetch at will.
//
// The original CernVM-FS has nothing of the kind. The file [Name] beside the
// manifest means nothing to its tools, and they leave it alone.
//
// # Format
//
// Lines of text that end in a line feed, fields parted by one blank:
//
//	mica-profile 1
//	repository NAME
//	root HASH               the root catalogue that was read
//	recorded TIME           RFC 3339, UTC, whole seconds
//	external N              only where files were read whose content lies with
//	                        other servers (publish.Options.External): how many
//	objects N
//	HASH[SUFFIX] SIZE WAY   N times; SIZE in bytes, inflated, or -1 where the
//	                        catalogue does not say; WAY is zlib or none
//
// The content of external files is no object of the repository, and in no
// profile: a client would have to know their servers.
//
// As [Name] it is framed and signed as a manifest is ([cvmfs.SignText]).
package profile

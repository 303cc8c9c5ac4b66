// Package slice is a part of a repository in one file: the objects of a profile
// as the server has them, with the signed files that lead to them. Attached to a
// machine as a disk it takes the place of the network for what it holds, so that
// a machine boots without one.
//
// A slice adds nothing to be trusted: a client verifies what it reads from it
// as if it came from a server.
//
// # Format
//
// A tar archive in the ustar form of POSIX.1-1988, so that any tar lists and
// unpacks it. The first member is [Name] and holds the profile
// (package profile). The others are regular files, named as below the root of
// the repository: .cvmfspublished and .cvmfswhitelist, unless the slice was
// made for a root hash, and data/….
//
// The reader refuses everything else that an archive may hold.
package slice

// Package deb reads Debian binary packages (deb(5), format 2.0): the control
// fields and the files, as a stream, without unpacking anything to disk.
//
// Paths come out clean and relative; a member that would leave the tree, a
// truncated package, an unknown compression or more content than a package
// can honestly have is an error. Members may be plain, gzip, xz or zstd.
package deb

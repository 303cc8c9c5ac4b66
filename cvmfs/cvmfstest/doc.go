// Package cvmfstest gives tests a repository that the original CernVM-FS tools
// published (cvmfs/testdata/small, described in the README there): unpacked into
// a temporary directory, with its keys and with the listing the original client
// showed of each revision; a server that misbehaves; and the means to sign what
// no honest publisher would. Tests only.
package cvmfstest

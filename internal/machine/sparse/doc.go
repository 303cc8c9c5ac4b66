// Package sparse copies files that are mostly holes, such as disks of virtual
// machines: by sharing blocks where the file system can (reflink), else by
// copying what is there and leaving the holes out.
//
// A copy is whole and on disk when Copy returns; after an error nothing of it
// is left.
package sparse

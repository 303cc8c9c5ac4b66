// Package storage is where a publisher keeps the files of a repository: a
// directory that a web server hands out, or a bucket of an S3 service.
//
// A file has a slash-separated name relative to the repository, such as
// ".cvmfspublished" or "data/2e/5bee…C", which is also what a reader appends to
// the URL of the repository. Names below data/ are of objects: immutable, so that
// it does not matter who stores one and how often. The files at the root are
// few, small and replaced whole.
//
// # What every kind of storage promises
//
//   - A name stands for all bytes of a file or for nothing; bytes that have a
//     name when a call returns survive the loss of power (or whatever the service
//     promises instead).
//   - One writer at a time, by Lock. A writer that was killed frees the
//     repository: at once in a directory, after a lease in a bucket.
//
// # Hazards
//
// A bucket's lock and its manifest rest on conditional writes (If-None-Match and
// If-Match), which Amazon S3, MinIO, Ceph and versitygw have. On a service that
// ignores them two publishers at the same moment are not kept apart.
package storage

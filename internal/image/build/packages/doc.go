// Package packages gets Debian packages without installing them: apt resolves
// and downloads them into a cache, and apt has verified them against the
// archive's signature before anything here looks at them.
//
// What was used for an image is written down as a lock, with versions and
// digests. As long as the lock and its files are in the cache, the same request
// gives the same packages, without a network and without apt.
package packages

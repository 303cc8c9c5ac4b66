// Package client reads CernVM-FS repositories: it finds and verifies the
// revision to show, fetches catalogues and objects on demand over HTTP or from a
// directory, keeps them in a cache on disk, and presents the result by path.
//
// What is promised: no byte is handed out, and nothing is acted on, that does
// not hang by hashes from a signed manifest or from a root hash the caller gave;
// a revision older than the cache has seen is refused; with a filled cache the
// last good revision is there without a network. Reading never waits for the
// eviction of the cache, and one waiter who gives up does not disturb others.
//
// It follows the original client in the layout of its cache, its retry and
// fail-over rules and its view of an entry (cvmfs: cvmfs/cvmfs.cc,
// cvmfs/mountpoint.cc, cvmfs/catalog_mgr_client.cc). It does not do: client
// authorisation, alien or plug-in caches.
//
// Differs from the original: a manifest is never acted on before its signatures
// are verified; the hash of a tag is remembered, so that a tag can be mounted
// offline; variables in symbolic links come from an explicit map and never from
// the environment.
//
// The package speaks of errors in its own sentinels and those of io/fs and
// package cvmfs; it prints nothing.
package client

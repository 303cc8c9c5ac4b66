// Package serve hands repositories out over HTTP, as a web server or a stratum 1
// does: plain files, with the cache lifetimes readers and their proxies count on,
// a list of what is there, and the order-of-servers service.
//
// It serves files and nothing else: no listings, no hidden files but those of
// the format, no path out of a repository, no symbolic link for a file, no compression on
// the way (hashes are over the stored bytes). GET and HEAD only. A repository
// may be published while it is served: its manifest is replaced last.
//
// The URLs are those of the original's Apache configuration:
//
//	/cvmfs/NAME/.cvmfspublished            and the other root files
//	/cvmfs/NAME/data/…                     objects
//	/cvmfs/NAME/api/v1.0/geo/ANYTHING/A,B  an order of servers: as given
//	/cvmfs/info/v1/repositories.json       what is served
//	/cvmfs/info/v1/meta.json
package serve

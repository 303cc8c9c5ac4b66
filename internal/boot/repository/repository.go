package repository

import "time"

// Argv0 is the name under which the child process runs. Compat: processes of
// root whose name begins with '@' survive the final kill of systemd (cvmfs:
// CVMFS_SYSTEMD_NOKILL).
const Argv0 = "@mica-repository"

// Config is all that the child is told. It travels as JSON through a pipe.
type Config struct {
	Name    string   // fully qualified repository name
	Servers []string // base URLs, in order of preference
	Proxies string   // grammar of CVMFS_HTTP_PROXY; empty means DIRECT
	Keys    []string // master public keys, PEM

	CacheDir   string // made if missing; on the machine's own disk
	Mountpoint string // an existing directory
	Quota      int64  // bytes the cache may take; 0 means no limit

	RootHash string // mount this revision, whatever the servers say
	Tag      string // mount the revision of this tag; ignored with RootHash

	Slices   []string // device files that hold slices of it, asked before the servers
	Prefetch bool     // fetch along the repository's profile, if it has one

	// ClockFloor is a moment that certainly has passed, such as the build of the
	// image. A clock behind it is not believed when signatures are checked.
	ClockFloor time.Time

	// Progress gets one line for each thing worth telling while Start waits: an
	// attempt that failed and why, a clock not believed. May be nil.
	Progress func(line string) `json:"-"`
}

// Ready is the child's report that the mount stands.
type Ready struct {
	PID      int
	RootHash string
	Tag      string
	Revision uint64

	Slices []string // the devices with slices of it, if objects came from there
	Notes  []string // what is worth telling although it did not stop the mount
}

// Status is what a running child says about itself.
type Status struct {
	RootHash   string `json:"root_hash"`
	Tag        string `json:"tag"`
	Revision   uint64 `json:"revision"`
	Objects    int64  `json:"objects"`     // downloaded since the start
	Bytes      int64  `json:"bytes"`       // downloaded, as stored on the server
	Sliced     int64  `json:"sliced"`      // objects taken from slices instead
	Ahead      int64  `json:"ahead"`       // objects fetched before anybody wanted them
	PeakMemory int64  `json:"peak_memory"` // bytes of resident memory at most

	Profile *Prefetch `json:"profile,omitempty"` // nil where none was looked for, or there is none
}

// Prefetch says how far the objects of the repository's profile are fetched ahead.
type Prefetch struct {
	Objects int     `json:"objects"`           // in the profile
	Fetched int     `json:"fetched"`           // of them, those that were not there and came; known when done
	Done    bool    `json:"done"`              // nothing more is fetched ahead
	Seconds float64 `json:"seconds,omitempty"` // it took, when done
	Problem string  `json:"problem,omitempty"` // why not all of it, or nothing, was fetched
}

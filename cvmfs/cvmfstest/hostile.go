package cvmfstest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
)

// Hostile is a root catalogue that says something absurd: whoever uses Path gets
// an error, and can use everything else.
type Hostile struct {
	Change string // SQL for the catalogue of revision 3
	// Object makes an object that the catalogue then refers to; %s in Change is its
	// hash, in hexadecimal digits.
	Object func(t testing.TB, r Repo) cvmfs.Hash
	Path   string // a file to read, or a directory to list
	Err    error  // what the error wraps; nil if that depends
}

const (
	readme     = "/README"
	chunked    = "/big/chunked"
	nested     = "/nested"
	twoChunks  = "DELETE FROM chunks WHERE offset>0; "
	laterChunk = "(SELECT chunks.rowid FROM chunks JOIN catalog USING (md5path_1, md5path_2) WHERE name='chunked' AND offset>0 LIMIT 1)"
)

// HostileCatalogues are what catalogues can say that hang by hashes from what is
// trusted: of a publisher that was broken into, or that has a fault.
var HostileCatalogues = map[string]Hostile{
	"a size of exabytes":            {Change: "UPDATE catalog SET size=4611686018427387904 WHERE name='README'", Path: readme, Err: cvmfs.ErrCorrupt},
	"the largest size there is":     {Change: "UPDATE catalog SET size=9223372036854775807 WHERE name='README'", Path: readme, Err: cvmfs.ErrCorrupt},
	"the largest size stored plain": {Change: "UPDATE catalog SET size=9223372036854775807, flags=flags|(1<<11) WHERE name='README'", Path: readme, Err: cvmfs.ErrCorrupt},
	"a size too small":              {Change: "UPDATE catalog SET size=1 WHERE name='README'", Path: readme, Err: cvmfs.ErrCorrupt},
	"a file that is a bomb":         {Change: "UPDATE catalog SET size=1000, hash=x'%s', flags=4 WHERE name='README'", Object: bomb(cvmfs.SuffixNone), Path: readme, Err: cvmfs.ErrCorrupt},
	"a catalogue that is a bomb":    {Change: "UPDATE nested_catalogs SET size=100000, sha1='%s' WHERE path='/nested'", Object: bomb(cvmfs.SuffixCatalog), Path: nested, Err: cvmfs.ErrCorrupt},
	"no hash":                       {Change: "UPDATE catalog SET hash=NULL WHERE name='README'", Path: readme, Err: cvmfs.ErrMalformed},
	"a hash of zeros":               {Change: "UPDATE catalog SET hash=zeroblob(20) WHERE name='README'", Path: readme, Err: cvmfs.ErrMalformed},
	"chunked without chunks":        {Change: "DELETE FROM chunks", Path: chunked, Err: cvmfs.ErrMalformed},
	"another compression":           {Change: "UPDATE catalog SET flags=flags|(1<<11) WHERE name='chunked'", Path: chunked, Err: cvmfs.ErrCorrupt},
	"a gap between chunks":          {Change: "DELETE FROM chunks WHERE rowid IN " + laterChunk, Path: chunked, Err: cvmfs.ErrMalformed},
	"chunks that overlap":           {Change: "UPDATE chunks SET size=size+1 WHERE offset=0", Path: chunked, Err: cvmfs.ErrMalformed},
	"chunks beyond the end":         {Change: "UPDATE catalog SET size=size-1 WHERE name='chunked'", Path: chunked, Err: cvmfs.ErrMalformed},
	"one chunk of exabytes":         {Change: twoChunks + "UPDATE chunks SET size=9223372036854775807; UPDATE catalog SET size=9223372036854775807 WHERE name='chunked'", Path: chunked, Err: cvmfs.ErrCorrupt},
	"a catalogue of 10 GB":          {Change: "UPDATE nested_catalogs SET size=10000000000 WHERE path='/nested'", Path: nested, Err: cvmfs.ErrMalformed},
	"a catalogue in another place":  {Change: "UPDATE nested_catalogs SET size=0, sha1=(SELECT sha1 FROM nested_catalogs WHERE path<>'/nested' LIMIT 1) WHERE path='/nested'", Path: nested, Err: cvmfs.ErrMalformed},
	"a catalogue within itself":     {Change: "UPDATE nested_catalogs SET size=0, sha1='" + RootHashes[3] + "' WHERE path='/nested'", Path: nested, Err: cvmfs.ErrMalformed},
	"a file as catalogue":           {Change: "UPDATE nested_catalogs SET size=0, sha1=(SELECT lower(hex(hash)) FROM catalog WHERE name='README') || '-shake128' WHERE path='/nested'", Path: nested},
	"a catalogue without a hash":    {Change: "UPDATE nested_catalogs SET sha1='' WHERE path='/nested'", Path: nested, Err: cvmfs.ErrMalformed},
	"a name that leads up":          {Change: "UPDATE catalog SET name='..' WHERE name='README'", Path: "/", Err: cvmfs.ErrMalformed},
	"a name with a slash":           {Change: "UPDATE catalog SET name='a/b' WHERE name='README'", Path: "/", Err: cvmfs.ErrMalformed},
	"a name with a NUL":             {Change: "UPDATE catalog SET name=CAST(x'610062' AS TEXT) WHERE name='README'", Path: "/", Err: cvmfs.ErrMalformed},
	"a directory that is a file":    {Change: "UPDATE catalog SET mode=33188, flags=4 WHERE name='nested'", Path: nested},
}

// bomb is a zlib object of a few kilobytes that becomes 200 MB.
func bomb(s cvmfs.Suffix) func(testing.TB, Repo) cvmfs.Hash {
	return func(t testing.TB, r Repo) cvmfs.Hash { return r.Store(t, cvmfs.SHA1, make([]byte, 200<<20), s) }
}

// Hostile stores a hostile root catalogue and returns its hash.
func (r Repo) Hostile(t testing.TB, h Hostile) cvmfs.Hash {
	t.Helper()
	root, err := cvmfs.ParseHash(RootHashes[3])
	if err != nil {
		t.Fatal(err)
	}
	change := h.Change
	if h.Object != nil {
		change = fmt.Sprintf(change, h.Object(t, r))
	}
	return r.Change(t, root, strings.Split(change, "; ")...)
}

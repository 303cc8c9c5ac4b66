package publish_test

import (
	"bytes"
	"crypto"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zlib"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/history"
	"github.com/micavm/mica/cvmfs/internal/sqlite"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/tier"
)

// published is a repository looked at from below: rows and bytes, not what our
// own reader makes of them.
type published struct {
	t       *testing.T
	w       *world
	repo    cvmfstest.Repo
	m       *cvmfs.Manifest
	root    string // file of the root catalogue
	entries map[string]catalog.Entry
	xattrs  map[string]map[string][]byte
	nested  []string
	result  *publish.Result
}

func lookBelow(t *testing.T, change func(*publish.Options)) *published {
	t.Helper()
	w := newWorld(t)
	w.tricky(t)
	p := &published{t: t, w: w, repo: cvmfstest.Repo{Dir: w.repo()}, result: w.publish(t, change)}
	p.m = w.head(t)
	p.root = p.repo.Object(t, p.m.RootHash, cvmfs.SuffixCatalog)
	p.entries, p.xattrs, p.nested = w.tree(t, p.m.RootHash)
	clean(t, w.check(t))
	return p
}

// row is one value of the root catalogue.
func (p *published) value(query string, args ...driver.Value) (found driver.Value) {
	p.t.Helper()
	db, err := sqlite.Open(p.root)
	must(p.t, err)
	defer db.Close()
	must(p.t, db.Query(query, 1, func(row []driver.Value) error { found = row[0]; return nil }, args...))
	return found
}

func (p *published) stored(path string) []byte { return p.repo.Read(p.t, path) }

// TestTraps has a row for each of the numbered traps of the format a publisher
// can fall into, in a repository as it usually is and in one with the other
// algorithms.
func TestTraps(t *testing.T) {
	t.Parallel()
	usual := lookBelow(t, func(o *publish.Options) { o.Owner = &publish.Owner{UID: 4000000000, GID: 4294967294} })
	other := lookBelow(t, func(o *publish.Options) { o.Algorithm, o.Compression = cvmfs.SHAKE128, cvmfs.Plain })
	for _, trap := range []struct {
		number int
		what   string
		check  func() error
	}{
		{1, "hashes are over stored bytes; the suffix is part of the name only", func() error {
			e := usual.entries["/soft/1.0/bin/tool"]
			data := usual.stored(e.Hash.ObjectPath(0))
			if got := sha1.Sum(data); hex.EncodeToString(got[:]) != e.Hash.String() || string(data) == "tool" {
				return fmt.Errorf("object %v has hash %x", e.Hash, got)
			}
			if path := usual.m.RootHash.ObjectPath('C'); path != "data/"+usual.m.RootHash.String()[:2]+"/"+usual.m.RootHash.String()[2:]+"C" {
				return fmt.Errorf("catalogue is %s", path)
			}
			return nil
		}},
		{2, "keys are little-endian halves of the MD5 of the whole path", func() error {
			for path, name := range map[string]string{"": "", "/names/with blank": "with blank"} {
				sum := md5.Sum([]byte(path))
				got := usual.value("SELECT name FROM catalog WHERE md5path_1=? AND md5path_2=?", int64(binary.LittleEndian.Uint64(sum[:8])), int64(binary.LittleEndian.Uint64(sum[8:])))
				if got != name {
					return fmt.Errorf("key of %q finds %v", path, got)
				}
			}
			return nil
		}},
		{3, "both rows of a transition point are alike", func() error {
			file := usual.value("SELECT sha1 FROM nested_catalogs WHERE path='/soft'").(string)
			h, err := cvmfs.ParseHash(file)
			if err != nil {
				return err
			}
			const columns = "SELECT hardlinks || ' ' || mode || ' ' || size || ' ' || mtime || ' ' || uid || ' ' || gid || ' ' || coalesce(hex(xattr), '') FROM catalog WHERE name='soft'"
			above := usual.value(columns)
			below := *usual
			below.root = usual.repo.Object(t, h, cvmfs.SuffixCatalog)
			if got := below.value(columns); got != above {
				return fmt.Errorf("above %v, below %v", above, got)
			}
			if flags := fmt.Sprint(usual.value("SELECT flags FROM catalog WHERE name='soft'"), below.value("SELECT flags FROM catalog WHERE name='soft'")); flags != "3 33" {
				return fmt.Errorf("flags are %s", flags)
			}
			return nil
		}},
		{4, "/soft is not a prefix of /software", func() error {
			if got := usual.value("SELECT count(*) FROM catalog WHERE name='x' AND size=14"); got != int64(1) || !slices.Contains(usual.nested, "/soft") {
				return fmt.Errorf("%v files of /software in the root catalogue, nested are %q", got, usual.nested)
			}
			return nil
		}},
		{5, "symbolic links have flags 12, special files 20", func() error {
			if got := fmt.Sprint(usual.value("SELECT flags FROM catalog WHERE name='var'"), usual.value("SELECT flags FROM catalog WHERE name='pipe'"),
				other.value("SELECT flags FROM catalog WHERE name='var'"), other.value("SELECT flags FROM catalog WHERE name='links'")); got != "12 20 12 1" {
				return fmt.Errorf("flags are %s", got)
			}
			return nil
		}},
		{6, "chunked files have no hash; their chunks go by the flags of the file", func() error {
			if got := fmt.Sprint(other.value("SELECT hash FROM catalog WHERE name='cut'"), other.value("SELECT flags FROM catalog WHERE name='cut'")); got != "<nil> 2628" {
				return fmt.Errorf("hash and flags are %s", got)
			}
			digest := other.value("SELECT chunks.hash FROM chunks JOIN catalog USING (md5path_1, md5path_2) WHERE name='cut' AND offset=0").([]byte)
			h := cvmfs.Hash{Algorithm: cvmfs.SHAKE128, Digest: [20]byte(digest)}
			size := other.value("SELECT chunks.size FROM chunks JOIN catalog USING (md5path_1, md5path_2) WHERE name='cut' AND offset=0").(int64)
			if data := other.stored(h.ObjectPath('P')); int64(len(data)) != size || cvmfs.SHAKE128.Sum(data) != h {
				return fmt.Errorf("chunk of %d bytes, hash %v", len(data), h)
			}
			return nil
		}},
		{7, "catalogues, history, certificate and metainfo are zlib however files are stored", func() error {
			for h, suffix := range map[cvmfs.Hash]cvmfs.Suffix{other.m.RootHash: 'C', other.m.History: 'H', other.m.Certificate: 'X', other.m.Metainfo: 'M'} {
				if _, err := zlib.NewReader(bytes.NewReader(other.stored(h.ObjectPath(suffix)))); err != nil {
					return fmt.Errorf("%v%c: %w", h, suffix, err)
				}
			}
			if data := other.stored(other.entries["/soft/1.0/bin/tool"].Hash.ObjectPath(0)); string(data) != "tool" {
				return fmt.Errorf("the file is stored as %q", data)
			}
			return nil
		}},
		{8, "nanoseconds have their own column, also before 1970", func() error {
			if got := fmt.Sprint(usual.value("SELECT mtime FROM catalog WHERE name='empty'"), usual.value("SELECT mtimens FROM catalog WHERE name='empty'")); got != "-5 999999999" {
				return fmt.Errorf("they are %s", got)
			}
			return nil
		}},
		{9, "the whitelist's signature has no digest info, the manifest's that of SHA-1 over the hash in letters", func() error {
			keys, err := publish.LoadKeys(usual.w.keys, name)
			if err != nil {
				return err
			}
			sum, signature := signedParts(usual.stored(cvmfs.WhitelistFile))
			if err := rsa.VerifyPKCS1v15(keys.Public, crypto.Hash(0), sum, signature); err != nil {
				return fmt.Errorf("whitelist: %w", err)
			}
			sum, signature = signedParts(usual.stored(cvmfs.ManifestFile))
			digest := sha1.Sum(sum)
			return rsa.VerifyPKCS1v15(&keys.Repository.PublicKey, crypto.SHA1, digest[:], signature)
		}},
		{10, "the manifest's hash has the algorithm of the repository", func() error {
			sum, _ := signedParts(other.stored(cvmfs.ManifestFile))
			if len(sum) != 49 || !bytes.HasSuffix(sum, []byte("-shake128")) {
				return fmt.Errorf("it is %s", sum)
			}
			return nil
		}},
		{11, "whitelists are renewed long before the last hour of their life", func() error {
			w, err := cvmfs.ParseWhitelist(usual.stored(cvmfs.WhitelistFile))
			if err != nil || w.Expires.Sub(w.Issued) < 24*60*60*1e9 {
				return fmt.Errorf("from %v to %v, %w", w.Issued, w.Expires, err)
			}
			return nil
		}},
		{14, "an empty file is the zlib stream of nothing, or nothing", func() error {
			if e := usual.entries["/empty"]; e.Hash.String() != "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78" || hex.EncodeToString(usual.stored(e.Hash.ObjectPath(0))) != "789c030000000001" {
				return fmt.Errorf("zlib: %v, %x", e.Hash, usual.stored(e.Hash.ObjectPath(0)))
			}
			if e := other.entries["/empty"]; e.Hash.String() != "7f9c2ba4e88f827d616045507605853ed73b8093-shake128" || len(other.stored(e.Hash.ObjectPath(0))) != 0 {
				return fmt.Errorf("none: %v", e.Hash)
			}
			return nil
		}},
		{18, "the size of a device is its number, of a pipe nothing", func() error {
			if got := usual.value("SELECT size FROM catalog WHERE name='pipe'"); got != int64(0) {
				return fmt.Errorf("pipe: %v", got)
			}
			if got := usual.value("SELECT size FROM catalog WHERE name='null'"); os.Geteuid() == 0 && got != int64(0x103) {
				return fmt.Errorf("null: %v", got)
			}
			return nil
		}},
		{19, "attributes of 255 bytes go in, of 256 do not and are told", func() error {
			set := usual.xattrs["/README"]
			if set == nil {
				return nil // the file system has none
			}
			if len(set["user.long"]) != 255 || len(usual.xattrs["/names/with blank"]) != 0 || len(usual.result.Warnings) == 0 {
				return fmt.Errorf("%d bytes, warnings %q", len(set["user.long"]), usual.result.Warnings)
			}
			return nil
		}},
		{21, "a link's size is that of its raw target", func() error {
			if got := usual.value("SELECT size FROM catalog WHERE symlink='$(ARCH:-x)/lib'"); got != int64(len("$(ARCH:-x)/lib")) {
				return fmt.Errorf("it is %v", got)
			}
			return nil
		}},
		{22, "owners above 2^31 are stored as positive numbers", func() error {
			if got := fmt.Sprint(usual.value("SELECT min(uid) FROM catalog"), usual.value("SELECT min(gid) FROM catalog")); got != "4000000000 4294967294" {
				return fmt.Errorf("they are %s", got)
			}
			return nil
		}},
		{23, "names are bytes", func() error {
			for _, path := range []string{"/names/new\nline", "/names/\xff\xfe", "/names/%20?#$(X)", "/names/" + strings.Repeat("x", 255)} {
				if e, there := usual.entries[path]; !there || e.Size != 1 {
					return fmt.Errorf("%q = %+v", path, e)
				}
			}
			return nil
		}},
		{28, "the branch of all tags is there, and nothing refers to what is not", func() error {
			h, err := history.Open(usual.repo.Object(t, usual.m.History, cvmfs.SuffixHistory))
			if err != nil || len(h.Tags()) < 2 {
				return fmt.Errorf("%v, %w", h, err)
			}
			below := *usual
			below.root = usual.repo.Object(t, usual.m.History, cvmfs.SuffixHistory)
			if got := fmt.Sprint(below.value("SELECT count(*) FROM branches WHERE branch='' AND parent IS NULL"), below.value("SELECT count(*) FROM tags WHERE branch<>'' OR branch IS NULL")); got != "1 0" {
				return fmt.Errorf("branches, and tags of others: %s", got)
			}
			return nil
		}},
		{33, "bind mountpoints are no fault", func() error {
			repo := cvmfstest.Snapshots(t)
			r, err := publish.Check(t.Context(), publish.CheckOptions{Storage: filepath.Dir(repo.Dir), Name: cvmfstest.Name})
			if err != nil || len(r.Problems) > 0 {
				return fmt.Errorf("%v, %w", r, err)
			}
			return nil
		}},
		{35, "the last chunk may be small, and chunks of one file may be the same object", func() error {
			const zeros = "FROM chunks JOIN catalog USING (md5path_1, md5path_2) WHERE name='zeros'"
			if got := fmt.Sprint(usual.value("SELECT count(*) "+zeros), usual.value("SELECT count(DISTINCT chunks.hash) "+zeros), usual.value("SELECT min(chunks.size) "+zeros)); got != "4 2 8192" {
				return fmt.Errorf("chunks, different ones, smallest: %s", got)
			}
			return nil
		}},
	} {
		if err := trap.check(); err != nil {
			t.Errorf("trap %d, %s: %v", trap.number, trap.what, err)
		}
	}
}

// signedParts takes a signed file apart without the parser under test.
func signedParts(data []byte) (sum, signature []byte) {
	_, rest, _ := bytes.Cut(data, []byte("\n--\n"))
	sum, signature, _ = bytes.Cut(rest, []byte("\n"))
	return sum, signature
}

// Traps 29 and 30: a tag keeps what it names through garbage collection, and once
// it is removed that goes; the chain of revisions then ends early, quietly.
func TestTrapsOfCollection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var roots []cvmfs.Hash
	for i := range 5 {
		w.write(t, "file", strings.Repeat("x", i+1))
		roots = append(roots, w.publish(t, func(o *publish.Options) {
			o.NoGenericTag = true
			if i == 1 {
				o.Tag = "kept"
			}
		}).RootHash)
	}
	collect := func(revisions int) {
		_, err := publish.Collect(t.Context(), publish.CollectOptions{Storage: w.storage, Name: name, Keys: w.keys, Revisions: revisions, Now: w.clock})
		must(t, err)
		clean(t, w.check(t))
	}
	has := func(i int) bool {
		_, err := os.Lstat(filepath.Join(w.repo(), roots[i].ObjectPath(cvmfs.SuffixCatalog)))
		return err == nil
	}
	collect(0)
	if has(0) || !has(1) || has(2) || !has(3) || !has(4) {
		t.Errorf("kept are %v %v %v %v %v, want those of tags", has(0), has(1), has(2), has(3), has(4))
	}
	collect(10) // walks into the gap
	must(t, publish.EditTags(t.Context(), publish.TagOptions{Storage: w.storage, Name: name, Keys: w.keys, Remove: []string{"kept"}, Now: w.clock}))
	collect(0)
	if has(1) {
		t.Error("the catalogue of a removed tag is still there")
	}
	must(t, os.Remove(filepath.Join(w.repo(), cvmfs.ReflogFile))) // made anew along the broken chain
	w.write(t, "file", "new")
	w.publish(t, nil)
	clean(t, w.check(t))
}

// TestCheckIsStrict changes rows of a published catalogue, signs the result, and
// wants each change found. What is changed is what the original's check looks at.
func TestCheckIsStrict(t *testing.T) {
	t.Parallel()
	tool := tier.Tool(t, "sqlite3")
	w := newWorld(t)
	w.tricky(t)
	w.publish(t, nil)
	m := w.head(t)
	keys, err := publish.LoadKeys(w.keys, name)
	must(t, err)
	plain := readFile(t, cvmfstest.Repo{Dir: w.repo()}.Object(t, m.RootHash, cvmfs.SuffixCatalog))
	for _, test := range []struct{ change, want string }{
		{"UPDATE catalog SET hash=x'0101010101010101010101010101010101010101' WHERE name='names'", "content hash on what is no regular file"},
		{"UPDATE catalog SET hash=NULL WHERE name='README'", "no content hash"},
		{"UPDATE catalog SET symlink='x' WHERE name='README'", "target on what is no symbolic link"},
		{"UPDATE catalog SET size=1 WHERE name='pipe'", "size on a pipe"},
		{"UPDATE catalog SET size=1 WHERE name='var'", "size is 1, the target has"},
		{"UPDATE catalog SET parent_1=1 WHERE name=''", "not below its parent"},
		{"UPDATE catalog SET md5path_1=md5path_1+1 WHERE name='README'", "its path leads elsewhere"},
		{"UPDATE catalog SET parent_1=parent_1+1 WHERE name='README'", "can be reached"},
		{"DELETE FROM statistics WHERE counter='self_special'", "no counter self_special"},
		{"UPDATE statistics SET value=value+1 WHERE counter='self_regular'", "counter self_regular is"},
		{"UPDATE statistics SET value=value+1 WHERE counter='subtree_file_size'", "counter subtree_file_size is"},
		{"UPDATE properties SET value='77' WHERE key='revision'", `is of revision "77"`},
		{"INSERT INTO properties VALUES ('root_prefix', '/x')", `says it is of "/x"`},
		{"UPDATE catalog SET hardlinks=9 WHERE name='names'", "link count is 9"},
		{"UPDATE catalog SET hardlinks=2 WHERE name='README'", "link count is 2 without links"},
		{"UPDATE catalog SET mode=mode-1 WHERE name='b' AND hardlinks>4294967296", "with which it is linked"},
		{"UPDATE chunks SET offset=offset+1 WHERE offset=0", "chunk at 1"},
		{"DELETE FROM chunks WHERE offset=0", "wanted at 0"},
		{"UPDATE chunks SET size=size-1 WHERE offset=(SELECT max(offset) FROM chunks)", "chunks of"},
		{"UPDATE catalog SET mode=16832 WHERE name='soft'", "differs from the root of the nested catalogue"},
		{"UPDATE catalog SET xattr=x'0101060161616161616162' WHERE name='soft'", "differ"},
		{"UPDATE nested_catalogs SET size=1 WHERE path='/soft'", "announced are 1"},
		{"UPDATE nested_catalogs SET path='/other' WHERE path='/soft'", "nested catalogue without a directory"},
		{"DELETE FROM nested_catalogs WHERE path='/soft'", "flags 0x3"},
		{"UPDATE catalog SET flags=flags|128 WHERE name='var'", "on what is no regular file"},
		{"UPDATE catalog SET flags=flags|65536 WHERE name='names'", "on what is no regular file"},
		{"UPDATE catalog SET flags=flags|32 WHERE name='names'", "inside a catalogue"},
		{"UPDATE catalog SET name='.cvmfscatalog' WHERE name='pipe'", "leads elsewhere"},
		{"UPDATE catalog SET flags=5 WHERE name='README'", "disagree"},
		{"UPDATE catalog SET name='a/b' WHERE name='README'", "file name"},
	} {
		file := filepath.Join(t.TempDir(), "catalogue")
		must(t, os.WriteFile(file, plain, 0o600))
		out, err := exec.CommandContext(t.Context(), tool, file, test.change+"; SELECT changes();").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) == "0" {
			t.Errorf("%s: %v, %s", test.change, err, out)
			continue
		}
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		_, err = io.Copy(z, bytes.NewReader(readFile(t, file)))
		must(t, err)
		must(t, z.Close())
		forged := *m
		forged.RootHash, forged.History, forged.Reflog = cvmfs.SHA1.Sum(b.Bytes()), cvmfs.Hash{}, cvmfs.Hash{}
		must(t, os.WriteFile(filepath.Join(w.repo(), forged.RootHash.ObjectPath('C')), b.Bytes(), 0o644))
		data, err := forged.Sign(keys.Repository)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(w.repo(), cvmfs.ManifestFile), data, 0o644))
		report, err := publish.Check(t.Context(), publish.CheckOptions{Storage: w.storage, Name: name, MasterKeys: []*rsa.PublicKey{keys.Public}, Now: w.clock})
		if err != nil {
			t.Errorf("%s: Check: %v", test.change, err)
			continue
		}
		if !slices.ContainsFunc(report.Problems, func(p publish.Problem) bool { return strings.Contains(p.Text, test.want) }) {
			t.Errorf("%s: problems = %v, want one that says %q", test.change, report.Problems, test.want)
		}
	}
	// What is among the objects and is none.
	must(t, os.WriteFile(filepath.Join(w.repo(), cvmfs.ManifestFile), sign(t, m, keys), 0o644))
	must(t, os.WriteFile(filepath.Join(w.repo(), "data/ab/notes.txt"), nil, 0o644))
	if report := w.check(t); len(report.Problems) != 1 || report.Problems[0].Path != "data/ab/notes.txt" {
		t.Errorf("problems = %v, want the file that is no object", report.Problems)
	}
}

func sign(t testing.TB, m *cvmfs.Manifest, keys *publish.Keys) []byte {
	t.Helper()
	data, err := m.Sign(keys.Repository)
	must(t, err)
	return data
}

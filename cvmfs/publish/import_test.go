package publish_test

import (
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/cvmfs/serve"
)

// serverConf is what cvmfs_server mkfs wrote, with some changes.
const serverConf = `# Created by cvmfs_server.
CVMFS_CREATOR_VERSION=143
CVMFS_REPOSITORY_NAME=small.peer.example
CVMFS_REPOSITORY_TYPE=stratum0
CVMFS_UNION_DIR=/cvmfs/small.peer.example
CVMFS_UPSTREAM_STORAGE=local,/srv/cvmfs/small.peer.example/data/txn,/srv/cvmfs/small.peer.example
CVMFS_USE_FILE_CHUNKING=true
CVMFS_MIN_CHUNK_SIZE=16384
CVMFS_AVG_CHUNK_SIZE=32768
CVMFS_MAX_CHUNK_SIZE=65536
CVMFS_HASH_ALGORITHM=shake128
CVMFS_COMPRESSION_ALGORITHM=none # of files
CVMFS_EXTERNAL_DATA=false
export CVMFS_AUTO_TAG="false"
CVMFS_AUTO_TAG_TIMESPAN="4 weeks ago"
CVMFS_GARBAGE_COLLECTION=false
CVMFS_AUTOCATALOGS=true
CVMFS_AUTOCATALOGS_MAX_WEIGHT='7000'
CVMFS_REPOSITORY_TTL=120
`

// A repository the original made is taken over, from its directory, over HTTP or
// where it is, and goes on with the next revision, as its configuration says.
func TestImportOriginal(t *testing.T) {
	t.Parallel()
	original := cvmfstest.Small(t)
	server := httptest.NewServer(serve.New(serve.Options{Storage: []string{filepath.Dir(original.Dir)}}))
	t.Cleanup(server.Close)
	manifest, err := cvmfs.ParseManifest(original.Read(t, cvmfs.ManifestFile))
	must(t, err)
	list, err := cvmfs.ParseWhitelist(original.Read(t, cvmfs.WhitelistFile))
	must(t, err)
	now := list.Expires.AddDate(0, 1, 0) // it has ended, the master key signs another
	clock := func() time.Time { return now }
	conf := filepath.Join(t.TempDir(), "server.conf")
	must(t, os.WriteFile(conf, []byte(serverConf), 0o644))
	for _, test := range []struct {
		what, source, storage string
		inPlace               bool
	}{
		{"directory", original.Dir, t.TempDir(), false},
		{"HTTP", server.URL + "/cvmfs/" + cvmfstest.Name, t.TempDir(), false},
		{"in place", original.Dir, filepath.Dir(original.Dir), true},
	} {
		keys := filepath.Join(t.TempDir(), "keys")
		r, err := publish.Import(t.Context(), publish.ImportOptions{
			Source: test.source, SourceKeys: original.Keys, Config: conf, Storage: test.storage, Name: cvmfstest.Name, Keys: keys, Now: clock,
		})
		if err != nil {
			t.Fatalf("%s: %v", test.what, err)
		}
		if r.Revision != manifest.Revision || r.InPlace != test.inPlace || !r.MasterKey || !r.WhitelistRenewed || !r.WhitelistExpires.After(now) || (r.Objects > 0) == test.inPlace {
			t.Errorf("%s: Import = %+v", test.what, r)
		}
		if fi, err := os.Stat(filepath.Join(keys, cvmfstest.Name+".masterkey")); err != nil || fi.Mode().Perm() != 0o400 {
			t.Errorf("%s: the master key is %v, %v", test.what, fi, err)
		}
		public, err := cvmfs.ParsePublicKeys(original.Key(t, "pub"))
		must(t, err)
		verify := func() *publish.Report {
			report, err := publish.Check(t.Context(), publish.CheckOptions{Storage: test.storage, Name: cvmfstest.Name, MasterKeys: public, Data: true, Now: clock})
			must(t, err)
			clean(t, report)
			return report
		}
		verify()

		source := t.TempDir()
		must(t, os.WriteFile(filepath.Join(source, "file"), []byte("by mica"), 0o644))
		o := publish.Options{Source: source, Storage: test.storage, Name: cvmfstest.Name, Keys: keys, Now: clock}
		settings, found, err := publish.LoadSettings(keys, cvmfstest.Name)
		if err != nil || !found {
			t.Fatalf("%s: LoadSettings = %v, %v", test.what, found, err)
		}
		settings.Apply(&o)
		next, err := publish.Publish(t.Context(), o)
		must(t, err)
		if next.Revision != manifest.Revision+1 || next.RootHash.Algorithm != cvmfs.SHAKE128 {
			t.Errorf("%s: Publish = %+v, want revision %d", test.what, next, manifest.Revision+1)
		}
		verify()
		info, err := publish.ReadInfo(t.Context(), test.storage, cvmfstest.Name, public, clock)
		must(t, err)
		if info.Manifest.TTL != 2*time.Minute {
			t.Errorf("%s: TTL = %v", test.what, info.Manifest.TTL)
		}
		for _, tag := range info.Tags {
			if tag.Revision == next.Revision && tag.Name != "trunk" {
				t.Errorf("%s: tag %q although they are off", test.what, tag.Name)
			}
		}
		reads := func(pin client.Pin, path, want string) {
			c, err := client.Open(t.Context(), client.Options{Name: cvmfstest.Name, Servers: []string{"file://" + filepath.Join(test.storage, cvmfstest.Name)}, MasterKeys: public, CacheDir: t.TempDir(), Pin: pin, Now: clock})
			must(t, err)
			defer c.Close()
			if data, err := fs.ReadFile(c.FS(), path); err != nil || want != "" && string(data) != want {
				t.Errorf("%s: client reads %q = %q, %v", test.what, path, data, err)
			}
		}
		reads(client.Pin{}, "file", "by mica")
		for path, e := range cvmfstest.Expect(t, 3) { // what the original had published is there still
			if e.Type == "file" && e.Size > 0 && fs.ValidPath(strings.TrimPrefix(path, "/")) {
				reads(client.Pin{RootHash: manifest.RootHash}, strings.TrimPrefix(path, "/"), "")
				break
			}
		}
	}
}

func TestImportRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "file", "x")
	w.publish(t, nil)
	other := t.TempDir()
	_, err := publish.CreateKeys(other, name, clock)
	must(t, err)
	conf := func(text string) string {
		file := filepath.Join(t.TempDir(), "server.conf")
		must(t, os.WriteFile(file, []byte(text), 0o644))
		return file
	}
	taken := t.TempDir()
	_, err = publish.CreateKeys(taken, name, clock)
	must(t, err)
	for what, test := range map[string]struct {
		change func(o *publish.ImportOptions)
		want   error
	}{
		"replica":      {func(o *publish.ImportOptions) { o.Config = conf("CVMFS_REPOSITORY_TYPE=stratum1\n") }, publish.ErrImport},
		"authorised":   {func(o *publish.ImportOptions) { o.Config = conf("CVMFS_VOMS_AUTHZ=atlas\n") }, publish.ErrImport},
		"alternative":  {func(o *publish.ImportOptions) { o.Config = conf("CVMFS_CATALOG_ALT_PATHS=true\n") }, publish.ErrImport},
		"a script":     {func(o *publish.ImportOptions) { o.Config = conf("CVMFS_USER=$(id -un)\n") }, cvmfs.ErrMalformed},
		"no keys":      {func(o *publish.ImportOptions) { o.SourceKeys = t.TempDir() }, fs.ErrNotExist},
		"other keys":   {func(o *publish.ImportOptions) { o.SourceKeys = other }, cvmfs.ErrSignature},
		"keys taken":   {func(o *publish.ImportOptions) { o.Keys = taken }, publish.ErrKeys},
		"other name":   {func(o *publish.ImportOptions) { o.Source = filepath.Dir(o.Source) + "/other.example.org" }, publish.ErrOther},
		"nothing":      {func(o *publish.ImportOptions) { o.Source = t.TempDir() + "/" + name }, publish.ErrNoRepository},
		"no such conf": {func(o *publish.ImportOptions) { o.Config = "/nowhere" }, fs.ErrNotExist},
	} {
		o := publish.ImportOptions{Source: w.repo(), SourceKeys: w.keys, Storage: t.TempDir(), Name: name, Keys: t.TempDir(), Now: w.clock}
		test.change(&o)
		if r, err := publish.Import(t.Context(), o); !errors.Is(err, test.want) {
			t.Errorf("%s: Import = %+v, %v, want %v", what, r, err, test.want)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	load := func(text string) (publish.Settings, error) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, name+".conf"), []byte(text), 0o644))
		s, _, err := publish.LoadSettings(dir, name)
		return s, err
	}
	if s, err := load("CVMFS_EXTERNAL_DATA=true\n"); err != nil || !s.External {
		t.Errorf("LoadSettings of external data = %+v, %v", s, err)
	}
	got, err := load(serverConf)
	want := publish.Settings{
		Algorithm: cvmfs.SHAKE128, Compression: cvmfs.Plain, Chunks: publish.ChunkSizes{Min: 16384, Avg: 32768, Max: 65536},
		MaxEntries: 7000, NoAutoTag: true, TagAge: publish.Age{Days: 28}, NoXattrs: true, TTL: 2 * time.Minute,
	}
	if err != nil || got != want {
		t.Errorf("LoadSettings: %v\n%s", err, cmp.Diff(want, got))
	}
	if s, found, err := publish.LoadSettings(t.TempDir(), name); found || err != nil || s != (publish.Settings{}) {
		t.Errorf("LoadSettings of nothing = %+v, %v, %v", s, found, err)
	}
	for _, bad := range []string{
		"CVMFS_USER=`id`", "if true; then", "A=\"x", "A=b c", "=x", "1A=x", "A=$B", "CVMFS_HASH_ALGORITHM=md4", "CVMFS_HASH_ALGORITHM=md5",
		"CVMFS_COMPRESSION_ALGORITHM=zstd", "CVMFS_MIN_CHUNK_SIZE=-1", "CVMFS_MIN_CHUNK_SIZE=100", "CVMFS_AUTO_TAG=maybe", "CVMFS_AUTO_TAG_TIMESPAN='4 weeks'", "CVMFS_AUTO_TAG_TIMESPAN='4 moons ago'", "CVMFS_REPOSITORY_TTL=x",
	} {
		if s, err := load(bad + "\n"); err == nil {
			t.Errorf("LoadSettings of %q = %+v", bad, s)
		}
	}
	// What a publication says itself wins.
	o := publish.Options{Algorithm: cvmfs.SHA1, Chunks: small, MaxEntries: 5, TTL: time.Hour, Xattrs: publish.XattrRules{Allow: []string{"user.*"}}}
	want.Apply(&o)
	if o.Algorithm != cvmfs.SHA1 || o.Chunks != small || o.MaxEntries != 5 || o.TTL != time.Hour || o.Xattrs.Deny != nil || !o.NoGenericTag || o.TagAge != want.TagAge {
		t.Errorf("Apply = %+v", o)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add(serverConf)
	f.Add("A='x' # y\nreadonly B=\"z\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, name+".conf"), []byte(text), 0o644))
		s, found, err := publish.LoadSettings(dir, name)
		if (err == nil) != found {
			t.Errorf("LoadSettings = %+v, %v, %v", s, found, err)
		}
	})
}

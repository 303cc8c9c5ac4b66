package mount_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/tier"
)

// everything makes a tree of all that the format can hold.
func everything(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(os.WriteFile(at(name), data, 0o644))
	}
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 3<<20)
	_, _ = random.Read(noise) // never fails

	write("README", []byte("read me"))
	write("empty", nil)
	must(os.MkdirAll(at("nothing/in/here"), 0o700))
	for i, name := range []string{" leading and trailing ", "new\nline", "tab\t", "\xff\xfe", "%20?#$(X)", `back\slash "quoted"`, "-rf", "…é", "e\u0301", strings.Repeat("x", 255)} {
		write("names/"+name, []byte{byte('0' + i)})
	}
	write(strings.Repeat("deep/", 60)+"file", []byte("deep"))

	write("hard/a", []byte("linked"))
	must(os.Link(at("hard/a"), at("hard/b")))
	must(os.Link(at("hard/a"), at("hard/c")))
	write("hard/d", []byte("another group"))
	must(os.Link(at("hard/d"), at("hard/e")))
	must(os.Symlink("target", at("hard/s1")))
	must(os.Link(at("hard/s1"), at("hard/s2")))
	must(unix.Mkfifo(at("hard/p1"), 0o600))
	must(os.Link(at("hard/p1"), at("hard/p2")))

	must(os.Mkdir(at("links"), 0o755))
	for i, target := range []string{"../README", "/nowhere", "$(ARCH)/lib", "a$(OTHER)b$(ARCH)", "$(open", strings.Repeat("y/", 2000), "\xff"} {
		must(os.Symlink(target, at(fmt.Sprint("links/", i))))
	}

	write("big/noise", noise)
	write("big/zeros", make([]byte, 1<<20))
	must(os.Link(at("big/noise"), at("big/linked")))
	sparse, err := os.Create(at("big/sparse"))
	must(err)
	must(sparse.Truncate(700_000))
	_, err = sparse.WriteAt([]byte("in the middle"), 300_000)
	must(err)
	must(sparse.Close())
	write("big/one chunk's worth", noise[:16384])
	write("big/a byte more", noise[:16385])

	write("modes/setuid", []byte("s"))
	must(os.Chmod(at("modes/setuid"), 0o755|os.ModeSetuid))
	write("modes/setgid", []byte("g"))
	must(os.Chmod(at("modes/setgid"), 0o2711&0o777|os.ModeSetgid))
	write("modes/none", []byte("n"))
	must(os.Chmod(at("modes/none"), 0))
	must(os.Mkdir(at("modes/sticky"), 0o777))
	must(os.Chmod(at("modes/sticky"), 0o777|os.ModeSticky))
	write("owners/high", []byte("h"))
	must(os.Lchown(at("owners/high"), 3000000001, 4294967294))
	must(os.Symlink("x", at("owners/link")))
	must(os.Lchown(at("owners/link"), 1234, 70000))

	must(os.Mkdir(at("special"), 0o755))
	must(unix.Mkfifo(at("special/pipe"), 0o640))
	must(unix.Mknod(at("special/socket"), unix.S_IFSOCK|0o600, 0))
	must(unix.Mknod(at("special/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(at("special/block"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))

	xattr := func(name, key string, value []byte) {
		t.Helper()
		must(unix.Lsetxattr(at(name), key, value, 0))
	}
	write("xattr/file", []byte("x"))
	xattr("xattr/file", "user.short", []byte("v"))
	xattr("xattr/file", "user.empty", nil)
	xattr("xattr/file", "user.binary", noise[:255])
	xattr("xattr/file", "user."+strings.Repeat("k", 200), []byte("long name"))
	xattr("xattr", "user.dir", []byte("of a directory"))
	must(os.Symlink("x", at("xattr/link")))
	xattr("xattr/link", "trusted.link", []byte("of a link"))
	write("xattr/capable", []byte("x"))
	xattr("xattr/capable", "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	write("acl/file", []byte("x"))
	xattr("acl/file", "system.posix_acl_access", acl)
	xattr("acl", "system.posix_acl_default", acl)

	write("soft/.cvmfscatalog", nil)
	write("soft/1.0/.cvmfscatalog", nil)
	write("soft/1.0/bin/tool", noise[:100_000])
	write("soft/1.0/bin/link", nil)
	must(os.Link(at("soft/1.0/bin/tool"), at("soft/1.0/bin/same tool")))
	write("soft/2.0/.cvmfscatalog", nil)
	write("soft/2.0/empty", nil)
	write("software/x", []byte("not below soft"))
	xattr("soft/1.0", "user.transition", []byte("point"))

	for name, when := range map[string]time.Time{
		"empty": time.Unix(-5, 999999999), "README": time.Unix(0, 0), "soft/1.0/bin/tool": time.Unix(1<<33, 1), "nothing": time.Unix(1e9, 5e8), "soft/2.0": time.Unix(1e9, 0),
	} {
		must(os.Chtimes(at(name), when, when))
	}
}

// acl is the kernel's form of u::rw-,u:1000:r--,g::r--,m::r--,o::--- (linux:
// include/uapi/linux/posix_acl_xattr.h).
var acl = func() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{0x01, 6, 1<<32 - 1}, {0x02, 4, 1000}, {0x04, 4, 1<<32 - 1}, {0x10, 4, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}()

// A tree that is published and mounted is the tree, says rsync in both
// directions; the repository is what the format's specification says, by its own
// check and by stock sqlite3.
func TestPublishedIsMounted(t *testing.T) {
	tier.Root(t)
	rsync := tier.Tool(t, "rsync")
	w := newWorkshop(t)
	everything(t, w.source)
	_, err := publish.Publish(t.Context(), publish.Options{
		Source: w.source, Storage: w.storage, Name: shop, Keys: w.keys, Chunks: publish.ChunkSizes{Min: 16384, Avg: 32768, Max: 65536},
		Xattrs: publish.XattrRules{Allow: []string{"system.posix_acl_*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(w.keys, shop+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		t.Fatal(err)
	}
	report, err := publish.Check(t.Context(), publish.CheckOptions{Storage: w.storage, Name: shop, MasterKeys: keys, Data: true})
	if err != nil || len(report.Problems) > 0 || report.Catalogs < 4 {
		t.Errorf("check: %+v, %v", report, err)
	}
	checkWithSQL(t, cvmfstest.Repo{Dir: filepath.Join(w.storage, shop)})

	at, _ := mountWith(t, client.Options{
		Name: shop, Servers: []string{w.server.URL + "/" + shop}, MasterKeys: keys, CacheDir: filepath.Join(t.TempDir(), "cache"),
		Vars: map[string]string{"ARCH": "$(ARCH)", "OTHER": "$(OTHER)"}, // so that links show the text they have
	}, mount.Options{Suid: true})
	for _, way := range [][2]string{{w.source, at}, {at, w.source}} {
		cmd := exec.CommandContext(t.Context(), rsync, "-aHAXn", "--checksum", "--delete", "--modify-window=-1", "-i", way[0]+"/", way[1]+"/")
		out, err := cmd.CombinedOutput()
		if text := strings.TrimSpace(string(out)); err != nil || text != "" {
			t.Errorf("rsync from %s to %s: %v\n%s", way[0], way[1], err, text)
		}
	}
}

// documented is the schema of spec revision 2.5.7, as the original writes it
// (cvmfs: cvmfs/catalog_sql.cc).
var documented = map[string]string{
	"catalog": "CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, " +
		"mtime INTEGER, mtimens INTEGER, flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB, CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2))",
	"idx_catalog_parent": "CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)",
	"chunks": "CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB, " +
		"CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size), FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2))",
	"nested_catalogs":  "CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_nested_catalogs PRIMARY KEY (path))",
	"bind_mountpoints": "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path))",
	"statistics":       "CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter))",
	"properties":       "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key))",
}

// counted computes a counter of one catalogue from its rows.
var counted = map[string]string{
	"regular":            "SELECT count(*) FROM catalog WHERE mode & 61440 = 32768",
	"symlink":            "SELECT count(*) FROM catalog WHERE mode & 61440 = 40960",
	"dir":                "SELECT count(*) FROM catalog WHERE mode & 61440 = 16384",
	"special":            "SELECT count(*) FROM catalog WHERE mode & 61440 NOT IN (32768, 40960, 16384)",
	"nested":             "SELECT count(*) FROM nested_catalogs",
	"chunked":            "SELECT count(*) FROM catalog WHERE flags & 64",
	"chunks":             "SELECT count(*) FROM chunks",
	"file_size":          "SELECT coalesce(sum(size), 0) FROM catalog WHERE mode & 61440 = 32768",
	"chunked_size":       "SELECT coalesce(sum(size), 0) FROM catalog WHERE flags & 64",
	"xattr":              "SELECT count(*) FROM catalog WHERE xattr IS NOT NULL",
	"external":           "SELECT count(*) FROM catalog WHERE flags & 128",
	"external_file_size": "SELECT coalesce(sum(size), 0) FROM catalog WHERE flags & 128",
}

// checkWithSQL looks at every catalogue of the published revision with the engine
// and the eyes of somebody who has only read the specification.
func checkWithSQL(t *testing.T, repo cvmfstest.Repo) {
	t.Helper()
	tool := tier.Tool(t, "sqlite3")
	sql := func(file, query string) []string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), tool, "-readonly", "-separator", "|", file, query).CombinedOutput()
		if err != nil {
			t.Fatalf("sqlite3 %s: %v\n%s", query, err, out)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	number := func(text string) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	catalogs := 0
	var walk func(path string, h cvmfs.Hash) map[string]int64
	walk = func(path string, h cvmfs.Hash) map[string]int64 {
		catalogs++
		file := repo.Object(t, h, cvmfs.SuffixCatalog)
		if got := sql(file, "PRAGMA integrity_check; PRAGMA foreign_key_check; PRAGMA journal_mode"); !slices.Equal(got, []string{"ok", "delete"}) {
			t.Errorf("%q: %q, want a sound file without a journal", path, got)
		}
		schema := map[string]string{}
		for _, name := range sql(file, "SELECT name FROM sqlite_master WHERE sql IS NOT NULL") {
			text := strings.Join(sql(file, "SELECT sql FROM sqlite_master WHERE name = '"+name+"'"), " ")
			text = strings.NewReplacer("( ", "(", " )", ")").Replace(strings.Join(strings.Fields(text), " "))
			schema[name] = text
		}
		if !maps.Equal(schema, documented) {
			t.Errorf("%q: schema is %q, documented is %q", path, schema, documented)
		}
		below := map[string]int64{}
		for _, row := range sql(file, "SELECT hex(path), sha1 FROM nested_catalogs") {
			if row == "" {
				continue
			}
			name, text, _ := strings.Cut(row, "|")
			raw, err := hex.DecodeString(name)
			if err != nil {
				t.Fatal(err)
			}
			nested, err := cvmfs.ParseHash(text)
			if err != nil {
				t.Fatal(err)
			}
			for counter, n := range walk(string(raw), nested) {
				below[counter] += n
			}
		}
		statistics := map[string]int64{}
		for _, row := range sql(file, "SELECT counter, value FROM statistics") {
			name, value, _ := strings.Cut(row, "|")
			statistics[name] = number(value)
		}
		if len(statistics) != 2*len(counted) {
			t.Errorf("%q: %d counters, want %d", path, len(statistics), 2*len(counted))
		}
		total := map[string]int64{}
		for counter, query := range counted {
			self := number(sql(file, query)[0])
			total[counter] = self + below[counter]
			if got, there := statistics["self_"+counter]; got != self || !there {
				t.Errorf("%q: self_%s = %d, rows give %d", path, counter, got, self)
			}
			if got, there := statistics["subtree_"+counter]; got != below[counter] || !there {
				t.Errorf("%q: subtree_%s = %d, catalogues below give %d", path, counter, got, below[counter])
			}
		}
		return total
	}
	total := walk("", repo.Head(t).RootHash)
	if catalogs != 4 || total["nested"] != 3 || total["chunked"] < 5 || total["special"] != 6 || total["xattr"] < 6 {
		t.Errorf("%d catalogues, %v: not what the tree has", catalogs, total)
	}
}

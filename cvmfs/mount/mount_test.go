package mount_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/mount"
	"github.com/micavm/mica/internal/tier"
)

const small = cvmfstest.Name

// mounted mounts the newest revision of the small repository, pinned or not.
func mounted(t testing.TB, pinned bool) (string, *client.Repository) {
	t.Helper()
	tier.Root(t)
	repo := cvmfstest.Small(t)
	opt := options(t, repo, "file://"+repo.Dir)
	if pinned {
		opt.Pin.Tag = "rev3"
	}
	return mountWith(t, opt, mount.Options{AllowOther: true, Suid: true})
}

// options are those to read a repository from a server, with a new cache.
func options(t testing.TB, repo cvmfstest.Repo, server string) client.Options {
	t.Helper()
	keys, err := cvmfs.ParsePublicKeys(repo.Key(t, "pub"))
	if err != nil {
		t.Fatal(err)
	}
	return client.Options{
		Name: small, Servers: []string{server}, MasterKeys: keys, CacheDir: filepath.Join(t.TempDir(), "cache"),
		Vars: map[string]string{"CVMFS_ARCH": "x86_64"}, Backoff: 1,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

// mountWith opens and mounts a repository until the test ends.
func mountWith(t testing.TB, opt client.Options, mopt mount.Options) (string, *client.Repository) {
	t.Helper()
	tier.Root(t)
	r, err := client.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	mopt.Log = opt.Log
	s, err := mount.Mount(t.Context(), r, at, mopt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Error(err)
			_ = syscall.Unmount(at, syscall.MNT_DETACH|syscall.MNT_FORCE)
		}
		s.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return at, r
}

func describe(root, path string) (cvmfstest.Listed, error) {
	full := root + path
	var st unix.Stat_t
	if err := unix.Lstat(full, &st); err != nil {
		return cvmfstest.Listed{}, err
	}
	l := cvmfstest.Listed{
		Path: path, Mode: fmt.Sprintf("%04o", st.Mode&0o7777), Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid,
		MTime: st.Mtim.Sec, MTimeNS: int32(st.Mtim.Nsec), Size: st.Size,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		l.Type, l.Size = "dir", 0
	case unix.S_IFREG:
		l.Type = "file"
		data, err := os.ReadFile(full)
		if err != nil {
			return cvmfstest.Listed{}, err
		}
		sum := sha256.Sum256(data)
		l.SHA256 = hex.EncodeToString(sum[:])
	case unix.S_IFLNK:
		l.Type = "symlink"
		target, err := os.Readlink(full)
		if err != nil {
			return cvmfstest.Listed{}, err
		}
		l.Target = target
	case unix.S_IFIFO:
		l.Type = "fifo"
	case unix.S_IFSOCK:
		l.Type = "socket"
	case unix.S_IFCHR:
		l.Type = "char"
	case unix.S_IFBLK:
		l.Type = "block"
	}
	if l.Type == "char" || l.Type == "block" {
		l.Rdev = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(full, names)
	if err != nil {
		return cvmfstest.Listed{}, fmt.Errorf("llistxattr: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		m, err := unix.Lgetxattr(full, name, value)
		if err != nil {
			return cvmfstest.Listed{}, fmt.Errorf("lgetxattr %q: %w", name, err)
		}
		if l.Xattrs == nil {
			l.Xattrs = map[string][]byte{}
		}
		l.Xattrs[name] = value[:m:m]
	}
	return l, nil
}

// tree describes everything below a directory.
func tree(t testing.TB, root string) map[string]cvmfstest.Listed {
	t.Helper()
	all := map[string]cvmfstest.Listed{}
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		l, err := describe(root, strings.TrimPrefix(p, root))
		if err != nil {
			t.Errorf("%q: %v", p, err)
		}
		all[l.Path] = l
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

// unreadable takes from an entry what stat(2) has no word for.
func unreadable(l *cvmfstest.Listed) { l.RawTarget = "" }

func TestShowsRevisionExactly(t *testing.T) {
	for _, pinned := range []bool{true, false} {
		t.Run(fmt.Sprintf("pinned=%v", pinned), func(t *testing.T) {
			root, _ := mounted(t, pinned)
			want := cvmfstest.Expect(t, 3)
			cvmfstest.Compare(t, tree(t, root), want, unreadable)
			if _, err := os.Lstat(root + "/nonesuch"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Lstat of a missing path: %v", err)
			}
			if err := os.WriteFile(root+"/added", nil, 0o644); !errors.Is(err, syscall.EROFS) {
				t.Errorf("writing: %v, want %v", err, syscall.EROFS)
			}
		})
	}
}

func TestInodes(t *testing.T) {
	numbers := func(root string) map[string]uint64 {
		all := map[string]uint64{}
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil {
				return err
			}
			all[strings.TrimPrefix(p, root)] = st.Ino
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	first, _ := mounted(t, true)
	second, _ := mounted(t, false)
	a, b := numbers(first), numbers(second)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("inodes of two mounts differ:\n%s", diff)
	}
	owner := map[uint64]string{}
	shared := 0
	for p, ino := range a {
		other, taken := owner[ino]
		owner[ino] = p
		if !taken {
			continue
		}
		shared++
		if filepath.Dir(p) != filepath.Dir(other) {
			t.Errorf("%q and %q have the same inode", p, other)
		}
	}
	if shared != 2+1+1+1 { // groups of 3, 2, 2 links and 2 chunked files
		t.Errorf("%d paths share an inode with another, want 5", shared)
	}
	// d_ino of a listing is st_ino.
	d, err := os.Open(first + "/hard")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	buf := make([]byte, 16<<10)
	n, err := unix.ReadDirent(int(d.Fd()), buf)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < n; {
		rec := buf[off:]
		ino := *(*uint64)(ptr(rec))
		length := int(rec[16]) | int(rec[17])<<8
		name := unix.ByteSliceToString(rec[19:length])
		off += length
		if name == "." || name == ".." {
			continue
		}
		if want := a["/hard/"+name]; ino != want {
			t.Errorf("d_ino of %q = %d, st_ino %d", name, ino, want)
		}
	}
}

func TestMagicAttributes(t *testing.T) {
	root, r := mounted(t, true)
	for path, want := range map[string]map[string]string{
		"":             {"user.root_hash": r.RootHash().String(), "user.fqrn": small, "user.revision": "3", "user.tag": "rev3", "user.expires": "never (fixed root catalog)"},
		"/big/chunked": {"user.compression": "zlib", "user.external_file": "0"},
		"/v3/bigraw":   {"user.chunks": "6", "user.compression": "none"},
	} {
		for name, value := range want {
			buf := make([]byte, 4096)
			n, err := unix.Getxattr(root+path, name, buf)
			if err != nil || string(buf[:n]) != value {
				t.Errorf("%s of %q = %q, %v, want %q", name, path, buf[:max(n, 0)], err, value)
			}
		}
	}
	if _, err := unix.Getxattr(root+"/README", "user.nonesuch", nil); !errors.Is(err, unix.ENODATA) {
		t.Errorf("unknown attribute: %v, want %v", err, unix.ENODATA)
	}
}

// What a mount counts and knows of its network, and pages.
func TestMagicCounters(t *testing.T) {
	repo := cvmfstest.Small(t)
	opt := options(t, repo, "file://"+repo.Dir)
	opt.Proxies, opt.Timeout = "DIRECT;http://jane:secret@proxy.invalid:3128", 7*time.Second
	opt.External.Servers = []string{"http://files.invalid/x"}
	root, r := mountWith(t, opt, mount.Options{AllowOther: true, CountOpens: true})
	get := func(path, name string) string {
		t.Helper()
		buf := make([]byte, 64<<10)
		n, err := unix.Getxattr(root+path, name, buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
	if _, err := os.ReadDir(root + "/nested"); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(root + "/README")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for name, want := range map[string]string{
		"nopen": "1", "usedfd": "1", "ndiropen": "1", "useddirp": "0", "timestamp_last_ioerr": "0", "nclg": fmt.Sprint(r.Stats().Catalogs),
		"proxy_list": "DIRECT\nhttp://***@proxy.invalid:3128\n", "proxy_list_external": "DIRECT\n",
		"timeout": "7", "timeout_direct": "7", "external_timeout": "7", "external_host": "http://files.invalid/x",
		"external_url": "no data available", "pubkeys": string(repo.Key(t, "pub")), "pubkeys~?": "num_pages, 1",
		"pubkeys~0": string(repo.Key(t, "pub")), "pubkeys~1": "no data available", "pubkeys~": "no data available",
		"fqrn@0": "# page 0 of 1; user.fqrn~N is page N, from 0 on\n" + small, "nonesuch~0": "no data available", "~0": "no data available",
	} {
		if got := get("/README", "user."+name); got != want {
			t.Errorf("user.%s = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"repo_counters", "catalog_counters"} {
		if got := get("", "user."+name); !strings.Contains(got, "\nregular,") || !strings.Contains(got, "\nfile_size,") {
			t.Errorf("user.%s = %q", name, got)
		}
	}
	if got := get("", "user.hitrate"); !strings.Contains(got, ".") {
		t.Errorf("user.hitrate = %q", got)
	}
}

func TestConcurrentReaders(t *testing.T) {
	root, _ := mounted(t, true)
	want := cvmfstest.Expect(t, 3)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for p, w := range want {
				if w.Type != "file" {
					continue
				}
				if got, err := describe(root, p); err != nil || got.SHA256 != w.SHA256 {
					t.Errorf("%q: sha256 %s, %v, want %s", p, got.SHA256, err, w.SHA256)
				}
			}
		})
	}
	wg.Wait()
}

func TestStatfs(t *testing.T) {
	root, _ := mounted(t, true)
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		t.Fatal(err)
	}
	if st.Namelen != 255 || st.Files != 88+178+16+4 || st.Bsize == 0 {
		t.Errorf("Statfs = %+v", st)
	}
	if st.Flags&unix.MS_RDONLY == 0 || st.Flags&unix.MS_NODEV == 0 || st.Flags&unix.MS_NOSUID != 0 {
		t.Errorf("mount flags %#x, want read-only, no devices, suid honoured", st.Flags)
	}
}

// The lower layer of a machine's root.
func TestUnderOverlay(t *testing.T) {
	lower, _ := mounted(t, true)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	at := t.TempDir()
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(disk, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,redirect_dir=off,index=off,metacopy=off,xino=auto", lower, disk, disk)
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	want := cvmfstest.Expect(t, 3)
	// Copy-up of content, of attributes alone, of a directory's attributes.
	before, err := os.ReadFile(at + "/big/chunked")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(at+"/big/chunked", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("more"); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(at + "/big/chunked"); err != nil || string(after) != string(before)+"more" {
		t.Errorf("after a copy-up: %d bytes, %v, want %d", len(after), err, len(before)+4)
	}
	if got, err := describe(lower, "/big/chunked"); err != nil || got.SHA256 != want["/big/chunked"].SHA256 {
		t.Errorf("the lower file changed: %v", err)
	}
	if err := os.Chmod(at+"/README", 0o600); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(at+"/nested/new", []byte("x"), 0o644); err != nil {
		t.Error(err)
	}
	// A whiteout, and a directory made anew over it.
	if err := os.RemoveAll(at + "/big"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(at + "/big"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removing: %v", err)
	}
	if err := os.Mkdir(at+"/big", 0o755); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(at + "/big"); err != nil || len(list) != 0 {
		t.Errorf("new directory over a whiteout: %d entries, %v", len(list), err)
	}
	// Setuid bits and capabilities come through.
	for p, w := range want {
		if w.Type != "file" || strings.HasPrefix(p, "/big/") || (!strings.HasPrefix(w.Mode, "4") && len(w.Xattrs["security.capability"]) == 0) {
			continue
		}
		got, err := describe(at, p)
		if err != nil || got.Mode != w.Mode || !bytes.Equal(got.Xattrs["security.capability"], w.Xattrs["security.capability"]) {
			t.Errorf("%q: mode %s, capability %q, %v, want %s, %q", p, got.Mode, got.Xattrs["security.capability"], err, w.Mode, w.Xattrs["security.capability"])
		}
		if err := os.Chtimes(at+p, mtime(got), mtime(got)); err != nil { // copies it up
			t.Errorf("%q: %v", p, err)
		}
		if got, err := describe(at, p); err != nil || !bytes.Equal(got.Xattrs["security.capability"], w.Xattrs["security.capability"]) {
			t.Errorf("%q copied up: capability %q, %v", p, got.Xattrs["security.capability"], err)
		}
	}
}

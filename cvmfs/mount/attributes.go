package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
)

// attribute is one that no repository stores. It is there where of says so, or
// everywhere.
type attribute struct {
	value func(f *fileSystem, ctx ctx, path string, e catalog.Entry) (string, error)
	of    func(f *fileSystem, e catalog.Entry) bool
}

func (a attribute) applies(f *fileSystem, e catalog.Entry) bool { return a.of == nil || a.of(f, e) }

// magicAttributes are those of the original that say something here. Compat:
// names and forms are cvmfs/magic_xattr.cc's. Not there are user.authz, and
// user.inode_max, since inode numbers are hashes here and none is the last; what
// counts opening and closing, unless the mount is told to count it: the kernel does
// that alone otherwise; and user.lhash of a file that is stored compressed: the cache
// has its plain bytes, which another compressor need not bring into the same stored
// form.
var magicAttributes = map[string]attribute{
	"user.fqrn":      mounts(func(f *fileSystem) string { return f.r.Name() }),
	"user.root_hash": mounts(func(f *fileSystem) string { return f.r.RootHash().String() }),
	"user.revision":  mounts(func(f *fileSystem) string { return decimal(f.r.Revision()) }),
	"user.tag": {
		func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) { return f.r.Tag(), nil },
		func(f *fileSystem, _ catalog.Entry) bool { return f.r.Tag() != "" },
	},
	"user.version": mounts(func(*fileSystem) string { return client.CompatVersion }),
	"user.pid":     mounts(func(*fileSystem) string { return decimal(os.Getpid()) }),
	"user.uptime":  mounts(func(f *fileSystem) string { return decimal(int(time.Since(f.started).Minutes())) }),
	"user.expires": mounts(func(f *fileSystem) string {
		if f.pinned {
			return "never (fixed root catalog)"
		}
		return decimal(int(f.r.TTL().Minutes()))
	}),
	"user.pubkeys":       {publicKeys, nil},
	"user.repo_metainfo": {metainfo, func(f *fileSystem, _ catalog.Entry) bool { return !f.r.Metainfo().IsZero() }},
	"user.repo_counters": {func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		counters, err := f.r.Counters()
		return counterList(counters), err
	}, nil},
	"user.nclg": mounts(func(f *fileSystem) string { return decimal(f.r.Stats().Catalogs) }),
	"user.logbuffer": {
		func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
			return f.logBuffer.String(), nil
		},
		func(f *fileSystem, _ catalog.Entry) bool { return f.logBuffer != nil },
	},

	"user.nioerr":               mounts(func(f *fileSystem) string { return decimal(f.failures.Load()) }),
	"user.timestamp_last_ioerr": mounts(func(f *fileSystem) string { return decimal(f.lastFailure.Load()) }),
	"user.ndownload":            mounts(func(f *fileSystem) string { return decimal(f.r.Stats().Objects) }),
	"user.rx":                   mounts(func(f *fileSystem) string { return decimal(f.r.Stats().Bytes / 1024) }),
	"user.hitrate":              mounts(func(f *fileSystem) string { return hitRate(f.r.Stats()) }),
	"user.speed":                mounts(func(f *fileSystem) string { return speed(f.r.Stats()) }),
	"user.ncleanup24":           mounts(func(f *fileSystem) string { return decimal(f.r.Cleanups(24 * time.Hour)) }),
	"user.maxfd":                mounts(func(*fileSystem) string { return maxFiles() }),
	"user.nopen":                counted(func(c Counters) int64 { return c.Opens }),
	"user.ndiropen":             counted(func(c Counters) int64 { return c.DirOpens }),
	"user.usedfd":               counted(func(c Counters) int64 { return int64(c.OpenFiles) }),
	"user.useddirp":             counted(func(c Counters) int64 { return int64(c.OpenDirs) }),

	"user.host": mounts(func(f *fileSystem) string {
		servers, active := f.r.Link().Servers()
		return client.Masked(servers[active])
	}),
	"user.host_list": mounts(func(f *fileSystem) string {
		servers, active := f.r.Link().Servers()
		return client.Masked(strings.Join(slices.Concat(servers[active:], servers[:active]), ";"))
	}),
	"user.proxy": mounts(func(f *fileSystem) string {
		_, active, _ := f.r.Link().Proxies()
		return client.Masked(active)
	}),
	"user.proxy_list":          mounts(func(f *fileSystem) string { return proxyList(f.r.Link()) }),
	"user.proxy_list_external": mounts(func(f *fileSystem) string { return proxyList(f.r.ExternalLink()) }),
	"user.timeout": mounts(func(f *fileSystem) string {
		proxied, _ := f.r.Link().Timeouts()
		return decimal(int(proxied.Seconds()))
	}),
	"user.timeout_direct": mounts(func(f *fileSystem) string {
		_, direct := f.r.Link().Timeouts()
		return decimal(int(direct.Seconds()))
	}),
	"user.external_timeout": mounts(func(f *fileSystem) string {
		_, direct := f.r.ExternalLink().Timeouts()
		return decimal(int(direct.Seconds()))
	}),
	"user.external_host": {
		func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) { return externalHost(f), nil },
		func(f *fileSystem, _ catalog.Entry) bool { return externalHost(f) != "" },
	},
	"user.external_url": {
		func(f *fileSystem, _ ctx, path string, _ catalog.Entry) (string, error) {
			return externalHost(f) + path, nil
		},
		func(f *fileSystem, e catalog.Entry) bool {
			return e.IsRegular() && e.IsExternal() && externalHost(f) != ""
		},
	},

	"user.hash": {
		func(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) { return e.Hash.String(), nil },
		hashed,
	},
	"user.lhash": {localHash, func(f *fileSystem, e catalog.Entry) bool {
		return e.IsRegular() && hashed(f, e) && e.Compression == cvmfs.Plain
	}},
	"user.compression":   files(func(e catalog.Entry) string { return e.Compression.String() }),
	"user.external_file": files(func(e catalog.Entry) string { return flag(e.IsExternal()) }),
	"user.direct_io":     files(func(e catalog.Entry) string { return flag(e.DirectIO()) }),
	"user.rawlink":       rawLink,
	"xfsroot.rawlink":    rawLink,
	"user.chunks": {func(f *fileSystem, ctx ctx, path string, _ catalog.Entry) (string, error) {
		chunks, err := f.r.Chunks(ctx, path)
		return decimal(max(1, len(chunks))), err
	}, regular},
	"user.chunk_list": {func(f *fileSystem, ctx ctx, path string, e catalog.Entry) (string, error) {
		chunks, err := f.r.Chunks(ctx, path)
		if err == nil && len(chunks) == 0 {
			chunks = []catalog.Chunk{{Size: e.Size, Hash: e.Hash}}
		}
		var b strings.Builder
		b.WriteString(chunkHeader)
		for _, c := range chunks {
			fmt.Fprintf(&b, "%s,%d,%d\n", c.Hash, c.Offset, c.Size)
		}
		return b.String(), err
	}, regular},
	"user.catalog_counters": {func(f *fileSystem, ctx ctx, path string, _ catalog.Entry) (string, error) {
		at, hash, counters, err := f.r.CatalogOf(ctx, path)
		return fmt.Sprintf("catalog_hash: %s\ncatalog_mountpoint: %s\n", hash, at) + counterList(counters), err
	}, nil},
}

// mounts is an attribute of the mount, which everything in it has.
func mounts(value func(f *fileSystem) string) attribute {
	return attribute{value: func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) { return value(f), nil }}
}

// files is an attribute of regular files.
func files(value func(e catalog.Entry) string) attribute {
	return attribute{func(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) { return value(e), nil }, regular}
}

// counted is an attribute that is known only where the kernel tells of opening
// and closing.
func counted(value func(c Counters) int64) attribute {
	return attribute{
		func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
			return decimal(value(f.counters())), nil
		},
		func(f *fileSystem, _ catalog.Entry) bool { return f.counters().Counted },
	}
}

func regular(_ *fileSystem, e catalog.Entry) bool { return e.IsRegular() }
func hashed(_ *fileSystem, e catalog.Entry) bool  { return !e.Hash.IsZero() }

var rawLink = attribute{
	func(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) { return e.Symlink, nil },
	func(_ *fileSystem, e catalog.Entry) bool { return e.IsSymlink() },
}

// localHash is the hash of what the cache has of a file.
func localHash(f *fileSystem, ctx ctx, path string, _ catalog.Entry) (string, error) {
	h, err := f.r.LocalHash(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return "Not in cache", nil
	}
	return h.String(), err
}

func metainfo(f *fileSystem, ctx ctx, _ string, _ catalog.Entry) (string, error) {
	text, err := f.r.ReadMetainfo(ctx)
	return string(text), err
}

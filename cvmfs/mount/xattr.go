package mount

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
)

const noData = fuse.Status(syscall.ENODATA)

func (f *fileSystem) GetXAttr(cancel <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	path, e, status := f.at(ctx, "getxattr", in.NodeId)
	if !status.Ok() {
		return 0, status
	}
	if e.HasXattrs {
		set, err := f.r.Xattrs(ctx, path)
		if err != nil {
			return 0, f.status("getxattr", path, err)
		}
		if value, ok := set[name]; ok {
			return fill(dest, value)
		}
	}
	value, ok, err := f.magicValue(ctx, name, path, e)
	switch {
	case err != nil:
		return 0, f.status("getxattr", path, err)
	case !ok:
		return 0, noData
	}
	return fill(dest, []byte(value))
}

// ListXAttr lists what the repository stores. Differs: the original lists the
// attributes it makes up on the mount's root by default (cvmfs:
// cvmfs/magic_xattr.cc), which a copy-up of overlayfs would then write to the
// disk; here they are there for whoever asks by name.
func (f *fileSystem) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	path, e, status := f.at(ctx, "listxattr", in.NodeId)
	if !status.Ok() || !e.HasXattrs {
		return 0, status
	}
	set, err := f.r.Xattrs(ctx, path)
	if err != nil {
		return 0, f.status("listxattr", path, err)
	}
	var list []byte
	for _, name := range slices.Sorted(maps.Keys(set)) {
		list = append(append(list, name...), 0)
	}
	return fill(dest, list)
}

func fill(dest, value []byte) (uint32, fuse.Status) {
	size := uint32(len(value)) //nolint:gosec // some kilobytes at most
	if len(dest) < len(value) {
		return size, fuse.ERANGE
	}
	copy(dest, value)
	return size, fuse.OK
}

// magic computes one attribute; an empty value means that it does not apply.
type magic func(f *fileSystem, ctx ctx, path string, e catalog.Entry) (string, error)

// magicAttributes are those of the original that say something here. Compat:
// names and forms are cvmfs/magic_xattr.cc's. Not there are user.lhash (the cache
// has the plain bytes, whose stored form another compressor need not make again),
// user.repo_metainfo, user.inode_max, user.ncleanup24, user.logbuffer and
// user.authz; nor what counts opening and closing, unless the mount is told to
// count it: the kernel does that alone otherwise.
var magicAttributes = map[string]magic{
	"user.fqrn": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) { return f.r.Name(), nil },
	"user.root_hash": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return f.r.RootHash().String(), nil
	},
	"user.revision": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return decimal(f.r.Revision()), nil
	},
	"user.tag":     func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) { return f.r.Tag(), nil },
	"user.version": func(*fileSystem, ctx, string, catalog.Entry) (string, error) { return client.CompatVersion, nil },
	"user.pid":     func(*fileSystem, ctx, string, catalog.Entry) (string, error) { return decimal(os.Getpid()), nil },
	"user.uptime": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return decimal(int(time.Since(f.started).Minutes())), nil
	},
	"user.nioerr": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return decimal(f.failures.Load()), nil
	},
	"user.ndownload": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return decimal(f.r.Stats().Objects), nil
	},
	"user.rx": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return decimal(f.r.Stats().Bytes / 1024), nil
	},
	"user.expires": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		if f.pinned {
			return "never (fixed root catalog)", nil
		}
		return decimal(int(f.r.TTL().Minutes())), nil
	},
	"user.host": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		servers, active := f.r.Link().Servers()
		return servers[active], nil
	},
	"user.host_list": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		servers, active := f.r.Link().Servers()
		return strings.Join(slices.Concat(servers[active:], servers[:active]), ";"), nil
	},
	"user.proxy": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		_, active, _ := f.r.Link().Proxies()
		return active, nil
	},
	"user.hash": func(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) { return e.Hash.String(), nil },
	"user.compression": func(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) {
		if !e.IsRegular() {
			return "", nil
		}
		return e.Compression.String(), nil
	},
	"user.external_file": func(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) {
		return flag(e, e.IsExternal()), nil
	},
	"user.direct_io": func(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) {
		return flag(e, e.DirectIO()), nil
	},
	"user.rawlink":    rawLink,
	"xfsroot.rawlink": rawLink,
	"user.chunks": func(f *fileSystem, ctx ctx, path string, e catalog.Entry) (string, error) {
		if !e.IsRegular() {
			return "", nil
		}
		chunks, err := f.r.Chunks(ctx, path)
		return decimal(max(1, len(chunks))), err
	},
	"user.chunk_list": func(f *fileSystem, ctx ctx, path string, e catalog.Entry) (string, error) {
		if !e.IsRegular() {
			return "", nil
		}
		chunks, err := f.r.Chunks(ctx, path)
		if err == nil && len(chunks) == 0 {
			chunks = []catalog.Chunk{{Size: e.Size, Hash: e.Hash}}
		}
		list := chunkHeader
		for _, c := range chunks {
			list += fmt.Sprintf("%s,%d,%d\n", c.Hash, c.Offset, c.Size)
		}
		return list, err
	},
	"user.catalog_counters": func(f *fileSystem, ctx ctx, path string, _ catalog.Entry) (string, error) {
		at, hash, counters, err := f.r.CatalogOf(ctx, path)
		return fmt.Sprintf("catalog_hash: %s\ncatalog_mountpoint: %s\n", hash, at) + counterList(counters), err
	},
	"user.repo_counters": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		counters, err := f.r.Counters()
		return counterList(counters), err
	},
	"user.nclg": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return decimal(f.r.Stats().Catalogs), nil
	},
	"user.hitrate": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return hitRate(f.r.Stats()), nil
	},
	"user.speed": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return speed(f.r.Stats()), nil
	},
	"user.maxfd":    func(*fileSystem, ctx, string, catalog.Entry) (string, error) { return maxFiles(), nil },
	"user.nopen":    counted(func(c Counters) int64 { return c.Opens }),
	"user.ndiropen": counted(func(c Counters) int64 { return c.DirOpens }),
	"user.usedfd":   counted(func(c Counters) int64 { return int64(c.OpenFiles) }),
	"user.useddirp": counted(func(c Counters) int64 { return int64(c.OpenDirs) }),
	"user.timestamp_last_ioerr": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return decimal(f.lastFailure.Load()), nil
	},
	"user.pubkeys": publicKeys,
	"user.proxy_list": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return proxyList(f.r.Link()), nil
	},
	"user.proxy_list_external": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		return proxyList(f.r.ExternalLink()), nil
	},
	"user.timeout": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		proxied, _ := f.r.Link().Timeouts()
		return decimal(int(proxied.Seconds())), nil
	},
	"user.timeout_direct": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		_, direct := f.r.Link().Timeouts()
		return decimal(int(direct.Seconds())), nil
	},
	"user.external_timeout": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		_, direct := f.r.ExternalLink().Timeouts()
		return decimal(int(direct.Seconds())), nil
	},
	"user.external_host": externalHost,
	"user.external_url": func(f *fileSystem, ctx ctx, path string, e catalog.Entry) (string, error) {
		host, err := externalHost(f, ctx, path, e)
		if host == "" || err != nil || !e.IsRegular() || !e.IsExternal() {
			return "", err
		}
		return host + path, nil
	},
}

func rawLink(_ *fileSystem, _ ctx, _ string, e catalog.Entry) (string, error) { return e.Symlink, nil }

func flag(e catalog.Entry, set bool) string {
	switch {
	case !e.IsRegular():
		return ""
	case set:
		return "1"
	}
	return "0"
}

func decimal[N int | int64 | uint64](n N) string {
	if n >= 0 {
		return strconv.FormatUint(uint64(n), 10)
	}
	return strconv.FormatInt(int64(n), 10)
}

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
	if magic, ok := magicAttributes[name]; ok {
		value, err := magic(f, ctx, path, e)
		switch {
		case err != nil:
			return 0, f.status("getxattr", path, err)
		case value != "":
			return fill(dest, []byte(value))
		}
	}
	return 0, noData
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
// names and forms are cvmfs/magic_xattr.cc's.
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
		servers, active := f.r.Servers()
		return servers[active], nil
	},
	"user.host_list": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		servers, active := f.r.Servers()
		return strings.Join(slices.Concat(servers[active:], servers[:active]), ";"), nil
	},
	"user.proxy": func(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
		_, active := f.r.Proxies()
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
		list := "hash,offset,size\n"
		for _, c := range chunks {
			list += fmt.Sprintf("%s,%d,%d\n", c.Hash, c.Offset, c.Size)
		}
		return list, err
	},
	"user.catalog_counters": func(f *fileSystem, ctx ctx, path string, _ catalog.Entry) (string, error) {
		at, hash, counters, err := f.r.CatalogOf(ctx, path)
		text := fmt.Sprintf("catalog_hash: %s\ncatalog_mountpoint: %s\n", hash, at)
		for _, name := range slices.Sorted(maps.Keys(counters)) {
			text += fmt.Sprintf("%s: %d\n", strings.Replace(name, "_", ",", 1), counters[name])
		}
		return text, err
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

package mount

import (
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
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

// ListXAttr lists what the repository stores, and where Options.Visible says so the
// magic attributes.
func (f *fileSystem) ListXAttr(cancel <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	ctx, done := f.callers.patient(cancel, in.Pid)
	defer done()
	path, e, status := f.at(ctx, "listxattr", in.NodeId)
	if !status.Ok() {
		return 0, status
	}
	names := f.magicNames(path, e)
	if e.HasXattrs {
		set, err := f.r.Xattrs(ctx, path)
		if err != nil {
			return 0, f.status("listxattr", path, err)
		}
		names = slices.AppendSeq(names, maps.Keys(set))
	}
	slices.Sort(names)
	var list []byte
	for _, name := range slices.Compact(names) {
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

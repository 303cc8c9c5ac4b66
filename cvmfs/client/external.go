package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
	"github.com/micavm/mica/cvmfs/client/internal/transfer"
)

// External says where the bytes of external files are: files of which the
// repository has all but the content. A server has them under their paths, as
// they are. The names of the original's parameters stand behind the fields.
type External struct {
	Servers         []string // base URLs in order of preference (CVMFS_EXTERNAL_URL)
	Proxies         string   // empty means DIRECT (CVMFS_EXTERNAL_HTTP_PROXY)
	FallbackProxies string   // (CVMFS_EXTERNAL_FALLBACK_PROXY)
	MaxServers      int      // 0 means all (CVMFS_EXTERNAL_MAX_SERVERS)

	// As for the repository's own servers, if they are 0
	// (CVMFS_EXTERNAL_TIMEOUT, CVMFS_EXTERNAL_TIMEOUT_DIRECT).
	Timeout, TimeoutDirect time.Duration
}

// newExternal makes the client for external files, which may have no server yet.
// What External does not say is as for the repository.
func newExternal(opt Options, cache *objectcache.Cache) (*transfer.Client, error) {
	e := opt.External
	opt.Servers, opt.Proxies = e.Servers, e.Proxies
	n := &opt.Network
	n.FallbackProxies, n.MaxServers, n.GeoOrder = e.FallbackProxies, e.MaxServers, false
	if e.Timeout > 0 {
		opt.Timeout = e.Timeout
	}
	if e.TimeoutDirect > 0 {
		n.TimeoutDirect = e.TimeoutDirect
	}
	return newTransfer(opt, cache, "-external."+opt.Name)
}

// purpose is what a server is told of why an object is wanted. Compat: what the
// header of CVMFS_SEND_INFO_HEADER says of a catalogue has the original's words
// (cvmfs: cvmfs/catalog_mgr_client.cc).
func (r *Repository) purpose(w want) string {
	if w.suffix == cvmfs.SuffixCatalog {
		return fmt.Sprintf("file catalog at %s:%s (%s)", r.opt.Name, display(w.path), w.hash)
	}
	return w.path
}

// fetch gets an object, or the part of an external file that stands for it.
func (r *Repository) fetch(ctx context.Context, w want, accept transfer.Accept) error {
	if r.opt.Network.SendInfo {
		ctx = transfer.For(ctx, r.purpose(w))
	}
	if !w.external {
		_, err := r.get(ctx, w.hash.ObjectPath(w.suffix), accept)
		return err
	}
	part := int64(0)
	if w.suffix == cvmfs.SuffixPartial {
		part = w.size
	}
	_, err := r.ext.GetPart(ctx, w.path[1:], w.offset, part, accept)
	if errors.Is(err, transfer.ErrNoServer) {
		return ErrExternal
	}
	return err
}

package publish

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/history"
)

// Info is what a repository says about itself.
type Info struct {
	Manifest  *cvmfs.Manifest
	Whitelist *cvmfs.Whitelist
	Tags      []history.Tag // newest revision first
	Counters  catalog.Counters
	Verified  error // nil if the signatures hold; ErrKeys if there was no key to tell
}

// ReadInfo reads a repository. keys may be nil. It takes no
// lock: it sees the revision before or after a publication.
func ReadInfo(ctx context.Context, root, name string, keys []*rsa.PublicKey, now func() time.Time) (*Info, error) {
	info, err := readInfo(ctx, root, name, keys, now)
	if err != nil {
		return nil, fmt.Errorf("reading repository %q: %w", name, err)
	}
	return info, nil
}

func readInfo(ctx context.Context, root, name string, keys []*rsa.PublicKey, now func() time.Time) (*Info, error) {
	s, err := openStorage(root, name)
	if err != nil {
		return nil, err
	}
	manifest, err := s.file(ctx, cvmfs.ManifestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoRepository, s.store)
	}
	if err != nil {
		return nil, err
	}
	whitelist, err := s.file(ctx, cvmfs.WhitelistFile)
	if err != nil {
		return nil, err
	}
	info := &Info{}
	if info.Manifest, err = cvmfs.ParseManifest(manifest); err != nil {
		return nil, err
	}
	if info.Whitelist, err = cvmfs.ParseWhitelist(whitelist); err != nil {
		return nil, err
	}
	info.Verified = ErrKeys
	if keys != nil {
		certificate, err := s.read(ctx, info.Manifest.Certificate, cvmfs.SuffixCertificate, maxSmall)
		if err == nil {
			_, err = cvmfs.Trust{Name: name, MasterKeys: keys, Now: now}.Verify(manifest, whitelist, certificate)
		}
		info.Verified = err
	}
	temp, err := os.MkdirTemp("", "mica-info-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) //nolint:errcheck // temporary
	if h := info.Manifest.History; !h.IsZero() {
		file, err := s.unpack(ctx, temp, h, cvmfs.SuffixHistory)
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		tags, err := history.Open(file)
		if err != nil {
			return nil, err
		}
		info.Tags = tags.Tags()
	}
	file, err := s.unpack(ctx, temp, info.Manifest.RootHash, cvmfs.SuffixCatalog)
	if err != nil {
		return nil, fmt.Errorf("root catalogue: %w", err)
	}
	c, err := catalog.Open(file)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // read only
	self, subtree, err := c.ReadCounters()
	info.Counters = self.Plus(subtree)
	return info, err
}

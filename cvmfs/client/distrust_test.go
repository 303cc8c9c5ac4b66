package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/internal/tier"
)

// Signed files that are wrong although each byte comes as it is: who starts with
// an empty cache gets nothing, who has seen revision 3 goes on with it and can say
// why.
func TestDistrust(t *testing.T) {
	tier.Full(t)
	want := cvmfstest.Expect(t, 3)
	for name, d := range cvmfstest.Distrusts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo := cvmfstest.Small(t)
			server := cvmfstest.NewRogue(t, repo.Dir)
			cause := d.Err
			if d.Seen {
				cause = client.ErrOutdated
			}
			r := open(t, options(t, server.Base))
			if r.News() != nil {
				t.Errorf("News of an honest server: %v", r.News())
			}
			d.Change(t, repo)
			if changed, err := r.Refresh(t.Context()); changed || !errors.Is(err, cause) || !strings.Contains(err.Error(), server.Base) {
				t.Errorf("Refresh = %v, %v, want %v with the server's name", changed, err, cause)
			}
			if !r.Offline() || !errors.Is(r.News(), cause) {
				t.Errorf("offline %v because of %v, want %v", r.Offline(), r.News(), cause)
			}
			compare(t, tree(t, r, ""), want)

			opt := options(t, server.Base)
			r, err := client.Open(t.Context(), opt)
			if err == nil {
				t.Cleanup(func() { _ = r.Close() })
			}
			if d.Seen { // nothing that the reader knows says otherwise
				if err != nil || r.RootHash() != mustHash(t, cvmfstest.RootHashes[2]) {
					t.Errorf("with an empty cache: %v", err)
				}
				return
			}
			if !errors.Is(err, cause) || !strings.Contains(err.Error(), server.Base) {
				t.Errorf("with an empty cache: %v, want %v with the server's name", err, cause)
			}
			if objects := cached(t, opt.CacheDir); len(objects) > 0 {
				t.Errorf("the cache has %v", objects)
			}
		})
	}
}

// A cache that knows revision 3 starts with it when the server is no good.
func TestDistrustAtStart(t *testing.T) {
	tier.Full(t)
	repo := cvmfstest.Small(t)
	opt := options(t, "file://"+repo.Dir)
	open(t, opt)
	for _, name := range []string{"expired whitelist", "rolled back"} {
		d := cvmfstest.Distrusts[name]
		d.Change(t, repo)
		r := open(t, opt)
		if r.Revision() != 3 || !errors.Is(r.News(), cvmfs.ErrExpired) && !errors.Is(r.News(), client.ErrOutdated) {
			t.Errorf("%s: revision %d, %v", name, r.Revision(), r.News())
		}
	}
}

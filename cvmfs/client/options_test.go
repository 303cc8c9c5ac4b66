package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/history"
)

// A date stands for the newest revision with a tag that is no younger; offline
// for the one it was the last time.
func TestDate(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	tags := tagsOf(t, repo)
	opt := options(t, serve(t, repo))
	for _, tag := range tags {
		want := tag
		for _, other := range tags {
			if other.Revision > want.Revision && !other.Time.After(tag.Time) {
				want = other
			}
		}
		opt.Pin.Date = tag.Time
		if r := open(t, opt); r.RootHash() != want.Hash || !r.Pinned() {
			t.Errorf("at %v: root %v, want that of %q, %v", tag.Time, r.RootHash(), want.Name, want.Hash)
		}
	}
	opt.Servers = []string{"http://127.0.0.1:1"}
	if r := open(t, opt); r.RootHash() != tags[len(tags)-1].Hash || !r.Offline() {
		t.Errorf("offline: root %v, want %v", r.RootHash(), tags[len(tags)-1].Hash)
	}
	opt = options(t, serve(t, repo))
	opt.Pin.Date = time.Unix(0, 0)
	if _, err := client.Open(t.Context(), opt); !errors.Is(err, client.ErrNoTag) {
		t.Errorf("before all revisions: %v, want ErrNoTag", err)
	}
}

// Without a server there is nothing to open, and never news, whatever the cache
// has and whatever revision is asked for.
func TestNoServer(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, serve(t, repo))
	root := open(t, opt).RootHash()
	opt.Servers = nil
	for _, pin := range []client.Pin{{}, {RootHash: root}} {
		opt.Pin = pin
		if _, err := client.Open(t.Context(), opt); !errors.Is(err, client.ErrNoServer) {
			t.Errorf("Open with %+v and no server = %v, want ErrNoServer", pin, err)
		}
	}
}

// tagsOf returns the tags of a repository, newest revision first.
func tagsOf(t testing.TB, repo string) []history.Tag {
	t.Helper()
	m, err := cvmfs.ParseManifest(archive(t, "repo.tar.gz")["/"+small+"/"+cvmfs.ManifestFile])
	if err != nil {
		t.Fatal(err)
	}
	h, err := history.Open(cvmfstest.Repo{Dir: repo}.Object(t, m.History, cvmfs.SuffixHistory))
	if err != nil {
		t.Fatal(err)
	}
	return h.Tags()
}

func TestOwners(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	opt := options(t, serve(t, repo))
	before, err := open(t, opt).Lookup(t.Context(), "/README")
	if err != nil {
		t.Fatal(err)
	}
	rest := uint32(1<<32 - 2)
	for what, test := range map[string]struct {
		owners   client.Owners
		uid, gid uint32
	}{
		"nothing":  {client.Owners{}, before.UID, before.GID},
		"a map":    {client.Owners{UIDs: client.IDMap{IDs: map[uint32]uint32{before.UID: 7}}}, 7, before.GID},
		"the rest": {client.Owners{UIDs: client.IDMap{IDs: map[uint32]uint32{before.UID: 7}, Rest: &rest}, GIDs: client.IDMap{Rest: &rest}}, 7, rest},
		"a claim":  {client.Owners{UIDs: client.IDMap{Rest: &rest}, Claim: &client.Owner{UID: 5, GID: 6}}, 5, 6},
	} {
		opt.Owners = test.owners
		r := open(t, opt)
		e, err := r.Lookup(t.Context(), "/README")
		if err != nil || e.UID != test.uid || e.GID != test.gid || e.Mode != before.Mode {
			t.Errorf("%s: Lookup = %+v, %v, want %d:%d", what, e, err, test.uid, test.gid)
		}
		list, err := r.ReadDir(t.Context(), "/")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Name == "README" && (e.UID != test.uid || e.GID != test.gid) {
				t.Errorf("%s: ReadDir has %+v, want %d:%d", what, e, test.uid, test.gid)
			}
		}
	}
	opt.Owners = client.Owners{WorldReadable: true}
	r := open(t, opt)
	if e, err := r.Lookup(t.Context(), "/"); err != nil || e.Mode&0o555 != 0o555 {
		t.Errorf("readable by the world: %o, %v", e.Mode, err)
	}
	list, err := r.ReadDir(t.Context(), "/bin")
	for _, e := range list {
		if !e.IsSymlink() && e.Mode&0o444 != 0o444 {
			t.Errorf("readable by the world: %s has %o", e.Name, e.Mode)
		}
	}
	if err != nil || len(list) == 0 {
		t.Errorf("ReadDir = %d entries, %v", len(list), err)
	}
}

// The time to live is the repository's, and no longer than one wants.
func TestMaxTTL(t *testing.T) {
	opt := options(t, serve(t, unpack(t, "repo.tar.gz")))
	own := open(t, opt).TTL()
	for limit, want := range map[time.Duration]time.Duration{time.Second: time.Second, 2 * own: own} {
		opt.MaxTTL = limit
		if got := open(t, opt).TTL(); got != want {
			t.Errorf("TTL with a limit of %v = %v, want %v", limit, got, want)
		}
	}
}

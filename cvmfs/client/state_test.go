package client_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/micavm/mica/cvmfs/cvmfstest"
)

// What is found out of the network lies in the cache, under the original's names,
// with nothing of its making beside it; and serves the next client.
func TestNetworkState(t *testing.T) {
	repo := unpack(t, "repo.tar.gz")
	one, two := cvmfstest.NewRogue(t, repo), cvmfstest.NewRogue(t, repo)
	opt := options(t, one.Base, two.Base)
	opt.Network.GeoOrder = true
	open(t, opt)
	uuid := filepath.Join(opt.CacheDir, "uuid")
	first, err := os.ReadFile(uuid)
	if err != nil {
		t.Fatal(err)
	}
	open(t, opt)
	if second, err := os.ReadFile(uuid); err != nil || string(second) != string(first) || len(first) != 37 {
		t.Errorf("uuid %q, %v, was %q", second, err, first)
	}
	entries, err := os.ReadDir(opt.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name()[0] == '.' {
			t.Errorf("left in the cache: %s", e.Name())
		}
	}
	if left, err := os.ReadDir(filepath.Join(opt.CacheDir, "txn")); err != nil || len(left) > 0 {
		t.Errorf("left in txn: %v, %v", left, err)
	}
}

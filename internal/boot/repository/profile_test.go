package repository_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/internal/boot/repository"
)

// booted reads what a boot might, and returns the profile of it.
func booted(t *testing.T, s *stand) *profile.Profile {
	t.Helper()
	s.start(t)
	s.boot(t)
	text, err := repository.Talk(t.Context(), s.config.CacheDir, "profile")
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse([]byte(text + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var bootFiles = []string{"/README", "/big/chunked"}

func (s *stand) boot(t *testing.T) {
	t.Helper()
	for _, file := range bootFiles {
		s.read(t, file)
	}
}

func TestProfile(t *testing.T) {
	s := newStand(t)
	p := booted(t, s)
	if p.Repository != small || p.Root.String() != smallRev || len(p.Objects) < 4 {
		t.Fatalf("profile of %q, root %s, %d objects", p.Repository, p.Root, len(p.Objects))
	}

	// The next machine finds it beside the manifest.
	pem, err := os.ReadFile(filepath.Join(s.files, "keys", small+".key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := cvmfs.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := cvmfs.SignText(p.Text(), cvmfs.SHA1, key)
	if err != nil {
		t.Fatal(err)
	}
	next := newStand(t)
	if err := os.WriteFile(filepath.Join(next.files, small, profile.Name), signed, 0o600); err != nil {
		t.Fatal(err)
	}
	next.config.Prefetch = true
	next.start(t)
	// The root catalogue and the history are there when the mount stands.
	isAhead := func(o profile.Object) bool { return o.Suffix == cvmfs.SuffixNone || o.Suffix == cvmfs.SuffixPartial }
	ahead := int64(len(slices.DeleteFunc(slices.Clone(p.Objects), func(o profile.Object) bool { return !isAhead(o) })))
	var status repository.Status
	for until := time.Now().Add(20 * time.Second); status.Ahead < ahead; time.Sleep(20 * time.Millisecond) {
		if status, err = repository.ReadStatus(t.Context(), next.config.CacheDir); err != nil || time.Now().After(until) {
			t.Fatalf("%d objects were fetched ahead, %v; want %d", status.Ahead, err, ahead)
		}
	}
	next.up.Store(false)
	next.boot(t) // without another request
}

func TestSlice(t *testing.T) {
	s := newStand(t)
	p := booted(t, s)
	file := filepath.Join(t.TempDir(), "slice")
	if err := os.WriteFile(file, cut(t, s, p), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	alone := newStand(t)
	alone.up.Store(false)
	alone.config.Slices = []string{other, "/nonesuch", file}
	ready := alone.start(t)
	if ready.RootHash != smallRev || ready.Tag != "rev3" {
		t.Errorf("Ready = %+v, want rev3", ready)
	}
	alone.boot(t)
	status, err := repository.ReadStatus(t.Context(), alone.config.CacheDir)
	if err != nil || status.Objects != 0 || status.Sliced < int64(len(p.Objects)) {
		t.Errorf("Status = %+v, %v; want everything from the slice", status, err)
	}
}

// cut makes a slice with a client of its own.
func cut(t *testing.T, s *stand, p *profile.Profile) []byte {
	t.Helper()
	keys, err := cvmfs.ParsePublicKeys([]byte(s.config.Keys[0]))
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Open(t.Context(), client.Options{
		Name: small, Servers: s.config.Servers, MasterKeys: keys, CacheDir: t.TempDir(), Pin: client.Pin{Tag: s.config.Tag},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	if err := r.WriteSlice(t.Context(), &out, p, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

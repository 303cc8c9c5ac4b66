package repository_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	status := next.prefetched(t)
	// The root catalogue, the history and the certificate are there when the mount stands.
	if got := status.Profile; got.Objects != len(p.Objects) || got.Fetched < len(p.Objects)-3 || got.Problem != "" || status.Ahead < int64(got.Fetched) {
		t.Fatalf("fetched ahead: %+v, %d in all; want %d objects", got, status.Ahead, len(p.Objects))
	}
	next.up.Store(false)
	next.boot(t) // without another request
}

// prefetched waits until all of the profile was fetched, or nothing will be.
func (s *stand) prefetched(t *testing.T) repository.Status {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, err := repository.ReadStatus(t.Context(), s.config.CacheDir)
		if err != nil || time.Now().After(until) {
			t.Fatalf("waiting for the profile: %+v, %v", status.Profile, err)
		}
		if status.Profile != nil && status.Profile.Done {
			return status
		}
	}
}

// TestForgedProfile has the boot go on without, and say so.
func TestForgedProfile(t *testing.T) {
	s := newStand(t)
	if err := os.WriteFile(filepath.Join(s.files, small, profile.Name), []byte("not a profile"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.config.Prefetch = true
	s.start(t)
	if got := s.prefetched(t); got.Profile.Fetched != 0 || got.Profile.Problem == "" {
		t.Errorf("with a forged profile: %+v, want nothing fetched and a problem", got.Profile)
	}
	s.boot(t)
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
	if ready.RootHash != smallRev || ready.Tag != "rev3" || !slices.Equal(ready.Slices, []string{file}) {
		t.Errorf("Ready = %+v, want rev3 and objects from the slice", ready)
	}
	if len(ready.Notes) != 2 || !strings.Contains(ready.Notes[0], other) || !strings.Contains(ready.Notes[1], "/nonesuch") {
		t.Errorf("Ready.Notes = %q, want that two files are left alone", ready.Notes)
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

package publish_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/publish"
)

// The profile beside a repository comes along, whether or not there is a new
// revision, and goes when the source has it no more. One that cannot be had, or
// is not signed, leaves the replica as it was.
func TestReplicateProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "a", "first")
	root := w.publish(t, nil).RootHash
	s := newStratum(t, w.storage)
	r := w.replica(t, s.URL+"/cvmfs/"+name)
	here, there := filepath.Join(r.repo(), profile.Name), filepath.Join(w.repo(), profile.Name)
	r.copy(t)
	if _, err := os.Stat(here); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a profile that the source does not have: %v", err)
	}
	p := &profile.Profile{Repository: name, Root: root, Recorded: clock}
	_, err := publish.AttachProfile(t.Context(), publish.ProfileOptions{Storage: w.storage, Name: name, Keys: w.keys, Now: w.clock}, p)
	must(t, err)
	signed := string(readFile(t, there))
	expect := func(what string, warned bool) {
		t.Helper()
		result := r.copy(t)
		if got := string(readFile(t, here)); got != signed {
			t.Errorf("%s: the replica's profile is %q", what, got)
		}
		if is := slices.ContainsFunc(result.Warnings, func(text string) bool { return strings.Contains(text, "profile") }); is != warned {
			t.Errorf("%s: warnings %q, want one of the profile: %v", what, result.Warnings, warned)
		}
	}
	expect("attached", false)
	must(t, os.WriteFile(there, []byte(strings.Replace(signed, name, "tree.example.net", 1)), 0o644))
	expect("tampered with", true)
	s.set(func(file string, _ int) int {
		if file == profile.Name {
			return http.StatusForbidden
		}
		return 0
	})
	expect("forbidden", true)
	s.set(nil)
	must(t, os.Remove(there))
	r.copy(t)
	if _, err := os.Stat(here); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a profile that the source has no more: %v", err)
	}
}

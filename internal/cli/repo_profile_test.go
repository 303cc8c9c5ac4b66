package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/cvmfs/slice"
	"github.com/micavm/mica/internal/cli"
)

// TestProfileCommands attaches, shows and slices a profile that was recorded by
// a client, as a machine's would be.
func TestProfileCommands(t *testing.T) {
	const name = "os.example.org"
	dir := t.TempDir()
	repo, keys, file := filepath.Join(dir, "storage", name), filepath.Join(dir, "keys"), filepath.Join(dir, "boot.profile")
	env := func(key string) string {
		return map[string]string{"MICA_HOME": filepath.Join(dir, "home"), "HOME": dir}[key]
	}
	mica := func(code int, words ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		got := cli.Main(t.Context(), cli.IO{In: strings.NewReader(""), Out: &out, Err: &errs, Env: env}, append([]string{"mica"}, words...))
		if got != code {
			t.Fatalf("mica %s ended with %d, want %d: %s", strings.Join(words, " "), got, code, &errs)
		}
		return out.String(), errs.String()
	}
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"init", "never"} {
		if err := os.WriteFile(filepath.Join(tree, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mica(0, "repo", "publish", tree, "--repo", filepath.Dir(repo), "--name", name, "--keys", keys)
	public := filepath.Join(keys, name+".pub")
	p := recordInit(t.Context(), t, repo, public)
	p.External = 3
	if err := os.WriteFile(file, p.Text(), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, errs := mica(4, "repo", "profile", "show", repo, "--key", public); !strings.Contains(errs, "profile record") {
		t.Errorf("show without a profile: %s", errs)
	}
	out, errs := mica(0, "repo", "profile", "show", file)
	if !strings.Contains(errs, "2 objects of "+name) || !strings.Contains(errs, "not in it: 3 external files") || !strings.Contains(out, "catalogue") {
		t.Errorf("show: %s%s", out, errs)
	}
	if _, errs := mica(0, "repo", "profile", "attach", repo, file, "--keys", keys); !strings.Contains(errs, "2 objects are fetched ahead") {
		t.Errorf("attach: %s", errs)
	}
	if again, _ := mica(0, "repo", "profile", "show", repo, "--key", public); again != out {
		t.Errorf("show of the repository's profile:\n%s\nwant\n%s", again, out)
	}

	cut := filepath.Join(dir, "os.slice")
	if _, errs := mica(0, "repo", "slice", repo, cut, "--key", public); !strings.Contains(errs, "not in it: 3 external files, which") {
		t.Errorf("slice: %s", errs)
	}
	data, err := os.ReadFile(cut)
	if err != nil {
		t.Fatal(err)
	}
	s, err := slice.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 7 { // the profile, manifest, whitelist, certificate, history, catalogue and /init
		t.Errorf("the slice has %d files, want 7", s.Len())
	}

	// Of another revision it would lead nowhere.
	if err := os.WriteFile(filepath.Join(tree, "more"), []byte("more"), 0o644); err != nil {
		t.Fatal(err)
	}
	mica(0, "repo", "publish", tree, "--repo", filepath.Dir(repo), "--name", name, "--keys", keys)
	if _, errs := mica(5, "repo", "slice", repo, cut, "--key", public); !strings.Contains(errs, "record it again") {
		t.Errorf("slice with an old profile: %s", errs)
	}
	if now, err := os.ReadFile(cut); err != nil || !bytes.Equal(now, data) {
		t.Error("a slice that was refused changed the file")
	}
	if _, errs := mica(2, "repo", "slice", repo, cut, "--key", public, "--profile", public); !strings.Contains(errs, "is no profile") {
		t.Errorf("slice with something else: %s", errs)
	}
}

// recordInit reads /init as a machine would.
func recordInit(ctx context.Context, t *testing.T, repo, public string) *profile.Profile {
	t.Helper()
	pem, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := cvmfs.ParsePublicKeys(pem)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Open(ctx, client.Options{
		Name: filepath.Base(repo), Servers: []string{"file://" + repo}, MasterKeys: key, CacheDir: t.TempDir(), Record: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, err := r.Open(ctx, "/init")
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.Recorded()
}

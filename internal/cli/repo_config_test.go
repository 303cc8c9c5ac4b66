package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/fail"
)

// A repository given by its name is read with the servers and keys that files of
// the CernVM-FS configuration name.
func TestRepositoryByName(t *testing.T) {
	repo, key := smallRepo(t)
	dir := t.TempDir()
	text := "# a comment\nCVMFS_SERVER_URL=\"file://" + filepath.Dir(repo) + "/@fqrn@\"\nCVMFS_PUBLIC_KEY=" + key + "\nCVMFS_REPOSITORY_TAG=rev2\n"
	if err := os.WriteFile(filepath.Join(dir, "default.local"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	const name = "small.peer.example"
	cache := filepath.Join(t.TempDir(), "cache")
	out, err := repoCommand(t, newRepoLs, name, "/", "--config", dir, "--cache", cache, "--output", "name")
	if err != nil || !strings.Contains(out, "README") {
		t.Fatalf("ls by name: %q, %v", out, err)
	}
	// The tag is the configuration's, unless the command line says otherwise.
	second, err := repoCommand(t, newRepoLs, repo, "/", "--key", key, "--tag", "rev2", "--cache", cache, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	third, err := repoCommand(t, newRepoLs, repo, "/", "--key", key, "--tag", "rev3", "--cache", cache, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	if second == third {
		t.Fatal("the two tags show the same")
	}
	for want, args := range map[string][]string{second: nil, third: {"--tag", "rev3"}} {
		got, err := repoCommand(t, newRepoLs, append([]string{name, "/", "--config", dir, "--cache", cache, "--output", "json"}, args...)...)
		if err != nil || got != want {
			t.Errorf("ls by name with %q: %v, shows another revision", args, err)
		}
	}
	// A URL takes the keys of its repository's configuration.
	if _, err := repoCommand(t, newRepoLs, repo, "/", "--config", dir, "--cache", cache); err != nil {
		t.Errorf("ls of a directory without --key: %v", err)
	}
}

func TestRepoConfig(t *testing.T) {
	out, err := repoCommand(t, newRepoConfig, "cernvm-prod.cern.ch", "--config", t.TempDir(), "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []configEntry `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, e := range list.Items {
		kinds[e.Kind]++
		if e.Origin == "" || strings.Contains(e.Value, "@fqrn@") {
			t.Errorf("entry %+v", e)
		}
	}
	if kinds["server"] != 8 || kinds["key"] != 3 || kinds["parameter"] < 10 {
		t.Errorf("entries by kind %v", kinds)
	}
	for args, class := range map[string]fail.Class{"sw.example.org": fail.NotFound, "nodomain": fail.Usage} {
		if _, err := repoCommand(t, newRepoConfig, args, "--config", t.TempDir()); fail.ClassOf(err) != class {
			t.Errorf("config %s: %v, want class %v", args, err, class)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "default.local"), []byte("CVMFS_SERVER_URL=$(curl http://x)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := repoCommand(t, newRepoConfig, "sw.example.org", "--config", dir); fail.ClassOf(err) != fail.Usage || !strings.Contains(err.Error(), "default.local:1") {
		t.Errorf("a command in a file: %v", err)
	}
}

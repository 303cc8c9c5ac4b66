package test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/profile"
	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/tier"
)

// repositoryStatus is what 'mica-guest status' says of the repository.
type repositoryStatus struct {
	Objects, Sliced, Ahead int
	Profile                *struct {
		Objects, Fetched int
		Done             bool
		Problem          string
	}
}

// waited is how many objects somebody had to wait for, who wanted them.
func (s repositoryStatus) waited() int { return s.Objects - s.Ahead }

func statusOf(m *mica, machine string) repositoryStatus {
	m.t.Helper()
	var status struct{ Repository repositoryStatus }
	if err := json.Unmarshal([]byte(m.ssh(machine, "root", stage.Program+" status")), &status); err != nil {
		m.t.Fatal(err)
	}
	m.t.Logf("repository of %s: %+v, profile %+v", machine, status.Repository, status.Repository.Profile)
	return status.Repository
}

// forgeProfile has the server offer a profile that somebody else signed.
func forgeProfile(t *testing.T, server *repositoryServer) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := profile.Profile{Repository: repositoryName, Root: cvmfs.SHA1.Sum(nil), Recorded: time.Now()}
	forged, err := cvmfs.SignText(p.Text(), cvmfs.SHA1, key)
	if err != nil {
		t.Fatal(err)
	}
	server.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if path.Base(r.URL.Path) != profile.Name {
			return false
		}
		_, _ = w.Write(forged)
		return true
	})
}

// recording is what one boot was good for.
type recording struct {
	profile, slice string
	without        repositoryStatus // of the boot that was recorded
}

// record makes a profile and a slice of what a machine has read. It has booted
// with the profile of forgeProfile, and must not have used it.
func record(t *testing.T, m *mica, machine string) recording {
	t.Helper()
	dir := t.TempDir()
	r := recording{filepath.Join(dir, "boot.profile"), filepath.Join(dir, "os.slice"), statusOf(m, machine)}
	if p := r.without.Profile; p == nil || !p.Done || p.Fetched != 0 || !strings.Contains(p.Problem, "signature") {
		t.Errorf("of the forged profile the machine says %+v, want that its signature is wrong", p)
	}
	m.run("repo", "profile", "record", machine, r.profile)
	m.run("repo", "slice", filepath.Join(assets(t), "repo", repositoryName), r.slice, "--profile", r.profile, "--key", publicKey(t))
	return r
}

func publicKey(t *testing.T) string {
	t.Helper()
	return filepath.Join(assets(t), "keys", repositoryName+".pub")
}

// bootAlongProfile attaches a profile to a copy of the repository and boots a
// machine from that: all objects come without anybody waiting for them.
func bootAlongProfile(t *testing.T, m *mica, server *repositoryServer, r recording) {
	storage := filepath.Join(t.TempDir(), "repo")
	command(t, "cp", "-a", server.dir, storage)
	m.run("repo", "profile", "attach", filepath.Join(storage, repositoryName), r.profile, "--keys", filepath.Join(assets(t), "keys"))
	server.stop()
	before, dir := server.count(), server.dir
	server.dir = storage
	server.start()
	defer func() {
		server.stop()
		server.dir = dir
		server.start()
	}()
	m.run("create", "demo", "../examples/demo.context", "--image", filepath.Join(assets(t), "mica.iso"))
	var status repositoryStatus
	eventually(t, "the profile is fetched", func() bool {
		status = statusOf(m, "demo")
		return status.Profile != nil && status.Profile.Done
	})
	if p := status.Profile; p.Problem != "" || p.Fetched < p.Objects*9/10 {
		t.Errorf("along the profile: %+v, want nine objects of ten fetched ahead at least", p)
	}
	if status.waited() > r.without.waited()/4 {
		t.Errorf("%d objects were waited for, and %d without a profile; want a quarter of that at most", status.waited(), r.without.waited())
	}
	t.Logf("requests of a boot with a profile: %d", server.count()-before)
	m.run("destroy", "--force", "demo")
}

// bootFromSlice boots a machine whose network leads nowhere, although the server
// is there: QEMU lets connections in, for SSH, and none out.
func bootFromSlice(t *testing.T, m *mica, server *repositoryServer, r recording) {
	dir, qemu := t.TempDir(), tier.Tool(t, "qemu-system-x86_64")
	script := "#!/bin/bash\nargs=()\nfor a; do [[ $a != user,id=* ]] || a+=,restrict=on; args+=(\"$a\"); done\nexec " + qemu + " \"${args[@]}\"\n"
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(qemu)), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	whole, err := os.ReadFile(r.slice)
	if err != nil {
		t.Fatal(err)
	}
	before := server.count()
	created := m.try("create", "demo", "../examples/demo.context", "--image", filepath.Join(assets(t), "mica.iso"), "--add-disk", r.slice)
	if created.code != 0 {
		t.Fatalf("create: exit code %d\n%s\n%s", created.code, created.stderr, m.serialTail())
	}
	for what, text := range map[string]string{"create": created.stderr, "logs": m.run("logs", "demo")} {
		if !strings.Contains(text, "from the slice on /dev/vdb") {
			t.Errorf("%s does not say where the operating system is from:\n%s", what, text)
		}
	}
	if status := statusOf(m, "demo"); status.Objects != 0 || status.Sliced < 100 || status.Profile != nil || server.count() != before {
		t.Errorf("repository: %+v, and %d requests; want everything from the slice", status, server.count()-before)
	}
	if got := m.run("ssh", "demo", "--", "id -un"); got != "demo\n" {
		t.Errorf("mica ssh logs in as %q", got)
	}
	m.run("destroy", "--force", "demo")
	if now, err := os.ReadFile(r.slice); err != nil || !bytes.Equal(now, whole) {
		t.Errorf("the slice was changed: %v", err)
	}
}

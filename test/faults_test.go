package test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/internal/stage"
)

// TestRepositoryFaultsAreTold boots machines whose repository must not be
// trusted or cannot be reached: create fails, and says which and what to do.
func TestRepositoryFaultsAreTold(t *testing.T) {
	server := newRepositoryServer(t)
	replace := func(suffix string, data []byte) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, suffix) {
				return false
			}
			_, _ = w.Write(data)
			return true
		}
	}
	manifest, err := os.ReadFile(filepath.Join(server.dir, repositoryName, cvmfs.ManifestFile))
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(manifest)
	forged[len(forged)-1] ^= 1

	iso := impatientImage(t)
	for _, tc := range []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool // nil: no server at all
		words []string
	}{
		{"server down", nil, []string{"repository", "refused"}},
		{"wrong signature", replace(cvmfs.ManifestFile, forged), []string{"repository", "signature"}},
		{"expired whitelist", replace(cvmfs.WhitelistFile, expiredWhitelist(t)), []string{"repository", "expired"}},
		{"wrong catalog bytes", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "C") {
				return false
			}
			_, _ = w.Write([]byte("x\x9cnot the catalog"))
			return true
		}, []string{"repository", "corrupt"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server.stop()
			if tc.fault != nil {
				server.misbehave(tc.fault)
				server.start()
			}
			m := newMica(t)
			r := m.fails(1, tc.words, "create", "faulty", "../examples/demo.context", "--image", iso, "--memory", "1024")
			if !strings.Contains(r.stderr, "hint: ") {
				t.Errorf("the failure has no remedy:\n%s", r.stderr)
			}
			m.run("destroy", "--force", "faulty")
		})
	}
}

// impatientImage builds an image that gives up on its repository after seconds.
func impatientImage(t *testing.T) string {
	t.Helper()
	dir := assets(t)
	port, err := os.ReadFile(filepath.Join(dir, "port"))
	if err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(t.TempDir(), "impatient.iso")
	newMica(t).run("image", "build", "-o", iso, "--repository", repositoryName, "--key", filepath.Join(dir, "keys", repositoryName+".pub"),
		"--url", "http://10.0.2.2:"+strings.TrimSpace(string(port))+"/cvmfs/"+repositoryName, "--cache", "../build/packages",
		"--guest", "../bin/mica-guest", "--append", "cvm_cvmfs_timeout=10")
	return iso
}

// expiredWhitelist signs the repository's whitelist with a past end.
func expiredWhitelist(t *testing.T) []byte {
	t.Helper()
	dir := assets(t)
	data, err := os.ReadFile(filepath.Join(dir, "repo", repositoryName, cvmfs.WhitelistFile))
	if err != nil {
		t.Fatal(err)
	}
	w, err := cvmfs.ParseWhitelist(data)
	if err != nil {
		t.Fatal(err)
	}
	w.Expires = time.Now().Add(-48 * time.Hour)
	pem, err := os.ReadFile(filepath.Join(dir, "keys", repositoryName+".masterkey"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := cvmfs.ParsePrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := w.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

const userNetwork = "user,id=n,restrict=off"

// TestForeignDisksAreNeverTouched gives a machine four disks that hold something
// and none that is free. The boot must stop, say why of each, and not have
// changed a byte.
func TestForeignDisksAreNeverTouched(t *testing.T) {
	disks := []string{
		disk(t, "ext4", 64, func(path string) { command(t, "mkfs.ext4", "-q", "-L", "home", path) }),
		disk(t, "swap", 64, func(path string) { command(t, "mkswap", path) }),
		disk(t, "gpt", 64, func(path string) { command(t, "sgdisk", "--new=1:2048:0", path) }),
		disk(t, "unknown", 2048, func(path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // a test's own file
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("somebody's data"), 4096); err != nil {
				t.Fatal(err)
			}
		}),
	}
	var args []string
	var before [][sha256.Size]byte
	for _, d := range disks {
		args = append(args, "-drive", "if=virtio,format=raw,file="+d)
		before = append(before, sum(t, d))
	}
	v := boot(t, args...)
	e := v.event("disk", stage.Failed)
	for _, word := range []string{"vda", "ext4", "vdb", "swap", "vdc", "vdd"} {
		if !strings.Contains(e.Detail+e.Remedy, word) {
			t.Errorf("the refusal does not say %q: %+v", word, e)
		}
	}
	if e.Remedy == "" {
		t.Error("the refusal has no remedy")
	}
	v.stop()
	for i, d := range disks {
		if sum(t, d) != before[i] {
			t.Errorf("%s was changed", filepath.Base(d))
		}
	}
}

func sum(t *testing.T, path string) (digest [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(path) //nolint:gosec // a test's own file
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	copy(digest[:], h.Sum(nil))
	return digest
}

// TestNoDiskOffersAShell boots without any disk: the failure names a remedy, and
// the shell it offers works.
func TestNoDiskOffersAShell(t *testing.T) {
	v := boot(t)
	e := v.event("disk", stage.Failed)
	if e.Detail == "" || e.Remedy == "" {
		t.Errorf("the failure lacks a cause or a remedy: %+v", e)
	}
	at := v.expect(0, `(?i)shell`)
	v.send("s\r")
	v.send("echo $((6*7))-$(busybox | head -n 1 | cut -d' ' -f1)\r")
	v.expect(at, `42-BusyBox`)
}

// TestNoNetworkIsStated boots with an empty disk and no network card. The
// repository cannot be reached; the console says that there is no network.
func TestNoNetworkIsStated(t *testing.T) {
	v := boot(t, "-drive", "if=virtio,format=raw,file="+disk(t, "empty", 4096, nil))
	if e := v.event("network", stage.Warned); !strings.Contains(e.Detail, "no") {
		t.Errorf("network stage: %+v, want a stated reason", e)
	}
	if e := v.event("repository", stage.Failed); e.Detail == "" || e.Remedy == "" {
		t.Errorf("repository stage: %+v, want a cause and a remedy", e)
	}
}

// TestNoContextBoots boots without any context: the system comes up all the
// same, and the debug entry of the menu lets one set a password and log in.
func TestNoContextBoots(t *testing.T) {
	server := newRepositoryServer(t)
	server.start()
	v := boot(t, "-drive", "if=virtio,format=raw,file="+disk(t, "empty", 8192, nil), "-netdev", userNetwork, "-device", "virtio-net-pci,netdev=n", "-m", "2048")
	at := v.expect(0, `(?i)debug`) // the menu
	v.send("\x1b[B\r")             // one entry down
	if e := v.event("context", stage.Skipped); e.Detail == "" {
		t.Errorf("context stage: %+v, want a reason", e)
	}
	at = v.expect(at, `(?i)shell[^\n]*\n(?s:.*)# `)
	v.send("reset_root_password correct-horse\r")
	at = v.expect(at, `(?i)password`)
	v.send("exit\r")
	v.event(stage.HandOver, stage.Done)
	at = v.expect(at, `login: `)
	v.send("root\r")
	at = v.expect(at, `Password: `)
	v.send("correct-horse\r")
	at = v.expect(at, `# `)
	v.send("echo pid1-is-$(cat /proc/1/comm)\r")
	v.expect(at, `pid1-is-systemd`)
}

package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/micavm/mica/internal/tier"
)

// TestBootKeys boots a machine whose context tells the boot loader everything
// that it takes: another tag, a folder of the repository, a proxy, a limited root
// file system, files to inject. The same context asks the agent for something that
// it cannot do: create fails and names it, and the rest is applied.
func TestBootKeys(t *testing.T) {
	t.Parallel()
	server := newRepositoryServer(t)
	server.dir = repositoryWithFolder(t, "cvm", "story")
	proxy := startProxy(t, server) // nothing listens at the server's own address
	m := newMica(t)
	context := write(t, t.TempDir(), "keys.context", fmt.Sprintf(`[amiconfig]
plugins=hostname cernvm

[hostname]
hostname=keyed.example.org

[cernvm]
users=good:good:%s,not/a/name:x:y

[ucernvm-begin]
cvmfs_tag=story
cernvm_path=cvm
cvmfs_http_proxy="http://10.0.2.2:1|http://10.0.2.2:%d;DIRECT"
resize_rootfs=off
cernvm_inject=%s
[ucernvm-end]
`, "$6$micademo$p2eYzj4iSZdeBwd.FALD244Aypqc2PCAWmItHfzIc012MjcILY69c4T6r484LaXIzpquecfblWYrjVLzhPISu0",
		proxy.port, base64.StdEncoding.EncodeToString(archive(t, map[string]string{"etc/injected.txt": "injected by the context\n"}))))

	m.fails(1, []string{"cernvm", "not/a/name"}, "create", "keyed", context, "--image", filepath.Join(assets(t), "mica.iso"), "--disk", "30G")
	eventually(t, "the machine lets root in", func() bool { return m.try("ssh", "--user", "root", "keyed", "--", "true").code == 0 })
	got := m.ssh("keyed", "root", `cat /etc/injected.txt; hostname -f; id -un good; id -un not/a/name; cat /mnt/.rw/aux/cvmfs_snapshot; echo
		findmnt -n -o OPTIONS / | tr , '\n' | grep lowerdir; ls -d /mnt/.ro/cvm/usr
		lsblk -rbno NAME,SIZE,LABEL /dev/vda; df -B1 --output=size /mnt/.rw | tail -1`)
	t.Logf("in the machine:\n%s", got)
	for _, want := range []string{
		"injected by the context\n", "keyed.example.org\n", "good\n", "\nstory\n", "/cvm\n", "/mnt/.ro/cvm/usr\n",
		"vda1 21474836480 UROOT\n", "\nvda2 ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("in the machine, %q is missing", want)
		}
	}
	if strings.Contains(got, "not/a/name") {
		t.Error("an impossible user was made")
	}
	if n := proxy.requests.Load(); n < 100 {
		t.Errorf("the proxy saw %d requests, want those of a whole boot", n)
	}
	m.run("destroy", "--force", "keyed")
}

// repositoryWithFolder returns a copy of the demo's repository whose newest
// revision has the operating system in a folder, as the original repositories do.
func repositoryWithFolder(t *testing.T, folder, tag string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("publishing a system's files needs root")
	}
	tier.Tool(t, "unshare")
	made := assets(t)
	dir := t.TempDir()
	repo, staging := filepath.Join(dir, "repo"), filepath.Join(dir, "staging")
	if err := os.MkdirAll(filepath.Join(staging, folder), 0o755); err != nil {
		t.Fatal(err)
	}
	// Objects never change, so links will do; what changes is replaced, not rewritten.
	script := `set -e
		mkdir "$2"
		cp -al "$1/repo/." "$2"
		mount --bind "$1/tree" "$3/$4"
		../bin/mica repo publish "$3" --repo "$2" --name "$5" --keys "$1/keys" --tag "$6" --cross-mounts`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script, "sh", made, repo, staging, folder, repositoryName, tag)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("publishing the system in a folder: %v\n%s", err, out)
	}
	return repo
}

// proxyServer is an HTTP proxy through which alone the repository can be reached.
type proxyServer struct {
	port     int
	requests atomic.Int64
}

func startProxy(t *testing.T, server *repositoryServer) *proxyServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxyServer{port: listener.Addr().(*net.TCPAddr).Port}
	files := http.StripPrefix("/cvmfs/", http.FileServer(http.Dir(server.dir)))
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, port, _ := strings.Cut(server.address, ":")
		if !r.URL.IsAbs() || r.URL.Host != "10.0.2.2:"+port { // not asked as a proxy, or for something else
			http.Error(w, "this is a proxy", http.StatusBadRequest)
			return
		}
		p.requests.Add(1)
		files.ServeHTTP(w, r)
	})}
	go func() { _ = proxy.Serve(listener) }()
	t.Cleanup(func() { _ = proxy.Close() })
	return p
}

// archive is a compressed tar of files.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	packed := gzip.NewWriter(&out)
	w := tar.NewWriter(packed)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/tier"
)

// TestDeliveries hands one context to machines in other ways than 'mica create'
// does. Both readers must find it: the boot code, and Debian's cloud-init.
func TestDeliveries(t *testing.T) {
	server := newRepositoryServer(t)
	server.start()
	_, port, _ := net.SplitHostPort(server.address)

	t.Run("a NoCloud medium", func(t *testing.T) {
		t.Parallel()
		m := newMica(t)
		key, public := keyPair(t)
		iso := filepath.Join(t.TempDir(), "seed.iso")
		m.run("context", "iso", "--layout", "nocloud", "--hostname", "seeded", "--instance-id", "nocloud-1", "--ssh-key", public,
			"--out", iso, bothReaders(t, m, ""))
		g := bootGuest(t, key, "10.0.2.2",
			"-drive", "if=none,id=seed,media=cdrom,format=raw,readonly=on,file="+iso, "-device", "ide-cd,bus=ide.1,drive=seed")
		g.says("nocloud\n", "NoCloud\n", "seeded\n", "nocloud-1\n")
	})

	t.Run("the metadata service of EC2", func(t *testing.T) {
		t.Parallel()
		m := newMica(t)
		if os.Getuid() != 0 {
			t.Skip("port 80 needs root")
		}
		key, public := keyPair(t)
		serveMetadata(t, m, bothReaders(t, m, "cvmfs_server=169.254.169.254:"+port), public)
		const id = "ec2f1e2d-3c4b-5a69-7887-a5b4c3d2e1f0"
		g := bootGuest(t, key, "169.254.169.254", "-smbios", "type=1,uuid="+id+",serial="+id)
		g.says("aws\n", "EC2\n", "served\n", "i-0123456789abcdef0\n")
	})
}

// bothReaders writes a context with parts for the boot loader, the agent and
// cloud-init.
func bothReaders(t *testing.T, m *mica, bootKeys string) string {
	t.Helper()
	dir := t.TempDir()
	return write(t, dir, "both.context", m.run("context", "mime",
		write(t, dir, "boot", "[ucernvm-begin]\n"+bootKeys+"\n[ucernvm-end]\n")+":ucernvm",
		write(t, dir, "cloud", "#cloud-config\ndisable_root: false\nwrite_files:\n  - path: /etc/from-cloud-config\n    content: cloud-config was here\n")+":cloud-config",
		write(t, dir, "script", "#!/bin/sh\necho the agent was here > /etc/from-agent\n")+":x-shellscript"))
}

// keyPair makes a key pair and returns the names of its two files.
func keyPair(t *testing.T) (private, public string) {
	t.Helper()
	private = filepath.Join(t.TempDir(), "key")
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private)
	return private, private + ".pub"
}

// guest is a machine that boots the demo's system and lets root in.
type guest struct {
	t    *testing.T
	vm   *vm
	port int
	key  string
}

// bootGuest boots a machine to which this computer is the given address, and
// waits until its context is applied.
func bootGuest(t *testing.T, key, host string, args ...string) *guest {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, port: listener.Addr().(*net.TCPAddr).Port, key: key}
	_ = listener.Close()
	network := host[:strings.LastIndex(host, ".")] + ".0/24"
	g.vm = boot(t, append([]string{
		"-m", "2048", "-drive", "if=virtio,format=raw,file=" + disk(t, "empty", 8192, nil), "-device", "virtio-net-pci,netdev=n",
		"-netdev", fmt.Sprintf("user,id=n,net=%s,host=%s,hostfwd=tcp:127.0.0.1:%d-:22", network, host, g.port),
	}, args...)...)
	if e := g.vm.event(stage.Apply, stage.Done); e.Facts["ssh_host_key"] == "" {
		t.Errorf("the machine did not tell its host key: %+v", e)
	}
	return g
}

// says checks what the machine knows of itself: cloud-init's source, the boot
// code's, the host name and the instance, in this order.
func (g *guest) says(words ...string) {
	g.t.Helper()
	got := g.ssh(`cloud-init status --wait >/dev/null; cloud-id; cat /mnt/.rw/context/source; hostname; cloud-init query instance_id
		cat /etc/from-cloud-config; echo; cat /etc/from-agent; grep -c instance_id /mnt/.rw/context/meta.json`)
	g.t.Logf("in the machine:\n%s", got)
	for _, word := range append(words, "cloud-config was here\n", "the agent was here\n") {
		if !strings.Contains(got, word) {
			g.t.Errorf("in the machine, %q is missing", word)
		}
	}
}

func (g *guest) ssh(line string) string {
	g.t.Helper()
	ssh := tier.Tool(g.t, "ssh")
	var out []byte
	eventually(g.t, "the machine lets root in", func() bool {
		cmd := exec.CommandContext(g.t.Context(), ssh, "-i", g.key, "-p", strconv.Itoa(g.port), "-o", "StrictHostKeyChecking=no", //nolint:gosec // a test
			"-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR", "root@127.0.0.1", line)
		var err error
		out, err = cmd.Output()
		return err == nil
	})
	return string(out)
}

// serveMetadata runs the metadata service for one machine where slirp reaches it.
func serveMetadata(t *testing.T, m *mica, context, public string) {
	t.Helper()
	keys, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal([]map[string]any{{
		"name": "served", "address": "127.0.0.1", "context": context, "instance_id": "i-0123456789abcdef0",
		"hostname": "served", "ssh_keys": []string{strings.TrimSpace(string(keys))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := m.command(t.Context(), "metadata", "serve", "--listen", "127.0.0.1:80", "--token-required",
		"--machines", write(t, t.TempDir(), "machines.json", string(list)))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("tcp", "127.0.0.1:80"); err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal("the metadata service does not listen")
		}
	}
}

package virtualbox_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
)

// TestRealGuest boots the demo's Debian under VirtualBox, with a folder of this
// computer in it. It is for a computer that has VirtualBox with its kernel
// module; in the interpreter of MICA_VBOX_ROOT it takes hours, and
// MICA_TEST_PATIENCE says how many it may.
//
//	scripts/demo-assets.sh
//	MICA_TEST=vbox-guest MICA_TEST_ASSETS=$PWD/build/demo go test -count=1 -v -timeout 0 -run TestRealGuest ./internal/machine/drivers/virtualbox
func TestRealGuest(t *testing.T) {
	chosen(t, "vbox-guest")
	assets := os.Getenv("MICA_TEST_ASSETS")
	port, err := os.ReadFile(filepath.Join(assets, "port"))
	if err != nil {
		t.Fatalf("MICA_TEST_ASSETS names no folder that scripts/demo-assets.sh has filled: %v", err)
	}
	patience := 10 * time.Minute
	if text := os.Getenv("MICA_TEST_PATIENCE"); text != "" {
		if patience, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	mica, err := filepath.Abs("../../../../bin/mica")
	if err != nil {
		t.Fatal(err)
	}
	program := fakevbox.Program
	if os.Getenv("MICA_VBOX_ROOT") != "" {
		program = enter(t).program
	}
	server := &http.Server{
		Addr: "127.0.0.1:" + strings.TrimSpace(string(port)), ReadHeaderTimeout: time.Minute,
		Handler: http.StripPrefix("/cvmfs/", http.FileServer(http.Dir(filepath.Join(assets, "repo")))),
	}
	served := make(chan error, 1)
	go func() { served <- server.ListenAndServe() }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving the repository: %v (is a demo running?)", err)
		}
	})

	home, share := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(share, "hello"), []byte("from this computer\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience+time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, mica, args...)
		cmd.Env = append(os.Environ(), "MICA_HOME="+home, "MICA_VBOXMANAGE="+program)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("mica %q: %v\n%s", args, err, stderr.String())
		}
		return string(out)
	}
	began := time.Now()
	t.Cleanup(func() {
		text, _ := os.ReadFile(filepath.Join(home, "machines", "guest", "serial.log"))
		t.Logf("after %.0f s the console has %d bytes and ends with:\n%s", time.Since(began).Seconds(), len(text), text[max(0, len(text)-2000):])
		run("destroy", "--force", "guest")
	})
	run("create", "guest", "../../../../examples/demo.context", "--driver", "virtualbox", "--image", filepath.Join(assets, "mica.iso"),
		"--share", "data="+share, "--memory", "1024", "--timeout", patience.String())
	got := run("ssh", "guest", "--", "cat /mnt/shared/data/hello; findmnt -no FSTYPE /mnt/shared/data; echo from the machine | sudo tee /mnt/shared/data/back")
	if want := "from this computer\nvboxsf\nfrom the machine\n"; got != want {
		t.Errorf("in the machine: %q, want %q", got, want)
	}
	if back, err := os.ReadFile(filepath.Join(share, "back")); string(back) != "from the machine\n" {
		t.Errorf("written in the machine: %q, %v", back, err)
	}
	run("stop", "guest")
	if list := run("list"); !strings.Contains(list, string(machine.Saved)) {
		t.Errorf("list after stop:\n%s", list)
	}
	run("start", "guest")
	if got := run("ssh", "guest", "--", "cat /mnt/shared/data/back"); got != "from the machine\n" {
		t.Errorf("in the machine that goes on: %q", got)
	}
}

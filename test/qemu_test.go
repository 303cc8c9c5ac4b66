package test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/tier"
)

// vm is a machine that a story drives by hand, without the command: for disks
// and devices that 'mica create' would never give one.
type vm struct {
	t       *testing.T
	cmd     *exec.Cmd
	conn    net.Conn
	mu      sync.Mutex // guards console
	console bytes.Buffer
	done    chan struct{} // closed when the console ends
}

// boot starts QEMU with the image as a CD and args, its serial port in our hands.
func boot(t *testing.T, args ...string) *vm {
	t.Helper()
	return power(t, append([]string{
		"-drive", "if=none,id=boot,media=cdrom,format=raw,readonly=on,file=" + filepath.Join(assets(t), "mica.iso"), "-device", "ide-cd,drive=boot,bootindex=0",
	}, args...)...)
}

// power is boot without the CD.
func power(t *testing.T, args ...string) *vm {
	t.Helper()
	return emulate(t, tier.Tool(t, "qemu-system-x86_64"), append([]string{"-machine", "q35"}, args...)...)
}

// emulate starts a program of QEMU.
func emulate(t *testing.T, qemu string, args ...string) *vm {
	t.Helper()
	socket := filepath.Join(shortDir(t), "serial")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	args = append([]string{
		"-accel", "tcg,thread=multi", "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-device", "virtio-rng-pci", "-serial", "unix:" + socket,
	}, args...)
	v := &vm{t: t, cmd: exec.CommandContext(t.Context(), qemu, args...), done: make(chan struct{})} //nolint:gosec // a test
	v.cmd.Stderr = os.Stderr
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.stop)
	if v.conn, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	go v.read()
	return v
}

// shortDir returns a folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "mica-vm-") //nolint:usetesting // the name of a test would be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (v *vm) read() {
	defer close(v.done)
	buf := make([]byte, 4096)
	for {
		n, err := v.conn.Read(buf)
		v.mu.Lock()
		v.console.Write(buf[:n])
		v.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (v *vm) text() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.console.String()
}

// stop ends the machine as a power cut does.
func (v *vm) stop() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
	_ = v.conn.Close()
	<-v.done
}

// expect waits until the console, from offset on, matches; it returns where the
// match ends.
func (v *vm) expect(from int, pattern string) int {
	v.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if at := re.FindStringIndex(v.text()[from:]); at != nil {
			return from + at[1]
		}
		select {
		case <-v.done:
			v.t.Fatalf("the machine ended before its console said %q:\n%s", pattern, tail(v.text()))
		default:
		}
	}
	v.t.Fatalf("the console never said %q:\n%s", pattern, tail(v.text()))
	return 0
}

// send types text. The pause keeps within what a serial line with a slow reader
// takes.
func (v *vm) send(text string) {
	v.t.Helper()
	for _, c := range []byte(text) {
		if _, err := v.conn.Write([]byte{c}); err != nil {
			v.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// event waits for a stage to reach a state.
func (v *vm) event(name string, state stage.State) stage.Event {
	v.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for line := range strings.Lines(v.text()) {
			if e, ok := stage.Parse(line); ok && e.Stage == name && e.State == state {
				return e
			}
		}
		select {
		case <-v.done:
			v.t.Fatalf("the machine ended before stage %q was %q:\n%s", name, state, tail(v.text()))
		default:
		}
	}
	v.t.Fatalf("stage %q was never %q:\n%s", name, state, tail(v.text()))
	return stage.Event{}
}

func tail(text string) string {
	if len(text) > 6000 {
		text = text[len(text)-6000:]
	}
	return text
}

// disk makes a sparse file of that many MiB and lets fill write into it.
func disk(t *testing.T, name string, mib int64, fill func(path string)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path) //nolint:gosec // a test's own file
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		fill(path)
	}
	return path
}

// command runs a tool that must succeed.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), tier.Tool(t, name), args...).CombinedOutput(); err != nil { //nolint:gosec // a test
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

package fakeqemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/machine/bootsector"
)

// The names by which a test binary knows that it is to be QEMU.
const (
	Program    = "qemu-system-x86_64"
	ProgramARM = "qemu-system-aarch64"
)

// Is reports whether a program's first argument names a QEMU.
func Is(arg string) bool {
	name := filepath.Base(arg)
	return name == Program || name == ProgramARM
}

func arm() bool { return filepath.Base(os.Args[0]) == ProgramARM }

// Faults, named in MICA_FAKE_QEMU, or in a file beside the program that has its
// name and FaultSuffix.
const (
	FaultSandbox  = "no-sandbox"     // built without seccomp
	FaultInternal = "internal-error" // KVM gives up on the guest
	FaultDeaf     = "deaf"           // quit is not heard
	FaultSave     = "save-fails"     // memory cannot be written
	FaultMemory   = "no-memory"      // the host has too little
	FaultMounted  = "shares-mounted" // the guest has its shared folders mounted
	FaultUntold   = "shares-untold"  // the same, and an old QEMU says so only when memory is written
	FaultNo9P     = "no-9p"          // built without
)

// FaultSuffix is what the name of a file with a fault ends in.
const FaultSuffix = ".fault"

// fault is what goes wrong with this one.
func fault() string {
	if data, err := os.ReadFile(os.Args[0] + FaultSuffix); err == nil {
		return string(data)
	}
	return os.Getenv("MICA_FAKE_QEMU")
}

const child = "MICA_FAKE_QEMU_CHILD"

// lifetime ends what a failed test forgot.
const lifetime = 3 * time.Minute

// Main is the program; args are without its name.
func Main(args []string) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Println("QEMU emulator version 7.2.99 (fake)\nCopyright (c) nobody") //nolint:forbidigo // a program
		return 0
	}
	o, err := parse(args)
	if err == nil && os.Getenv(child) == "" {
		return daemonize()
	}
	v := &vm{options: o, fault: fault(), status: "running", fds: map[string]*os.File{}, ports: map[string]net.Listener{}}
	if err == nil {
		err = v.setUp()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Program, err)
		return 1
	}
	if err := os.Chdir("/"); err != nil {
		return 1
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 1
	}
	for fd := range 3 {
		_ = dup(int(null.Fd()), fd)
	}
	ready := os.NewFile(3, "ready")
	_, _ = ready.Write([]byte{1})
	_ = ready.Close()
	return v.serve()
}

// daemonize runs this program once more in a session of its own and ends when
// that one is set up.
func daemonize() int {
	self, err := os.Executable()
	if err != nil {
		return 1
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 1
	}
	cmd := exec.Command(self) //nolint:noctx // outlives this process
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = session
	if err := cmd.Start(); err != nil {
		return 1
	}
	_ = w.Close()
	if n, _ := r.Read(make([]byte, 1)); n == 1 {
		return 0
	}
	_ = cmd.Wait()
	return 1
}

// options is a command line: values by option, in order.
type options map[string][]string

var known = map[string]bool{ // whether it takes a value
	"-name": true, "-uuid": true, "-nodefaults": false, "-no-user-config": false, "-display": true, "-machine": true,
	"-accel": true, "-cpu": true, "-smp": true, "-m": true, "-rtc": true, "-pidfile": true, "-daemonize": false,
	"-sandbox": true, "-chardev": true, "-mon": true, "-serial": true, "-blockdev": true, "-device": true,
	"-netdev": true, "-object": true, "-incoming": true, "-S": false, "-vnc": true, "-fsdev": true,
	"-boot": true, "-global": true,
}

func parse(args []string) (options, error) {
	o := options{}
	for i := 0; i < len(args); i++ {
		takes, ok := known[args[i]]
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: invalid option", args[i])
		case !takes:
			o[args[i]] = append(o[args[i]], "")
		case i+1 == len(args):
			return nil, fmt.Errorf("%s: requires an argument", args[i])
		default:
			o[args[i]] = append(o[args[i]], args[i+1])
			i++
		}
	}
	if o["-daemonize"] == nil || o["-pidfile"] == nil || o["-nodefaults"] == nil {
		return nil, errors.New("this fake wants -daemonize, -pidfile and -nodefaults")
	}
	return o, nil
}

// list reads QEMU's key=value list, in which a doubled comma stands for one.
func list(text string) map[string]string {
	const comma = "\x00"
	values := map[string]string{}
	for i, part := range strings.Split(strings.ReplaceAll(text, ",,", comma), ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok && i == 0 {
			key, value = "", part
		}
		values[key] = strings.ReplaceAll(value, comma, ",")
	}
	return values
}

// vm is the machine.
type vm struct {
	options options
	fault   string
	pid     *os.File // locked for as long as it is open
	log     *os.File
	images  []string
	nodes   []string
	open    []*os.File // images

	mu      sync.Mutex // guards what follows
	status  string
	guest   bootsector.Run
	fds     map[string]*os.File
	moved   string // result of the last migration
	serial  net.Conn
	off     bool
	monitor []net.Listener
	ports   map[string]net.Listener // forwarded, by host address
}

var forward = regexp.MustCompile(`hostfwd=tcp:(127\.0\.0\.1:\d+)-:(\d+)`)

// setUp does what QEMU does before its parent ends.
func (v *vm) setUp() error {
	if v.options["-sandbox"] != nil && v.fault == FaultSandbox {
		return errors.New("-sandbox on: sandbox support is not enabled in this QEMU binary")
	}
	accel := list(v.options["-accel"][0])[""]
	if accel != "tcg" && accel != "kvm" {
		return fmt.Errorf("-accel %s: invalid accelerator", accel)
	}
	if v.fault == FaultMemory {
		return errors.New("cannot set up guest memory 'pc.ram': Cannot allocate memory")
	}
	if accel == "kvm" && v.fault == FaultInternal {
		v.status = "internal-error"
	}
	if err := v.lockPID(v.options["-pidfile"][0]); err != nil {
		return err
	}
	for _, text := range v.options["-chardev"] {
		if err := v.chardev(list(text)); err != nil {
			return fmt.Errorf("-chardev %s: %w", text, err)
		}
	}
	for _, text := range v.options["-fsdev"] {
		if err := v.fsdev(list(text)); err != nil {
			return err
		}
	}
	for _, text := range v.options["-blockdev"] {
		if err := v.blockdev(text); err != nil {
			return fmt.Errorf("-blockdev %s: %w", text, err)
		}
	}
	if err := v.flash(); err != nil {
		return err
	}
	for _, m := range forward.FindAllStringSubmatch(v.options["-netdev"][0], -1) {
		if err := v.listen(m[1], m[2]); err != nil {
			return fmt.Errorf("-netdev %s: %w", v.options["-netdev"][0], err)
		}
	}
	if v.options["-incoming"] != nil {
		v.status = "inmigrate"
	}
	return nil
}

// listen forwards a port.
func (v *vm) listen(address, guestPort string) error {
	l, err := net.Listen("tcp", address) //nolint:noctx // lives as long as the process
	if err != nil {
		return fmt.Errorf("Could not set up host forwarding rule 'tcp:%s-:%s'", address, guestPort) //nolint:staticcheck // QEMU's words
	}
	v.ports[address] = l
	go v.greet(l, guestPort)
	return nil
}

func (v *vm) lockPID(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot create PID file: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
		return errors.New("cannot create PID file: cannot lock pid file: Resource temporarily unavailable")
	}
	v.pid = f
	_ = f.Truncate(0)
	_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	return err
}

func (v *vm) chardev(c map[string]string) error {
	if c[""] != "socket" || c["server"] != "on" || c["wait"] != "off" {
		return errors.New("this fake wants socket,server=on,wait=off")
	}
	_ = os.Remove(c["path"])
	l, err := net.Listen("unix", c["path"]) //nolint:noctx // lives as long as the process
	if err != nil {
		return fmt.Errorf("Failed to bind socket to %s: %w", c["path"], err) //nolint:staticcheck // QEMU's words
	}
	if c["logfile"] != "" {
		if c["logappend"] != "on" {
			return errors.New("this fake wants logappend=on")
		}
		if v.log, err = os.OpenFile(c["logfile"], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640); err != nil {
			return err
		}
		go v.serveSerial(l)
		return nil
	}
	v.monitor = append(v.monitor, l)
	return nil
}

func (v *vm) fsdev(o map[string]string) error {
	if v.fault == FaultNo9P {
		return errors.New("-fsdev local: There is no option group 'fsdev'")
	}
	if o[""] != "local" || o["security_model"] != "none" {
		return errors.New("-fsdev: this fake wants local,security_model=none")
	}
	if info, err := os.Stat(o["path"]); err != nil || !info.IsDir() {
		return fmt.Errorf("-device virtio-9p-pci: cannot initialize fsdev '%s': failed to open '%s'", o["id"], o["path"])
	}
	return nil
}

// held is why memory cannot be written now, or empty.
func (v *vm) held() string {
	if len(v.options["-fsdev"]) == 0 || v.fault != FaultMounted && v.fault != FaultUntold {
		return ""
	}
	return "Migration is disabled when VirtFS export path '" + list(v.options["-fsdev"][0])["path"] + "' is mounted in the guest using mount_tag 'x'"
}

// blockdev opens an image. What the machine boots is in the drive, or on the
// disk if there is none.
func (v *vm) blockdev(text string) error {
	var b struct {
		Driver string
		Node   string `json:"node-name"`
		Only   bool   `json:"read-only"`
		File   struct{ Filename string }
	}
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return err
	}
	mode := os.O_RDWR
	if b.Only {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(b.File.Filename, mode, 0)
	if err != nil {
		return fmt.Errorf("Could not open '%s': %w", b.File.Filename, err) //nolint:staticcheck // QEMU's words
	}
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); b.Driver == "qcow2" && (err != nil || string(magic) != "QFI\xfb") {
		return errors.New("Image is not in qcow2 format") //nolint:staticcheck // QEMU's words
	}
	if !b.Only {
		if err := lock(f, unix.F_WRLCK); err != nil {
			return fmt.Errorf("Failed to get \"write\" lock\nIs another process using the image [%s]?", b.File.Filename) //nolint:staticcheck // QEMU's words
		}
	}
	v.images = append(v.images, b.File.Filename)
	v.nodes = append(v.nodes, b.Node)
	v.open = append(v.open, f)
	if b.Node == "image" || b.Node == "disk" && !slices.Contains(v.nodes, "image") {
		v.guest, err = bootsector.Load(f)
	}
	return err
}

// flash wants the nodes that the machine's firmware is to be in.
func (v *vm) flash() error {
	machine := list(v.options["-machine"][0])
	kind := "pc"
	if arm() {
		kind = "virt"
	}
	if name := machine[""]; !strings.HasPrefix(name, kind) && (name != "q35" || arm()) {
		return fmt.Errorf("-machine %s: unsupported machine type", name)
	}
	for _, chip := range []string{"pflash0", "pflash1"} {
		if node := machine[chip]; node != "" && !slices.Contains(v.nodes, node) {
			return fmt.Errorf("Property 'pc-q35-7.2-machine.%s' can't find value '%s'", chip, node) //nolint:staticcheck // QEMU's words
		} else if node == "" && arm() {
			return errors.New("this fake wants firmware")
		}
	}
	return nil
}

// serve runs the machine to its end.
func (v *vm) serve() int {
	for _, l := range v.monitor {
		go v.serveMonitor(l)
	}
	folder := filepath.Dir(v.options["-pidfile"][0])
	began := time.Now()
	for {
		v.mu.Lock()
		off := v.off
		if v.status == "running" {
			for _, text := range v.guest.Tick() {
				v.write(text)
			}
		}
		v.mu.Unlock()
		if _, err := os.Stat(folder); err != nil || off || time.Since(began) > lifetime {
			_ = os.Remove(v.options["-pidfile"][0])
			return 0
		}
		time.Sleep(bootsector.Tick)
	}
}

// write puts guest output on the serial port; the lock is held.
func (v *vm) write(text string) {
	_, _ = io.WriteString(v.log, text)
	if v.serial != nil {
		_, _ = io.WriteString(v.serial, text)
	}
}

// serveSerial lets one client at a time talk to the guest, which echoes.
func (v *vm) serveSerial(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		v.mu.Lock()
		v.serial = conn
		v.mu.Unlock()
		buf := make([]byte, 1024)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				break
			}
			v.mu.Lock()
			if v.status == "running" {
				v.write(string(buf[:n]))
			}
			v.mu.Unlock()
		}
		v.mu.Lock()
		v.serial = nil
		v.mu.Unlock()
		_ = conn.Close()
	}
}

// greet is a forwarded port: it accepts at once, as QEMU's user network does,
// and talks when the guest is up.
func (v *vm) greet(l net.Listener, guestPort string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for guestPort == "22" {
				v.mu.Lock()
				up := v.guest.Up() && v.status == "running"
				v.mu.Unlock()
				if up {
					_, _ = io.WriteString(conn, "SSH-2.0-fake\r\n")
					break
				}
				time.Sleep(bootsector.Tick)
			}
			_, _ = conn.Read(make([]byte, 1))
		}()
	}
}

package fakevbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/machine/bootsector"
)

// lifetime ends what a failed test forgot.
const lifetime = 3 * time.Minute

// request is what VBoxManage asks of a machine's process.
type request struct {
	Do   string
	Args []string
}

type answer struct {
	Text, Code string
	Data       json.RawMessage
}

func (f *fake) lockPath(id string) string { return filepath.Join(f.dir, id+".alive") }

// alive reports whether the machine's process lives.
func (f *fake) alive(id string) bool {
	lock, err := os.Open(f.lockPath(id))
	if err != nil {
		return false
	}
	defer lock.Close()
	return unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// ask lets the machine's process do something and waits for it.
func (f *fake) ask(id string, r request, result any) error {
	dir, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// A socket's path has some hundred bytes at most.
	conn, err := new(net.Dialer).DialContext(f.ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s.sock", dir.Fd(), id))
	if err != nil {
		return refuse("VBOX_E_INVALID_VM_STATE", "Machine '%s' is not currently running.", id)
	}
	defer conn.Close()
	defer context.AfterFunc(f.ctx, func() { _ = conn.Close() })()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return err
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return refuse("E_FAIL", "The machine's process ended")
	}
	if a.Text != "" {
		return refuse(a.Code, "%s", a.Text)
	}
	if result != nil {
		return json.Unmarshal(a.Data, result)
	}
	return nil
}

func (f *fake) startvm(args []string) error {
	o, rest, err := flags(args, map[string]int{"--type": 1})
	if err != nil {
		return err
	}
	id := strings.Join(rest, " ")
	switch first(o, "--type") {
	case "headless", "gui":
	case "emergencystop":
		if f.config.Style != Style72 {
			return unknown("Invalid session type '%s'", first(o, "--type"))
		}
		return f.stop(id)
	default:
		return unknown("Invalid session type '%s'", first(o, "--type"))
	}
	if f.config.Lie {
		f.printf("VM \"%s\" has been successfully started.\n", id)
		return nil
	}
	err = f.update(func(s *state) error {
		v, err := s.change(id)
		if err != nil {
			return err
		}
		for slot, path := range v.Slots {
			if _, err := os.Stat(path); err != nil {
				return refuse("VBOX_E_FILE_ERROR", "Could not open the medium '%s' in %s (VERR_FILE_NOT_FOUND)", path, slot)
			}
		}
		if v.State == "saved" || v.State == "aborted-saved" {
			v.State = "restoring"
		} else {
			v.State = "starting"
		}
		return f.spawn(v.UUID)
	})
	if err != nil {
		return err
	}
	for range int(lifetime / (10 * time.Millisecond)) {
		s, err := f.load() // the file is replaced whole: no lock is needed to read it
		if err != nil {
			return err
		}
		v := s.machine(id)
		if v == nil {
			return refuse("E_FAIL", "The machine is gone")
		}
		if now := v.State; now != "starting" && now != "restoring" {
			if now != "running" && now != "paused" {
				return refuse("NS_ERROR_FAILURE", "The virtual machine '%s' has terminated unexpectedly during startup with exit code 1 (0x1)", id)
			}
			f.printf("VM \"%s\" has been successfully started.\n", id)
			return nil
		}
		if !f.wait(10 * time.Millisecond) {
			return errEnded
		}
	}
	return refuse("E_FAIL", "Timeout")
}

// spawn starts the machine's process and waits until it holds its lock.
func (f *fake) spawn(id string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(filepath.Join(f.dir, Process), id) //nolint:noctx // outlives this process
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // where this is no process that ends soon
	_ = w.Close()
	if n, _ := r.Read(make([]byte, 1)); n != 1 {
		return refuse("NS_ERROR_FAILURE", "The virtual machine has terminated unexpectedly during startup")
	}
	return nil
}

// stop kills the machine's process.
func (f *fake) stop(id string) error {
	data, err := os.ReadFile(f.lockPath(id))
	var pid int
	if _, serr := fmt.Sscan(string(data), &pid); err != nil || serr != nil || !f.alive(id) {
		return refuse("VBOX_E_INVALID_OBJECT_STATE", "The machine '%s' is not locked by a session", id)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	for f.alive(id) {
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

func (f *fake) controlvm(args []string) error {
	if len(args) < 2 {
		return unknown("controlvm takes a machine and a command")
	}
	id, verb, rest := args[0], args[1], args[2:]
	counts := map[string]int{"pause": 0, "resume": 0, "poweroff": 0, "savestate": 0, "acpipowerbutton": 0, "screenshotpng": 1, "natpf1": 1}
	want, ok := counts[verb]
	if verb == "natpf1" && len(rest) > 0 && rest[0] == "delete" {
		want = 2
	}
	if !ok || len(rest) != want {
		return unknown("Invalid parameter '%s'", verb)
	}
	if err := f.update(func(s *state) error {
		v, err := s.find(id)
		if err != nil {
			return err
		}
		if !v.live() {
			return &failure{fmt.Sprintf("Machine '%s' is not currently running.", id), "", 1}
		}
		return nil
	}); err != nil {
		return err
	}
	return f.ask(id, request{Do: verb, Args: rest}, nil)
}

// live is a machine's process.
type live struct {
	*fake
	id, folder string

	mu        sync.Mutex // guards what follows
	guest     bootsector.Run
	paused    bool
	serial    io.Writer
	listeners map[string]net.Listener // by rule
	over      string                  // the state it ends in
}

func (f *fake) process(args []string) int {
	l := &live{fake: f, id: args[0], listeners: map[string]net.Listener{}, serial: io.Discard}
	lock, err := os.OpenFile(f.lockPath(l.id), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 1
	}
	for try := 0; unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; try++ {
		if try > 1000 { // the process of last time ends
			return 1
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = lock.Truncate(0)
	_, _ = fmt.Fprintln(lock, os.Getpid())
	if err := os.Chdir(f.dir); err != nil {
		return 1
	}
	_ = os.Remove(l.id + ".sock")
	sock, err := net.Listen("unix", l.id+".sock") //nolint:noctx // lives as long as the process
	if err != nil {
		return 1
	}
	ready := os.NewFile(3, "ready")
	_, _ = ready.Write([]byte{1})
	_ = ready.Close()
	if f.config.Dialog {
		time.Sleep(lifetime)
		return 1
	}
	time.Sleep(time.Duration(f.config.Slow["start"]) * time.Millisecond)
	if err := f.update(l.setUp); err != nil {
		return 1
	}
	go func() {
		for {
			conn, err := sock.Accept()
			if err != nil {
				return
			}
			l.converse(conn)
		}
	}()
	return l.serve()
}

// setUp does what a machine does before it runs.
func (l *live) setUp(s *state) error {
	v, err := s.find(l.id)
	if err != nil {
		return err
	}
	l.folder = v.Folder
	log, err := os.Create(filepath.Join(v.Folder, "Logs", "VBox.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	_, _ = fmt.Fprintf(log, "00:00:00.1 VirtualBox VM fake\n")
	if v.Memory != nil {
		l.guest, v.Memory = *v.Memory, nil
	} else if image := v.Slots["IDE-0-0"]; image != "" && v.Props["boot1"] == "dvd" {
		disc, err := os.Open(image)
		if err != nil {
			return err
		}
		l.guest, err = bootsector.Load(disc)
		_ = disc.Close()
		if err != nil {
			return err
		}
	}
	if path, ok := strings.CutPrefix(v.Props["uartmode1"], "file,"); ok && v.Props["uart1"] != "off" {
		if l.serial, err = os.Create(path); err != nil { // emptied each time, as VirtualBox does
			return err
		}
	}
	for _, r := range v.Rules {
		if err := l.forward(r); err != nil {
			parts := strings.Split(r, ",")
			_, _ = fmt.Fprintf(log, "00:00:05.9 VMSetError: NAT#0: configuration error: failed to set up redirection of %s to %s. Probably a conflict with existing services or other rules\n", parts[3], parts[5])
		}
	}
	v.State, v.Session = "running", "headless"
	return nil
}

// forward is a forwarded port: it accepts at once and talks when the guest is up.
func (l *live) forward(rule string) error {
	parts := strings.Split(rule, ",")
	if slices.ContainsFunc(l.config.LosePorts, func(p int) bool { return fmt.Sprint(p) == parts[3] }) {
		return errors.New("lost")
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(parts[2], parts[3])) //nolint:noctx // lives as long as the process
	if err != nil {
		return err
	}
	l.listeners[parts[0]] = ln
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for parts[5] == "22" {
					l.mu.Lock()
					up := l.guest.Up() && !l.paused
					l.mu.Unlock()
					if up {
						_, _ = io.WriteString(conn, "SSH-2.0-fake\r\n")
						break
					}
					time.Sleep(bootsector.Tick)
				}
				_, _ = conn.Read(make([]byte, 1))
			}()
		}
	}()
	return nil
}

// serve runs the machine to its end.
func (l *live) serve() int {
	began := time.Now()
	for {
		l.mu.Lock()
		over := l.over
		if over == "" && !l.paused {
			for _, text := range l.guest.Tick() {
				_, _ = io.WriteString(l.serial, text)
			}
		}
		l.mu.Unlock()
		if _, err := os.Stat(l.folder); err != nil || over != "" || time.Since(began) > lifetime {
			break
		}
		time.Sleep(bootsector.Tick)
	}
	return 0
}

// end records how the machine ended, before its process does.
func (l *live) end(now string, memory *bootsector.Run) error {
	err := l.update(func(s *state) error {
		v, err := s.find(l.id)
		if err == nil {
			v.State, v.Memory, v.Session, v.Race = now, memory, "", l.config.Race
		}
		return err
	})
	for _, ln := range l.listeners {
		_ = ln.Close()
	}
	l.over = now
	return err
}

func (l *live) converse(conn net.Conn) {
	defer conn.Close()
	var r request
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := l.do(r)
	var a answer
	var bad *failure
	switch {
	case errors.As(err, &bad):
		a.Text, a.Code = bad.text, bad.code
	case err != nil:
		a.Text, a.Code = err.Error(), "E_FAIL"
	default:
		a.Data, _ = json.Marshal(data)
	}
	_ = json.NewEncoder(conn).Encode(a)
}

func (l *live) now(to string) error {
	return l.update(func(s *state) error {
		v, err := s.find(l.id)
		if err == nil {
			v.State = to
		}
		return err
	})
}

func (l *live) do(r request) (any, error) {
	switch r.Do {
	case "memory":
		return l.guest, nil
	case "pause", "resume":
		if l.paused == (r.Do == "pause") {
			return nil, refuse("VBOX_E_INVALID_VM_STATE", "Already paused, or not")
		}
		l.paused = !l.paused
		return nil, l.now(map[bool]string{true: "paused", false: "running"}[l.paused])
	case "poweroff":
		if l.config.Deaf {
			time.Sleep(lifetime)
		}
		return nil, l.end("poweroff", nil)
	case "acpipowerbutton":
		if l.guest.Obeys && !l.paused {
			return nil, l.end("poweroff", nil)
		}
		return nil, nil
	case "savestate":
		if err := l.now("saving"); err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(l.config.Slow["save"]) * time.Millisecond)
		g := l.guest
		return nil, l.end("saved", &g)
	case "screenshotpng":
		f, err := os.Create(r.Args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return nil, png.Encode(f, image.NewGray(image.Rect(0, 0, 640, 480)))
	case "natpf1":
		return nil, l.change(r.Args)
	}
	return nil, errors.New("not known")
}

// change adds or removes a rule; that the port cannot be had is only logged.
func (l *live) change(args []string) error {
	return l.update(func(s *state) error {
		v, err := s.find(l.id)
		if err != nil {
			return err
		}
		if err := v.rule(args); err != nil {
			return err
		}
		if args[0] == "delete" {
			if ln := l.listeners[args[1]]; ln != nil {
				_ = ln.Close()
				delete(l.listeners, args[1])
			}
			return nil
		}
		_ = l.forward(args[0])
		return nil
	})
}

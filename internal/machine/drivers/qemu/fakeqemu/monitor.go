package fakeqemu

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/machine/bootsector"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 99, "minor": 2, "major": 7}, "package": "fake"}, "capabilities": ["oob"]}}`

// serveMonitor serves one client after the other.
func (v *vm) serveMonitor(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		v.converse(conn.(*net.UnixConn))
		_ = conn.Close()
	}
}

type request struct {
	Execute   string
	Arguments json.RawMessage
}

// converse speaks QMP with one client.
func (v *vm) converse(conn *net.UnixConn) {
	say := func(line string) { _, _ = io.WriteString(conn, line+"\r\n") }
	say(greeting)
	in := &rightsReader{conn: conn}
	lines := bufio.NewReader(in)
	negotiated := false
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var r request
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&r); err != nil {
			say(`{"error": {"class": "GenericError", "desc": "JSON parse error"}}`)
			continue
		}
		if !negotiated && r.Execute != "qmp_capabilities" {
			say(`{"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}`)
			continue
		}
		negotiated = true
		result, err := v.execute(r, in.take)
		if err != nil {
			text, _ := json.Marshal(err.Error())
			say(`{"error": {"class": "GenericError", "desc": ` + string(text) + `}}`)
			continue
		}
		say(`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "NOISE", "data": {}}`) // clients skip events
		text, _ := json.Marshal(result)
		say(`{"return": ` + string(text) + `}`)
	}
}

// rightsReader collects the open files that come with the bytes.
type rightsReader struct {
	conn  *net.UnixConn
	files []*os.File
}

func (r *rightsReader) Read(p []byte) (int, error) {
	oob := make([]byte, 64)
	n, oobn, _, _, err := r.conn.ReadMsgUnix(p, oob)
	if n == 0 && err == nil {
		err = io.EOF
	}
	messages, merr := unix.ParseSocketControlMessage(oob[:oobn])
	if merr == nil {
		for _, m := range messages {
			if fds, err := unix.ParseUnixRights(&m); err == nil {
				for _, fd := range fds {
					r.files = append(r.files, os.NewFile(uintptr(fd), "passed"))
				}
			}
		}
	}
	return n, err
}

func (r *rightsReader) take() *os.File {
	if len(r.files) == 0 {
		return nil
	}
	f := r.files[0]
	r.files = r.files[1:]
	return f
}

type object map[string]any

// execute runs one command.
func (v *vm) execute(r request, file func() *os.File) (any, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var args struct {
		Path, Property, Fdname, URI, Filename string

		Bandwidth int64  `json:"max-bandwidth"`
		Line      string `json:"command-line"`
	}
	if len(r.Arguments) > 0 {
		dec := json.NewDecoder(bytes.NewReader(r.Arguments))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&args); err != nil {
			return nil, err
		}
	}
	switch r.Execute {
	case "qmp_capabilities", "migrate-set-parameters", "migrate_cancel":
		return object{}, nil
	case "query-status":
		return object{"status": v.status, "running": v.status == "running"}, nil
	case "query-version":
		return object{"qemu": object{"major": 7, "minor": 2, "micro": 99}}, nil
	case "query-kvm":
		return object{"enabled": list(v.options["-accel"][0])[""] == "kvm", "present": true}, nil
	case "qom-get":
		if arm() {
			return "virt-7.2-machine", nil
		}
		return "pc-q35-7.2-machine", nil
	case "query-migrate":
		if why := v.held(); why != "" && v.fault == FaultMounted {
			return object{"blocked-reasons": []string{why}}, nil
		}
		if v.moved == "" {
			return object{}, nil
		}
		return object{"status": v.moved}, nil
	case "stop":
		if v.status == "running" {
			v.status = "paused"
		}
		return object{}, nil
	case "cont":
		if v.status == "inmigrate" || v.status == "internal-error" {
			return nil, errors.New("Resetting the Virtual Machine is required") //nolint:staticcheck // QEMU's words
		}
		v.status = "running"
		return object{}, nil
	case "system_powerdown":
		if v.guest.Obeys && v.status == "running" {
			v.off = true
		}
		return object{}, nil
	case "quit":
		v.off = v.off || v.fault != FaultDeaf
		return object{}, nil
	case "getfd":
		f := file()
		if f == nil {
			return nil, errors.New("No file descriptor supplied via SCM_RIGHTS") //nolint:staticcheck // QEMU's words
		}
		v.fds[args.Fdname] = f
		return object{}, nil
	case "migrate":
		return object{}, v.migrate(args.URI)
	case "migrate-incoming":
		return object{}, v.load(args.URI)
	case "human-monitor-command":
		return v.human(args.Line), nil
	case "query-vnc":
		if v.options["-vnc"] == nil {
			return object{"enabled": false}, nil
		}
		return object{"enabled": true, "host": "127.0.0.1", "service": "5999"}, nil
	case "screendump":
		if v.options["-vnc"] == nil {
			return nil, errors.New("There is no console to take a screendump from") //nolint:staticcheck // QEMU's words
		}
		// Two by one points: red and blue.
		return object{}, os.WriteFile(args.Filename, []byte("P6\n2 1\n255\n\xff\x00\x00\x00\x00\xff"), 0o600)
	}
	return nil, errors.New("The command " + r.Execute + " has not been found")
}

var hostfwd = regexp.MustCompile(`^hostfwd_(add|remove) net0 tcp:(127\.0\.0\.1:\d+)(?:-:(\d+))?$`)

// human runs a command of the monitor for people.
func (v *vm) human(line string) string {
	m := hostfwd.FindStringSubmatch(line)
	switch {
	case m == nil:
		return "unknown command: '" + line + "'\r\n"
	case m[1] == "add":
		if err := v.listen(m[2], m[3]); err != nil {
			return err.Error() + "\r\n"
		}
		return ""
	case v.ports[m[2]] == nil:
		return "host forwarding rule for tcp:" + m[2] + " not found\r\n"
	}
	_ = v.ports[m[2]].Close()
	delete(v.ports, m[2])
	return "host forwarding rule for tcp:" + m[2] + " removed\r\n"
}

func (v *vm) fd(uri string) (*os.File, error) {
	f := v.fds[string(bytes.TrimPrefix([]byte(uri), []byte("fd:")))]
	if f == nil {
		return nil, errors.New("File descriptor named '" + uri + "' has not been found")
	}
	return f, nil
}

// migrate writes the guest to a file. Images with relative names are lost: the
// process is in / by now.
func (v *vm) migrate(uri string) error {
	f, err := v.fd(uri)
	if err != nil {
		return err
	}
	defer f.Close()
	if why := v.held(); why != "" {
		return errors.New(why)
	}
	if v.status == "postmigrate" {
		return errors.New("Can't migrate the vm that was paused due to previous migration") //nolint:staticcheck // QEMU's words
	}
	v.moved = "failed"
	for _, image := range v.images {
		if !filepath.IsAbs(image) {
			return nil
		}
	}
	data, err := json.Marshal(v.guest)
	if err != nil || v.fault == FaultSave {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return nil //nolint:nilerr // the client learns by asking
	}
	for _, f := range v.open { // QEMU lets go of its images
		_ = lock(f, unix.F_UNLCK)
	}
	v.moved, v.status = "completed", "postmigrate"
	return nil
}

// load reads the guest from a file; QEMU dies if that fails.
func (v *vm) load(uri string) error {
	if v.options["-incoming"] == nil || v.options["-incoming"][0] != "defer" {
		return errors.New("'-incoming' was not specified on the command line")
	}
	f, err := v.fd(uri)
	if err != nil {
		return err
	}
	defer f.Close()
	var g bootsector.Run
	if err := json.NewDecoder(f).Decode(&g); err != nil {
		os.Exit(1)
	}
	v.guest, v.moved, v.status = g, "completed", "paused"
	if v.options["-S"] == nil {
		v.status = "running"
	}
	return nil
}

package qemu

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// The accelerations.
const (
	accelAuto = "auto"
	accelKVM  = "kvm"
	accelTCG  = "tcg"
)

func checkAccel(accel string) error {
	switch accel {
	case "", accelAuto, accelKVM, accelTCG:
		return nil
	}
	return fail.New(fail.Usage, "unknown --accel %q", accel).Hint("use auto, kvm or tcg")
}

// layout numbers the set of devices that args gives a machine. Saved memory
// loads only into the same set: whoever changes it counts on, and keeps the old
// set for layouts below, or they are refused.
//
//	1  the plain machine
//	2  and shared folders, which come last: without any it is that of 1
//	3  and UEFI, other processors and more disks: without any it is that of 2
const layout = 3

// launch is how one QEMU is started; launch.json and saved.json hold it.
type launch struct {
	Layout  int    `json:"layout"`
	Accel   string `json:"accel"`
	Machine string `json:"machine"`           // machine type; versioned once QEMU has told it
	Version string `json:"version,omitempty"` // of QEMU
	Sandbox bool   `json:"sandbox"`

	Disks []stamp `json:"disks,omitempty"` // of the user's, when memory was saved

	incoming bool      // wait for saved memory
	hardware hardware  // for the guest's processor
	firmware *firmware // nil is the BIOS that QEMU brings along
}

// args is the command line. Everything is named; nothing comes from QEMU's
// defaults or configuration files.
func (l launch) args(s machine.Spec) []string {
	h, accel := l.hardware, l.Accel
	if accel == accelTCG {
		accel = "tcg,thread=multi"
	}
	args := []string{
		"-name", s.Name, "-uuid", s.ID,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", h.machineArg(l), "-accel", accel,
		"-cpu", h.cpuArg(l.Accel),
		"-smp", strconv.Itoa(s.CPUs), "-m", strconv.Itoa(s.MemoryMiB),
		"-rtc", "base=utc",
		"-pidfile", s.Path(pidFile), "-daemonize",
	}
	if l.Sandbox {
		args = append(args, "-sandbox", "on")
	}
	for _, name := range []string{controlSocket, statusSocket} {
		args = append(args, "-chardev", "socket,id="+name+",path="+name+",server=on,wait=off", "-mon", "mode=control,chardev="+name)
	}
	args = append(args,
		"-chardev", "socket,id=serial0,path="+serialSocket+",server=on,wait=off,logappend=on,logfile="+escape(s.Path(consoleFile)),
		"-serial", "chardev:serial0",
	)
	args = append(args, l.firmware.args(s)...)
	args = append(args, imageArgs(h, s)...)
	args = append(args,
		"-netdev", netdev(s), "-device", "virtio-net-pci,netdev=net0,romfile=,mac="+mac(s.ID),
		"-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
	)
	args = append(args, screenArgs(h, s)...)
	args = append(args, moreArgs(s)...)
	if l.Layout >= sharesSince {
		args = append(args, shareArgs(s)...)
	}
	if l.incoming {
		args = append(args, "-incoming", "defer", "-S")
	}
	return args
}

// escape doubles the commas of a value in QEMU's key=value lists.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// blockdev describes an image in JSON, which needs no escapes. Its format is
// never guessed: a guest could write another one's header on a raw disk.
func blockdev(node, format, path string, readOnly bool) string {
	type file struct {
		Driver   string `json:"driver"`
		Filename string `json:"filename"`
	}
	data, _ := json.Marshal(struct { // strings and booleans always encode
		Driver   string `json:"driver"`
		Node     string `json:"node-name"`
		ReadOnly bool   `json:"read-only"`
		Discard  string `json:"discard,omitempty"`
		File     file   `json:"file"`
	}{format, node, readOnly, map[bool]string{false: "unmap"}[readOnly], file{"file", path}})
	return string(data)
}

func netdev(s machine.Spec) string {
	var b strings.Builder
	b.WriteString("user,id=net0,hostname=" + s.Hostname())
	for _, f := range s.Forwards {
		fmt.Fprintf(&b, ",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
	}
	return b.String()
}

// mac is an address of QEMU's range that stays with the machine.
func mac(id string) string {
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", sum[0], sum[1], sum[2])
}

package libvirt

import (
	"context"
	"io"
	"net"
	"os"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/machine"
)

// What is tested by itself.
var (
	WithForwards  = withForwards
	StateOf       = stateOf
	MakeDisk      = makeDisk
	PNGOfPPM      = pngOfPPM
	StartFailed   = startFailed
	Explain       = explain
	ReadPacket    = readPacket
	Relay         = relay
	SSHArgs       = sshArgs
	ReadSnapshots = readSnapshots
	GrowDisk      = growDisk
	MAC           = mac
)

// The same.
type (
	Media    = media
	Endpoint = endpoint
)

// ParseURI is parseURI.
func ParseURI(text string, uid int) (Endpoint, error) { return parseURI(text, uid) }

// Parts are an endpoint's.
func Parts(e Endpoint) (transport, user, host, port, socket, open string, session bool) {
	return e.transport, e.user, e.host, e.port, e.socket, e.open, e.session
}

// Connected is a connection of the library as the driver has it, and what an
// upload of it goes through.
func Connected(pipe net.Conn) (*rpc.Libvirt, func(context.Context, io.Reader) (io.Reader, func() error, error)) {
	flow := newStreams(pipe)
	return rpc.NewWithDialer(ready{flow}), flow.beginUpload
}

// Streams is what such a connection reads.
func Streams(pipe net.Conn) io.Reader { return newStreams(pipe) }

// OptionsOf are the options of a machine, and its XML.
func OptionsOf(d machine.Driver, s machine.Spec, m Media, accel string) (string, error) {
	o, err := d.(*Driver).options(s)
	if err != nil {
		return "", err
	}
	return domainXML(s, m, o, accel)
}

// Reached makes the driver call do at each step.
func Reached(d machine.Driver, do func(step string)) { d.(*Driver).reached = do }

// Changed is the XML of a domain after a change of its machine.
func Changed(d machine.Driver, doc string, from, to machine.Spec, m Media) (string, error) {
	o, err := d.(*Driver).options(to)
	if err != nil {
		return "", err
	}
	return changed(doc, from, to, m, o)
}

// AllMedia are the media of a machine in a folder.
func AllMedia(s machine.Spec) Media {
	m, _ := folder{}.media(context.Background(), s)
	return m
}

// KVM says whether KVM is used where libvirt offers it or not, and the
// processor is described as in a file.
func KVM(d machine.Driver, offered bool, cpuinfo string) error {
	one := d.(*Driver)
	one.cpuinfo = cpuinfo
	caps := capabilities{virt: map[string]virt{machine.X86_64: {emulated: true, kvm: offered}}}
	return one.kvmWorks(endpoint{transport: transportUnix, uri: systemURI}, caps, machine.X86_64)
}

// QEMUUser is whom QEMU runs as, by libvirt's capabilities, and how guests of
// an architecture run.
func QEMUUser(doc, arch string) (uid int, emulates, kvm bool, err error) {
	caps, err := readCapabilities(doc)
	return caps.qemuUID, caps.virt[arch].emulated, caps.virt[arch].kvm, err
}

// Medium is where a machine's files are, and what its medium with the context holds.
func Medium(ctx context.Context, d machine.Driver, i machine.Instance) (pool string, data []byte, err error) {
	one := d.(*Driver)
	c, p, err := one.open(ctx, i)
	if err != nil {
		return "", nil, err
	}
	defer c.close()
	data, err = one.storeOf(c, p).config(ctx, i.Spec)
	return p.Pool, data, err
}

// Real makes a driver for this process's environment.
func Real() machine.Driver { return New(machine.Env{Getenv: os.Getenv}) }

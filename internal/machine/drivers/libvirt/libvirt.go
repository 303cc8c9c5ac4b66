package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/run"
	"github.com/micavm/mica/internal/undo"
)

// Name is the driver's name.
const Name = "libvirt"

// Driver runs machines through libvirt.
type Driver struct {
	run    run.Runner
	log    *slog.Logger
	getenv func(string) string
	uri    string // of machines that name none
	conns  connections

	cpuinfo string            // where this computer's processor is described
	reached func(step string) // tests kill the process there
}

var (
	_ machine.Driver      = (*Driver)(nil)
	_ machine.Pauser      = (*Driver)(nil)
	_ machine.Saver       = (*Driver)(nil)
	_ machine.Consoler    = (*Driver)(nil)
	_ machine.Logger      = (*Driver)(nil)
	_ machine.Describer   = (*Driver)(nil)
	_ machine.Snapshotter = (*Driver)(nil)
	_ machine.Screener    = (*Driver)(nil)
	_ machine.Viewer      = (*Driver)(nil)
	_ machine.Forwarder   = (*Driver)(nil)
	_ machine.Checker     = (*Driver)(nil)
	_ machine.Changer     = (*Driver)(nil)
	_ machine.Cloner      = (*Driver)(nil)
	_ machine.Reacher     = (*Driver)(nil)
)

// New returns the driver. MICA_LIBVIRT_URI, else LIBVIRT_DEFAULT_URI, names the
// daemon.
func New(env machine.Env) machine.Driver {
	env = env.Defaults()
	d := &Driver{run: env.Run, log: env.Log, getenv: env.Getenv, cpuinfo: "/proc/cpuinfo"}
	d.conns.open = map[string]*conn{}
	d.uri = sessionURI
	if os.Geteuid() == 0 {
		d.uri = systemURI
	}
	for _, name := range []string{"LIBVIRT_DEFAULT_URI", "MICA_LIBVIRT_URI"} {
		if uri := env.Getenv(name); uri != "" {
			d.uri = uri
		}
	}
	return d
}

func (d *Driver) at(step string) {
	if d.reached != nil {
		d.reached(step)
	}
}

var versionPattern = regexp.MustCompile(`\d+\.\d+\.\d+`)

// oldest is the first libvirt that has what domainXML asks for: 7.1, for the
// processor mode maximum.
const oldest = 7_001_000

// Probe implements machine.Driver. It starts no session daemon: where none
// runs, the program is asked for its version.
func (d *Driver) Probe(ctx context.Context) (machine.Report, error) {
	r := machine.Report{Driver: Name, Program: d.uri, Options: optionHelp()}
	e, err := parseURI(d.uri, os.Geteuid())
	if err != nil {
		return r, err
	}
	r.Features = []machine.Feature{machine.VNC, machine.Clipboards, machine.DiskImages, machine.SharedFolders}
	if !e.session {
		r.Features = append(r.Features, machine.Networks, machine.ExecutionCaps)
	}
	if e.session && !e.remote() {
		c, err := d.dialLocal(ctx, e)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return d.probeProgram(ctx, r)
		}
		if err == nil {
			_ = c.Close()
		}
	}
	c, err := d.connect(ctx, d.uri)
	if err != nil {
		return r, err
	}
	defer c.close()
	version, caps, err := d.look(ctx, c)
	if err != nil {
		return r, err
	}
	r.Version = dotted(version)
	if version < oldest {
		return r, fail.New(fail.HostLacks, "libvirt %s is too old", r.Version).Hint("install version %s or newer", dotted(oldest))
	}
	if !caps.emulates {
		return r, fail.New(fail.HostLacks, "libvirt at %s has no QEMU for x86_64", d.uri).
			Hint("install it there: package qemu-system-x86 on Debian and Ubuntu, qemu-kvm on Fedora and RHEL")
	}
	d.accels(&r, d.kvmWorks(e, caps))
	return r, nil
}

// probeProgram is Probe where no session daemon runs.
func (d *Driver) probeProgram(ctx context.Context, r machine.Report) (machine.Report, error) {
	program, err := d.daemonProgram()
	if err != nil {
		return r, err
	}
	out, err := d.run.Run(ctx, run.Command{Name: program, Args: []string{"--version"}, Timeout: 10 * time.Second})
	if err != nil {
		return r, fail.New(fail.HostLacks, "libvirt cannot be run: %w", err)
	}
	if r.Version = versionPattern.FindString(string(out.Stdout)); r.Version == "" {
		return r, fail.New(fail.HostLacks, "%s is not libvirt: it says %.80q", program, out.Stdout)
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
		err = d.virtualizes()
	}
	d.accels(&r, err)
	return r, nil
}

func (d *Driver) accels(r *machine.Report, kvm error) {
	if kvm != nil {
		r.Warnings = append(r.Warnings, "machines run by emulation, several times slower: "+kvm.Error())
	} else {
		r.Accel = append(r.Accel, accelKVM)
	}
	r.Accel = append(r.Accel, accelTCG)
}

func dotted(version uint64) string {
	return fmt.Sprintf("%d.%d.%d", version/1_000_000, version/1000%1000, version%1000)
}

// capabilities are what is asked of libvirt's capabilities.
type capabilities struct {
	emulates bool // has QEMU for x86_64
	kvm      bool // and KVM
	qemuUID  int  // whom it runs as; -1 is whom the daemon runs as
}

// look asks a daemon what it is.
func (d *Driver) look(ctx context.Context, c *conn) (uint64, capabilities, error) {
	var version uint64
	var doc string
	err := c.ask(ctx, "asking libvirt what it can do", func() (err error) {
		if version, err = c.ConnectGetLibVersion(); err != nil {
			return err
		}
		doc, err = c.ConnectGetCapabilities()
		return err
	})
	if err != nil {
		return 0, capabilities{}, err
	}
	caps, err := readCapabilities(doc)
	return version, caps, err
}

func readCapabilities(doc string) (capabilities, error) {
	caps := capabilities{qemuUID: -1}
	var x libvirtxml.Caps
	if err := x.Unmarshal(doc); err != nil {
		return caps, fmt.Errorf("reading libvirt's capabilities: %w", err)
	}
	for _, g := range x.Guests {
		if g.OSType != "hvm" || g.Arch.Name != "x86_64" {
			continue
		}
		for _, dom := range g.Arch.Domains {
			caps.emulates = caps.emulates || dom.Type == "qemu"
			caps.kvm = caps.kvm || dom.Type == "kvm"
		}
	}
	for _, model := range x.Host.SecModel {
		for _, label := range model.Labels {
			if uid, ok := qemuUser(label.Value); ok && model.Name == "dac" {
				caps.qemuUID = uid
			}
		}
	}
	return caps, nil
}

// Create implements machine.Driver.
func (d *Driver) Create(ctx context.Context, s machine.Spec) (machine.Instance, error) {
	return d.create(ctx, s, nil)
}

// Clone implements machine.Cloner.
func (d *Driver) Clone(ctx context.Context, from machine.Instance, s machine.Spec) (machine.Instance, error) {
	c, _, dom, err := d.need(ctx, from)
	if err != nil {
		return machine.Instance{}, err
	}
	defer c.close()
	state, err := c.state(ctx, dom)
	if err != nil {
		return machine.Instance{}, err
	}
	if state != machine.Stopped {
		return machine.Instance{}, fail.New(fail.Conflict, "%q is %s, not off", from.Spec.Name, state)
	}
	return d.create(ctx, s, &from.Spec)
}

// create makes a machine, with the content of another one's disks if there is one.
func (d *Driver) create(ctx context.Context, s machine.Spec, from *machine.Spec) (machine.Instance, error) {
	o, err := d.options(s)
	if err != nil {
		return machine.Instance{}, err
	}
	if _, there, err := placeOf(s.Dir); err != nil {
		return machine.Instance{}, err
	} else if there {
		return machine.Instance{}, fail.New(fail.Conflict, "%s holds a machine already", s.Dir)
	}
	c, err := d.connect(ctx, o.uri)
	if err != nil {
		return machine.Instance{}, err
	}
	defer c.close()
	_, caps, err := d.look(ctx, c)
	if err != nil {
		return machine.Instance{}, err
	}
	if err := c.vacant(ctx, s.ID); err != nil {
		return machine.Instance{}, err
	}
	if err := c.check(ctx, s); err != nil {
		return machine.Instance{}, err
	}
	accel, err := d.choose(c.endpoint, caps, s.Accel)
	if err != nil {
		return machine.Instance{}, err
	}
	p := place{Schema: placeSchema, ID: s.ID, URI: o.uri, Pool: o.pool}
	if p.Pool == "" && !ownFiles(c.endpoint, caps) {
		p.Pool = defaultPool
	}
	var other *origin
	if from != nil {
		if other, err = originOf(*from, p); err != nil {
			return machine.Instance{}, err
		}
	}
	u := undo.New(d.log)
	defer u.Run(ctx)
	left := false // something could not be taken back: the note then tells Destroy where to look
	made := func(name string, back func(context.Context) error) {
		u.Add(name, func(ctx context.Context) error {
			err := back(ctx)
			left = left || err != nil
			return err
		})
	}
	u.Add("note of the place", func(context.Context) error {
		if left || !c.IsConnected() { // what was under way when the connection ended may be there
			return errors.New("something may be left there")
		}
		return removePlace(s)
	})
	if err := p.save(s.Dir); err != nil {
		return machine.Instance{}, err
	}
	d.at("placed")
	m, err := storeOf(c, p).make(ctx, s, other, made)
	if err != nil {
		return machine.Instance{}, err
	}
	d.at("files")
	doc, err := domainXML(s, m, o, accel)
	if err != nil {
		return machine.Instance{}, fmt.Errorf("describing the machine: %w", err)
	}
	var dom rpc.Domain
	err = c.ask(ctx, "defining the machine", func() (err error) {
		dom, err = c.DomainDefineXMLFlags(doc, 0)
		return err
	})
	if err != nil {
		return machine.Instance{}, refused(s, err)
	}
	made("domain "+dom.Name, func(ctx context.Context) error { return c.undefine(ctx, dom) })
	d.at("defined")
	if err := ctx.Err(); err != nil {
		return machine.Instance{}, fmt.Errorf("creating machine: %w", err)
	}
	u.Release()
	s.Context, s.PublicKeys = nil, nil
	return machine.Instance{Spec: s}, nil
}

// origin is the machine whose disks a new one begins with.
type origin struct {
	spec machine.Spec
	place
}

func originOf(from machine.Spec, to place) (*origin, error) {
	p, there, err := placeOf(from.Dir)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, fail.New(fail.NotFound, "libvirt does not know %q", from.Name)
	}
	if p.URI != to.URI || p.Pool != to.Pool {
		return nil, fail.New(fail.Usage, "the disks of %q are at %s, and would have to be copied to %s", from.Name, p, to).
			Hint("clone it where it is")
	}
	return &origin{from, p}, nil
}

// String says where, for people.
func (p place) String() string {
	if p.Pool == "" {
		return p.URI
	}
	return p.URI + ", pool " + p.Pool
}

// ownFiles reports whether the daemon's QEMU can use files of the caller: it
// runs under the caller's uid, on this computer.
func ownFiles(e endpoint, caps capabilities) bool {
	return !e.remote() && (e.session || caps.qemuUID == os.Geteuid())
}

// Check implements machine.Checker.
func (d *Driver) Check(ctx context.Context, s machine.Spec) error {
	o, err := d.options(s)
	if err != nil {
		return err
	}
	e, err := parseURI(o.uri, os.Geteuid())
	if err != nil {
		return err
	}
	c, err := d.connect(ctx, o.uri)
	if err != nil {
		return err
	}
	defer c.close()
	_, caps, err := d.look(ctx, c)
	if err != nil {
		return err
	}
	if _, err := d.choose(e, caps, s.Accel); err != nil {
		return err
	}
	if o.pool != "" || !ownFiles(e, caps) {
		if o.pool == "" {
			o.pool = defaultPool
		}
		if _, err := (&pool{c: c, name: o.pool}).open(ctx); err != nil {
			return err
		}
	}
	return c.check(ctx, s)
}

// vacant refuses the id of a domain that is there, whoever's it is.
func (c *conn) vacant(ctx context.Context, id string) error {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return fmt.Errorf("the machine's id %q: %w", id, err)
	}
	err = c.ask(ctx, "looking for domain "+id, func() error {
		_, err := c.DomainLookupByUUID(rpc.UUID(parsed))
		return err
	})
	if err == nil {
		return fail.New(fail.Conflict, "libvirt at %s has a domain %s already", c.uri, id)
	}
	if is(err, rpc.ErrNoDomain) {
		return nil
	}
	return err
}

// check refuses what this daemon cannot do.
func (c *conn) check(ctx context.Context, s machine.Spec) error {
	if c.remote() && len(s.Shares) > 0 {
		return fail.New(fail.Usage, "folders of this computer cannot be shared with a machine on %s", c.host).
			Hint("leave out --share, or run the machine here")
	}
	if c.session && s.ExecutionCap > 0 && s.ExecutionCap < 100 {
		return fail.New(fail.HostLacks, "libvirt sessions cannot limit processor time").
			Hint("leave out the execution cap, or use the system's daemon: --option uri=%s", systemURI)
	}
	if userNet(s) {
		return nil
	}
	return c.checkNetwork(ctx, s.Network)
}

func (c *conn) checkNetwork(ctx context.Context, name string) error {
	var active int32
	err := c.ask(ctx, "looking for network "+name, func() error {
		n, err := c.NetworkLookupByName(name)
		if err == nil {
			active, err = c.NetworkIsActive(n)
		}
		return err
	})
	switch {
	case is(err, rpc.ErrNoNetwork):
		return fail.New(fail.NotFound, "%w", err).Hint("'virsh -c %s net-list --all' shows the networks; %q needs none", c.uri, machine.NAT)
	case err != nil:
		return err
	case active == 0:
		return fail.New(fail.HostLacks, "network %q of libvirt is not active", name).Hint("start it: 'virsh -c %s net-start %s'", c.uri, name)
	}
	return nil
}

// refused names the cause where libvirt does not take a definition.
func refused(s machine.Spec, err error) error {
	switch {
	case strings.Contains(err.Error(), "already exists with uuid"), is(err, rpc.ErrDomExist):
		return fail.New(fail.Conflict, "a domain named %q that is not this machine's is in the way: %w", domainName(s), err).
			Hint("choose another name")
	case strings.Contains(err.Error(), "read-only mode"):
		return fail.New(fail.HostLacks, "%w", err).Hint("this libvirt shares folders read-only by 9p only: --option shares=9p")
	case strings.Contains(err.Error(), "'efi' firmware"), strings.Contains(err.Error(), "Unable to find any firmware"):
		return fail.New(fail.HostLacks, "%w", err).Hint("install UEFI firmware there: package ovmf on Debian and Ubuntu, edk2-ovmf elsewhere")
	}
	return err
}

// undefine removes the domain from libvirt, with what libvirt keeps of it.
func (c *conn) undefine(ctx context.Context, dom rpc.Domain) error {
	flags := rpc.DomainUndefineManagedSave | rpc.DomainUndefineSnapshotsMetadata | rpc.DomainUndefineNvram | rpc.DomainUndefineCheckpointsMetadata
	err := c.ask(ctx, "removing domain "+dom.Name, func() error { return c.DomainUndefineFlags(dom, flags) })
	if is(err, rpc.ErrNoDomain) {
		return nil
	}
	return err
}

// Destroy implements machine.Driver.
func (d *Driver) Destroy(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	if s.Dir == "" {
		return errors.New("a machine without a folder")
	}
	p, there, err := placeOf(s.Dir)
	if err != nil || !there {
		return err
	}
	s.ID = p.ID
	c, err := d.connect(ctx, p.URI)
	if err != nil {
		return err
	}
	defer c.close()
	dom, there, err := c.find(ctx, p.ID)
	if err != nil {
		return err
	}
	if there {
		if err := c.powerOff(ctx, dom); err != nil {
			return err
		}
		d.at("off")
		if err := c.undefine(ctx, dom); err != nil {
			return err
		}
		d.at("undefined")
	}
	if err := storeOf(c, p).remove(ctx, s); err != nil {
		return err
	}
	d.at("files removed")
	return removePlace(s)
}

func removePlace(s machine.Spec) error {
	if err := os.Remove(s.Path(placeFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Screenshot implements machine.Screener.
func (d *Driver) Screenshot(ctx context.Context, i machine.Instance, w io.Writer) error {
	c, _, dom, err := d.need(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	picture := capped{limit: maxPicture}
	err = c.call(ctx, longPatience, "taking a picture of "+dom.Name, func() error {
		_, err := c.DomainScreenshot(dom, &picture, 0, 0)
		if picture.Len() > 0 && !errors.As(err, new(rpc.Error)) && !errors.Is(err, rpc.ErrInterrupted) {
			return nil // the library looks for the picture's type in the wrong answer
		}
		return err
	})
	if is(err, rpc.ErrOperationInvalid) {
		return fail.New(fail.Conflict, "%q does not run: %w", i.Spec.Name, err)
	}
	if err != nil {
		return err
	}
	if picture.over {
		return fail.New(fail.Failed, "the picture of %s has more than %d bytes", dom.Name, maxPicture)
	}
	data, err := asPNG(picture.Bytes())
	if err != nil {
		return fail.New(fail.Failed, "the picture of %s: %w", dom.Name, err)
	}
	_, err = w.Write(data)
	return err
}

const maxPicture = 64 << 20

// capped keeps what fits. It takes the rest too: the library's connection
// blocks when a reader stops.
type capped struct {
	bytes.Buffer
	limit int
	over  bool
}

func (c *capped) Write(p []byte) (int, error) {
	if c.Len()+len(p) > c.limit {
		c.over = true
		return len(p), nil
	}
	return c.Buffer.Write(p)
}

// View implements machine.Viewer.
func (d *Driver) View(ctx context.Context, i machine.Instance) (string, error) {
	c, _, dom, err := d.need(ctx, i)
	if err != nil {
		return "", err
	}
	defer c.close()
	l, err := c.live(ctx, dom)
	if err != nil {
		return "", err
	}
	for _, g := range l.Graphics {
		if g.Type != "vnc" {
			continue
		}
		if g.Port <= 0 {
			return "", fail.New(fail.Conflict, "%q does not run", i.Spec.Name)
		}
		if c.remote() {
			return "", fail.New(fail.Refused, "the screen of %q is at port %d of 127.0.0.1 on %s", i.Spec.Name, g.Port, c.host).
				Hint("'ssh -N -L 5999:127.0.0.1:%d %s' brings it to vnc://127.0.0.1:5999 here", g.Port, c.host)
		}
		return "vnc://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(g.Port)), nil
	}
	return "", fail.New(fail.Usage, "%q has no screen to watch", i.Spec.Name).Hint("make it with --display vnc; a picture can be had all the same")
}

// live reads the domain as it is now.
func (c *conn) live(ctx context.Context, dom rpc.Domain) (live, error) {
	var doc string
	err := c.ask(ctx, "looking at "+dom.Name, func() (err error) {
		doc, err = c.DomainGetXMLDesc(dom, 0)
		return err
	})
	if err != nil {
		return live{}, err
	}
	return readLive(doc)
}

// Describe implements machine.Describer.
func (d *Driver) Describe(ctx context.Context, i machine.Instance) (map[string]string, error) {
	facts := map[string]string{}
	c, p, dom, err := d.need(ctx, i)
	if err != nil {
		return facts, err
	}
	defer c.close()
	facts["uri"], facts["domain"], facts["pool"] = p.URI, dom.Name, p.Pool
	if p.Pool == "" {
		delete(facts, "pool")
	}
	l, err := c.live(ctx, dom)
	if err != nil {
		return facts, err
	}
	facts["accel"], facts["machine_type"] = accelTCG, l.Machine.Name
	if l.Type == "kvm" {
		facts["accel"] = accelKVM
	}
	if n, err := d.storeOf(c, p).used(ctx, i.Spec); err == nil {
		facts["disk_used_bytes"] = strconv.FormatUint(n, 10)
	}
	var number, reason int32
	var version uint64
	err = c.ask(ctx, "looking at "+dom.Name, func() (err error) {
		if number, reason, err = c.DomainGetState(dom, 0); err == nil {
			version, err = c.ConnectGetLibVersion()
		}
		return err
	})
	if err != nil {
		return facts, err
	}
	facts["libvirt"] = dotted(version)
	facts["libvirt_state"] = fmt.Sprintf("%d (reason %d)", number, reason)
	if !userNet(i.Spec) {
		if address, err := c.address(ctx, dom); err == nil && address != "" {
			facts["address"] = address
		}
	}
	return facts, nil
}

// Addressed reports whether the machine is on a network of libvirt's.
func (d *Driver) Addressed(i machine.Instance) bool { return !userNet(i.Spec) }

// Address is where the guest can be reached without a forwarded port: the
// address that the network of libvirt's leased to it, "" while there is none or
// where the machine has forwarded ports instead.
func (d *Driver) Address(ctx context.Context, i machine.Instance) (string, error) {
	if userNet(i.Spec) {
		return "", nil
	}
	c, _, dom, err := d.need(ctx, i)
	if err != nil {
		return "", err
	}
	defer c.close()
	return c.address(ctx, dom)
}

// Host is the other computer that the machine runs on, as ssh's -J takes it, ""
// where it runs on this one. Forwarded ports and addresses are that computer's.
func (d *Driver) Host(i machine.Instance) (string, error) {
	p, there, err := placeOf(i.Spec.Dir)
	if err != nil || !there {
		return "", err
	}
	e, err := parseURI(p.URI, 0)
	if err != nil || !e.remote() {
		return "", err
	}
	host := e.host
	if e.transport == transportSSH {
		if e.user != "" {
			host = e.user + "@" + host
		}
		if e.port != "" {
			host += ":" + e.port
		}
	}
	return host, nil
}

func (c *conn) address(ctx context.Context, dom rpc.Domain) (string, error) {
	var all []rpc.DomainInterface
	err := c.ask(ctx, "looking for the address of "+dom.Name, func() (err error) {
		all, err = c.DomainInterfaceAddresses(dom, uint32(rpc.DomainInterfaceAddressesSrcLease), 0)
		return err
	})
	if is(err, rpc.ErrOperationInvalid) { // it does not run
		return "", nil
	}
	for _, one := range all {
		for _, a := range one.Addrs {
			if a.Type == 0 { // VIR_IP_ADDR_TYPE_IPV4
				return a.Addr, err
			}
		}
	}
	return "", err
}

// SetForwards implements machine.Forwarder. A machine that is off gets them
// when it starts.
func (d *Driver) SetForwards(ctx context.Context, i machine.Instance, forwards []machine.Forward) error {
	c, _, dom, state, err := d.needState(ctx, i)
	if err != nil {
		return err
	}
	defer c.close()
	if !userNet(i.Spec) {
		return fail.New(fail.Usage, "%q is on the network %q of libvirt's, which forwards no ports", i.Spec.Name, i.Spec.Network)
	}
	if !state.Live() {
		return nil
	}
	before := i.Spec.Forwards
	var done []func() error
	change := func(command, back string) error {
		if err := c.monitor(ctx, dom, command); err != nil {
			return err
		}
		done = append(done, func() error {
			after, cancel := context.WithTimeout(context.WithoutCancel(ctx), quickPatience)
			defer cancel()
			return c.monitor(after, dom, back)
		})
		return nil
	}
	has := func(list []machine.Forward, f machine.Forward) bool {
		return slices.ContainsFunc(list, func(o machine.Forward) bool { return o.Host == f.Host && o.Guest == f.Guest })
	}
	for _, f := range before {
		if err == nil && !has(forwards, f) {
			err = change(unforward(f), forward(f))
		}
	}
	for _, f := range forwards {
		if err == nil && !has(before, f) {
			err = change(forward(f), unforward(f))
		}
	}
	if err == nil {
		return nil
	}
	for _, back := range slices.Backward(done) {
		if berr := back(); berr != nil {
			d.log.Warn("could not take a forward back", "machine", i.Spec.Name, "error", berr)
		}
	}
	return err
}

func forward(f machine.Forward) string {
	return fmt.Sprintf("hostfwd_add %s tcp:127.0.0.1:%d-:%d", netID, f.Host, f.Guest)
}

func unforward(f machine.Forward) string {
	return fmt.Sprintf("hostfwd_remove %s tcp:127.0.0.1:%d", netID, f.Host)
}

// monitor runs a command of QEMU's own monitor, which answers with words where
// it fails, and says so when it has removed a forward.
func (c *conn) monitor(ctx context.Context, dom rpc.Domain, command string) error {
	const human = 1 // VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
	var answer string
	err := c.ask(ctx, "changing forwarded ports of "+dom.Name, func() (err error) {
		answer, err = c.QEMUDomainMonitorCommand(dom, command, human)
		return err
	})
	answer = strings.TrimSpace(answer)
	if err != nil || answer == "" || strings.HasSuffix(answer, "removed") {
		return err
	}
	err = fmt.Errorf("changing forwarded ports of %s: qemu says: %s", dom.Name, answer)
	if m := hostForward.FindStringSubmatch(answer); m != nil {
		port, _ := strconv.Atoi(m[1])
		return &machine.PortTaken{Port: port, Err: err}
	}
	return err
}

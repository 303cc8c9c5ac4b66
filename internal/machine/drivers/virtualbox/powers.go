package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Describe implements machine.Describer.
func (d *Driver) Describe(ctx context.Context, i machine.Instance) (map[string]string, error) {
	facts := map[string]string{}
	if info, err := os.Stat(i.Spec.Path(diskFile)); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			const block = 512 // st_blocks counts these whatever the file system's own blocks are
			facts["disk_used_bytes"] = strconv.FormatInt(st.Blocks*block, 10)
		}
	}
	in, err := d.show(ctx, i.Spec.ID)
	if err != nil || in == nil {
		return facts, err
	}
	for fact, key := range map[string]string{
		"virtualbox_state": "VMState", "since": "VMStateChangeTime", "settings": "CfgFile", "virtualbox_logs": "LogFldr",
		"session": "SessionName", "graphics": "graphicscontroller", "guest_additions": "GuestAdditionsVersion", "mac": "macaddress1",
		"hostonly_adapter": "hostonlyadapter2",
	} {
		if in[key] != "" {
			facts[fact] = in[key]
		}
	}
	return facts, nil
}

// screenPattern matches the pictures that a killed command leaves.
const screenPattern = "screen-*.png"

// live fails unless the guest is in memory.
func (d *Driver) live(ctx context.Context, i machine.Instance) (info, error) {
	in, state, err := d.settle(ctx, i.Spec.ID)
	if err == nil && !state.Live() {
		err = fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	return in, err
}

// Screenshot implements machine.Screener.
func (d *Driver) Screenshot(ctx context.Context, i machine.Instance, w io.Writer) error {
	if _, err := d.live(ctx, i); err != nil {
		return err
	}
	f, err := os.CreateTemp(i.Spec.Dir, screenPattern)
	if err != nil {
		return fmt.Errorf("taking a picture of the screen: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // Destroy removes it, too
	defer f.Close()
	if _, err := d.vbox(ctx, changePatience, "controlvm", i.Spec.ID, "screenshotpng", f.Name()); err != nil {
		return err
	}
	picture, err := os.Open(f.Name()) // VBoxManage may have replaced the file
	if err != nil {
		return fmt.Errorf("taking a picture of the screen: %w", err)
	}
	defer picture.Close()
	if n, err := io.Copy(w, picture); err != nil || n == 0 {
		return fmt.Errorf("taking a picture of the screen: %d bytes: %w", n, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// viewPorts are those among which VirtualBox finds a free one by itself.
const viewPorts = "5900-5999"

// viewer asks which remote display VirtualBox has: what it speaks depends on
// the extension pack.
func (d *Driver) viewer(ctx context.Context) (string, error) {
	out, err := d.vbox(ctx, queryPatience, "list", "systemproperties")
	if err != nil {
		return "", err
	}
	return fields(out)["Remote desktop ExtPack"], nil
}

func (d *Driver) checkViewer(ctx context.Context) error {
	pack, err := d.viewer(ctx)
	if err == nil && pack == "" {
		return fail.New(fail.HostLacks, "this VirtualBox has no remote display").
			Hint("install its extension pack ('VBoxManage list extpacks' shows what is there), or use --display gui")
	}
	return err
}

// View implements machine.Viewer. The address is that of a VNC server where
// VirtualBox has that extension pack, and of an RDP server where it has Oracle's.
func (d *Driver) View(ctx context.Context, i machine.Instance) (string, error) {
	in, err := d.live(ctx, i)
	if err != nil {
		return "", err
	}
	port, err := strconv.Atoi(in["vrdeport"])
	if in["vrde"] != "on" || err != nil || port <= 0 {
		return "", fail.New(fail.NotFound, "%q has no remote display", i.Spec.Name).Hint("machines made with --display vnc have one")
	}
	pack, err := d.viewer(ctx)
	if err != nil {
		return "", err
	}
	scheme := "rdp"
	if pack == "VNC" {
		scheme = "vnc"
	}
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, port), nil
}

// SetForwards implements machine.Forwarder.
func (d *Driver) SetForwards(ctx context.Context, i machine.Instance, forwards []machine.Forward) error {
	id := i.Spec.ID
	in, state, err := d.ready(ctx, i.Spec)
	if err != nil {
		return err
	}
	if state == machine.Absent {
		return fail.New(fail.NotFound, "VirtualBox does not know %q (%s)", i.Spec.Name, id)
	}
	remove, add := exchange(in.rules(), rulesFor(forwards))
	if len(remove)+len(add) == 0 {
		return nil
	}
	if !state.Live() {
		err := d.modify(ctx, id, nil, ruleArgs(remove, add)...)
		if state == machine.Saved && says(err, "VBOX_E_INVALID_VM_STATE", "not mutable") {
			return nil // Start does it
		}
		return err
	}
	for _, r := range add {
		held := func(have rule) bool { return have.host == r.host }
		if anyRule(in.rules(), held) { // by this machine: freed below, or refused by VirtualBox
			continue
		}
		if err := free(ctx, r.host); err != nil {
			return &machine.PortTaken{Port: r.host, Err: err}
		}
	}
	return d.exchangeLive(ctx, id, remove, add)
}

func anyRule(rules []rule, is func(rule) bool) bool {
	for _, r := range rules {
		if is(r) {
			return true
		}
	}
	return false
}

// exchangeLive changes the rules of a machine that runs, one by one, and back
// if one fails.
func (d *Driver) exchangeLive(ctx context.Context, id string, remove, add []rule) error {
	var back [][]string
	err := func() error {
		for _, r := range remove {
			if _, err := d.vbox(ctx, changePatience, "controlvm", id, "natpf1", "delete", r.name); err != nil {
				return err
			}
			back = append(back, []string{r.text})
		}
		for _, r := range add {
			back = append(back, []string{"delete", r.name}) // it may be there after a failure
			if _, err := d.vbox(ctx, changePatience, "controlvm", id, "natpf1", r.text); err != nil {
				return err
			}
			if err := d.heldSoon(ctx, r); err != nil {
				return err
			}
		}
		return nil
	}()
	if err == nil {
		return nil
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), changePatience)
	defer cancel()
	for n := len(back) - 1; n >= 0; n-- {
		if _, berr := d.vbox(after, changePatience, append([]string{"controlvm", id, "natpf1"}, back[n]...)...); berr != nil {
			d.log.Debug("taking a forwarded port back", "rule", back[n], "error", berr)
		}
	}
	return fmt.Errorf("forwarding ports: %w", err)
}

// heldSoon waits until VirtualBox listens: it reports success before it tries.
func (d *Driver) heldSoon(ctx context.Context, r rule) error {
	const tries, poll = 60, 50 * time.Millisecond
	for range tries {
		if free(ctx, r.host) != nil {
			return nil
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
	return fmt.Errorf("VirtualBox does not listen on port %d", r.host)
}

package virtualbox

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// A machine's settings file in its folder is the machine; that VirtualBox has it
// in its list is repaired when it is needed. So a folder can be moved: VirtualBox
// then looks for the file where it was.

// settingsFile finds the settings file in the machine's folder, and what is in
// it; empty where there is none of that machine.
func settingsFile(s machine.Spec) (string, []byte) {
	found, _ := filepath.Glob(filepath.Join(globQuote(s.Path(ownFolder)), "*", "*.vbox")) // well formed
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if m := machineID.FindSubmatch(data); m != nil && strings.EqualFold(string(m[1]), s.ID) {
			return path, data
		}
	}
	return "", nil
}

// lost reports whether VirtualBox does not know where the machine's file is.
func (in info) lost() bool {
	if in == nil || in.inaccessible() {
		return true
	}
	_, err := os.Stat(in["CfgFile"])
	return in["CfgFile"] != "" && errors.Is(err, os.ErrNotExist)
}

var savedState = regexp.MustCompile(`<Machine [^>]*stateFile="`)

// offState is the state of a machine that VirtualBox has lost.
func offState(settings []byte) machine.State {
	if savedState.Match(settings) {
		return machine.Saved
	}
	return machine.Stopped
}

// ready waits until the machine can be changed, and first lets VirtualBox find
// it again if it has lost it.
func (d *Driver) ready(ctx context.Context, s machine.Spec) (info, machine.State, error) {
	in, state, err := d.settle(ctx, s.ID)
	if err != nil && !in.inaccessible() || !in.lost() {
		return in, state, err
	}
	path, data := settingsFile(s)
	if path == "" {
		return in, state, err
	}
	d.log.Info("letting VirtualBox find the machine again", "machine", s.Name, "file", path)
	if in != nil {
		if _, err := d.vbox(ctx, longPatience, "unregistervm", s.ID); err != nil && !unregistered(err) {
			return in, state, err
		}
	}
	if err := d.adopt(ctx, s, path, data); err != nil {
		return in, state, fmt.Errorf("letting VirtualBox find %q again: %w", s.Name, err)
	}
	return d.settle(ctx, s.ID)
}

var diskLocation = regexp.MustCompile(`location="([^"]*)/` + regexp.QuoteMeta(diskFile) + `"`)

// adopt puts the machine into VirtualBox's list, from the folder that it is in.
// Its file names the media by where they were.
func (d *Driver) adopt(ctx context.Context, s machine.Spec, path string, data []byte) error {
	if m := diskLocation.FindSubmatch(data); m != nil {
		var was struct {
			Text string `xml:",chardata"`
		}
		if err := xml.Unmarshal(append(append([]byte("<a>"), m[1]...), "</a>"...), &was); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		if filepath.IsAbs(was.Text) && was.Text != s.Dir {
			if err := d.closeMedia(ctx, was.Text); err != nil {
				return err
			}
			var now bytes.Buffer
			if err := xml.EscapeText(&now, []byte(s.Dir)); err != nil {
				return err
			}
			before := append(append([]byte(`"`), m[1]...), '/')
			after := append(append([]byte(`"`), now.Bytes()...), '/')
			if err := atomicfile.Write(path, bytes.ReplaceAll(data, before, after), 0o600); err != nil {
				return err
			}
		}
	}
	_, err := d.vbox(ctx, changePatience, "registervm", path)
	return err
}

// Change implements machine.Changer.
func (d *Driver) Change(ctx context.Context, i machine.Instance, to machine.Spec) (machine.Instance, error) {
	if err := check(to); err != nil {
		return i, err
	}
	in, state, err := d.ready(ctx, to)
	if err != nil {
		return i, err
	}
	if state != machine.Stopped {
		return i, fail.New(fail.Conflict, "%q is %s", i.Spec.Name, state)
	}
	if in["name"] != to.Name {
		if _, err := d.vbox(ctx, changePatience, "modifyvm", to.ID, "--name", to.Name); err != nil {
			return i, err
		}
		if in, err = d.show(ctx, to.ID); err != nil { // its folder has another name, too
			return i, err
		}
	}
	if err := d.modify(ctx, to.ID, differing(settings(to), in)); err != nil {
		return i, err
	}
	if err := d.grow(ctx, in[slot{controller: sataController}.key()], to.DiskMiB); err != nil {
		return i, err
	}
	if !slices.Equal(to.Shares, i.Spec.Shares) {
		if err := d.changeShares(ctx, i.Spec, to, in); err != nil {
			return i, err
		}
	}
	to.Context, to.PublicKeys = nil, nil
	i.Spec = to
	return i, nil
}

// grow makes a disk larger, if it is smaller: what lies beyond a smaller end
// would be lost.
func (d *Driver) grow(ctx context.Context, disk string, mib int64) error {
	have, err := d.capacity(ctx, disk)
	if err != nil || have >= mib {
		return err
	}
	_, err = d.vbox(ctx, longPatience, "modifymedium", "disk", disk, "--resize", strconv.FormatInt(mib, 10))
	return err
}

// capacity is the size of a disk as the guest sees it, in mebibytes.
func (d *Driver) capacity(ctx context.Context, disk string) (int64, error) {
	out, err := d.vbox(ctx, queryPatience, "showmediuminfo", "disk", disk)
	if err != nil {
		return 0, err
	}
	have, err := strconv.ParseInt(strings.TrimSuffix(fields(out)["Capacity"], " MBytes"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the size of %s cannot be told: %.200q", disk, out)
	}
	return have, nil
}

// changeShares gives the machine the shares of to in place of from's, and tells
// the guest of them. Shares that the user made in VirtualBox stay.
func (d *Driver) changeShares(ctx context.Context, from, to machine.Spec, in info) error {
	exchange := func(ctx context.Context, old, next machine.Spec, in info) error {
		there := in.shares()
		for _, share := range old.Shares {
			if _, has := there[share.Name]; !has || slices.Contains(next.Shares, share) {
				continue
			}
			if err := d.removeShare(ctx, old.ID, share.Name); err != nil {
				return err
			}
			delete(there, share.Name)
		}
		return d.mendShares(ctx, next, there)
	}
	err := exchange(ctx, from, to, in)
	if err == nil {
		if err = writeConfigDrive(ctx, to); err == nil {
			return nil
		}
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), changePatience)
	defer cancel()
	from.ID, from.Dir = to.ID, to.Dir
	now, serr := d.show(after, to.ID)
	if serr == nil {
		serr = exchange(after, to, from, now)
	}
	if serr != nil {
		d.log.Warn("the shares of before could not be put back", "machine", to.Name, "error", serr)
	}
	return fmt.Errorf("changing shares: %w", err)
}

// Clone implements machine.Cloner.
func (d *Driver) Clone(ctx context.Context, from machine.Instance, s machine.Spec) (machine.Instance, error) {
	in, state, err := d.ready(ctx, from.Spec)
	if err != nil {
		return machine.Instance{}, err
	}
	if state != machine.Stopped {
		return machine.Instance{}, fail.New(fail.Conflict, "%q is %s", from.Spec.Name, state)
	}
	source := in[slot{controller: sataController}.key()]
	return d.create(ctx, s, func(ctx context.Context) error {
		if _, err := d.vbox(ctx, longPatience, "clonemedium", "disk", source, s.Path(diskFile), "--format", "VDI"); err != nil {
			return err
		}
		return d.makeMore(ctx, s, ownDisks(from.Spec, in))
	})
}

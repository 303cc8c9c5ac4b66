package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// Destroy implements machine.Driver.
//
// It never says 'unregistervm --delete': that deletes every hard disk the
// machine or one of its snapshots uses, those included that a user attached.
// The machine is taken out of VirtualBox, and the files in its folder are
// removed, which are all that mica made.
//
// Differs: libcernvm src/Hypervisor/Virtualbox/VBoxSession.cpp does, and does
// so after the third failure of any step.
func (d *Driver) Destroy(ctx context.Context, i machine.Instance) error {
	s := i.Spec
	if s.Dir == "" {
		return errors.New("a machine without a folder")
	}
	if s.ID == "" {
		s.ID = idOf(s)
	}
	if s.ID != "" {
		if err := d.forget(ctx, s); err != nil {
			return err
		}
	}
	errs := []error{os.RemoveAll(s.Path(ownFolder))}
	for _, pattern := range []string{logFile, logFile + ".*", diskFile, configFile, sourcePrefix + ".*", screenPattern, morePrefix + "*.vdi", morePrefix + "*.vmdk", morePrefix + "*.raw", morePrefix + "*.opened"} {
		names, _ := filepath.Glob(filepath.Join(globQuote(s.Dir), pattern)) // the pattern is well formed
		for _, name := range names {
			if info, err := os.Lstat(name); err == nil && filepath.Ext(name) == ".raw" && info.Mode().Type() != os.ModeSymlink {
				continue // a disk's content is never mica's here, links to it are
			}
			errs = append(errs, removeFile(name))
		}
	}
	return errors.Join(errs...)
}

// globQuote makes a folder's name stand for itself in a pattern.
func globQuote(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

var machineID = regexp.MustCompile(`<Machine uuid="\{([0-9a-fA-F-]{36})\}"`)

// idOf finds the id of a machine whose record cannot be read in VirtualBox's
// own file.
func idOf(s machine.Spec) string {
	found, _ := filepath.Glob(filepath.Join(globQuote(s.Path(ownFolder)), "*", "*.vbox"))
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if m := machineID.FindSubmatch(data); m != nil {
			return string(m[1])
		}
	}
	return ""
}

// forget takes the machine and its media out of VirtualBox.
func (d *Driver) forget(ctx context.Context, s machine.Spec) error {
	in, err := d.show(ctx, s.ID)
	if err != nil {
		if _, serr := os.Stat(s.Path(ownFolder)); fail.Is(err, fail.HostLacks) && ctx.Err() == nil && serr != nil {
			return nil // without VirtualBox, and never made
		}
		return err
	}
	if in == nil {
		return errors.Join(d.releaseDisks(ctx, s), d.closeMedia(ctx, s.Dir))
	}
	if !in.inaccessible() {
		m, err := in.mode()
		if err != nil {
			return err
		}
		if m.passing || m.state != machine.Stopped || in.holder() != "" {
			if err := d.powerOff(ctx, s.ID); err != nil {
				return err
			}
			if in, _, err = d.settle(ctx, s.ID); err != nil {
				return err
			}
		}
		d.detachForeign(ctx, s, in)
	}
	if in != nil {
		if _, err := d.vbox(ctx, longPatience, "unregistervm", s.ID); err != nil && !unregistered(err) {
			return err
		}
	}
	if err := d.releaseDisks(ctx, s); err != nil {
		return err
	}
	return d.closeMedia(ctx, s.Dir)
}

var slotKey = regexp.MustCompile(`^(.+)-(\d+)-(\d+)$`)

// detachForeign takes out the media that are not in the machine's folder. Those
// that snapshots use stay where they are: nobody deletes them.
func (d *Driver) detachForeign(ctx context.Context, s machine.Spec, in info) {
	for key, medium := range in {
		m := slotKey.FindStringSubmatch(key)
		if m == nil || !filepath.IsAbs(medium) || within(s.Dir, medium) {
			continue
		}
		if _, err := d.vbox(ctx, changePatience, "storageattach", s.ID, "--storagectl", m[1], "--port", m[2], "--device", m[3], "--medium", "none"); err != nil {
			d.log.Info("could not detach a medium", "machine", s.Name, "medium", medium, "error", err)
			continue
		}
		if key != additionsSlot.key() || option(s, optAdditions) == "off" {
			continue
		}
		// Mica put it there, and so into VirtualBox's list of media.
		if _, err := d.vbox(ctx, changePatience, "closemedium", "dvd", medium); err != nil {
			d.log.Debug("the guest additions stay in VirtualBox's list", "medium", medium, "error", err)
		}
	}
}

// closeMedia takes the media in a folder out of VirtualBox's list.
func (d *Driver) closeMedia(ctx context.Context, dir string) error {
	for _, kind := range []struct{ list, name string }{{"hdds", "disk"}, {"dvds", "dvd"}} {
		out, err := d.vbox(ctx, queryPatience, "list", kind.list)
		if err != nil {
			return err
		}
		var ours []string
		for _, medium := range records(out) {
			if within(dir, medium["Location"]) {
				ours = append(ours, medium["UUID"])
			}
		}
		// A disk that others are differences to is closed after them. One that
		// is gone meanwhile is taken for the name of a file.
		for len(ours) > 0 {
			var left []string
			var errs []error
			for _, id := range ours {
				if _, err := d.vbox(ctx, changePatience, "closemedium", kind.name, id); err != nil && !unregistered(err) && !says(err, "is not fully qualified") {
					left, errs = append(left, id), append(errs, err)
				}
			}
			if len(left) == len(ours) {
				return fmt.Errorf("closing media in %s: %w", dir, errors.Join(errs...))
			}
			ours = left
		}
	}
	return nil
}

package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/undo"
)

// The controllers, and what is in their slots.
const (
	ideController    = "IDE"
	sataController   = "SATA"
	floppyController = "Floppy"
)

// slot is a place for a medium.
type slot struct {
	controller   string
	port, device int
	kind         string // hdd or dvddrive
	path         string
}

func (s slot) key() string { return fmt.Sprintf("%s-%d-%d", s.controller, s.port, s.device) }

// slots are the media of a machine: what it boots in IDE 0:0, its disk in SATA
// 0:0, its context in SATA 1:0.
//
// Compat: libcernvm src/Hypervisor/Virtualbox/VBoxSession.cpp uses the same
// slots. Differs: a machine made of a disk image boots its own copy, which is
// then its only disk, in SATA 0:0; there it boots a shared one in IDE 0:0.
func slots(s machine.Spec) []slot {
	var list []slot
	if s.Image.Format == "" {
		list = append(list, slot{ideController, 0, 0, "dvddrive", s.ImagePath()})
	}
	list = append(list,
		slot{sataController, 0, 0, "hdd", s.Path(diskFile)},
		slot{sataController, 1, 0, "dvddrive", s.Path(configFile)})
	for n := range s.Disks {
		list = append(list, moreSlot(s, n))
	}
	return list
}

// Create implements machine.Driver.
func (d *Driver) Create(ctx context.Context, s machine.Spec) (machine.Instance, error) {
	return d.create(ctx, s, func(ctx context.Context) error {
		return errors.Join(d.makeDisk(ctx, s), d.makeMore(ctx, s, nil))
	})
}

func (d *Driver) create(ctx context.Context, s machine.Spec, makeDisk func(context.Context) error) (machine.Instance, error) {
	i := machine.Instance{Spec: s}
	i.Spec.Context, i.Spec.PublicKeys = nil, nil
	if err := check(s); err != nil {
		return machine.Instance{}, err
	}
	in, err := d.show(ctx, s.ID)
	if err != nil {
		return machine.Instance{}, err
	}
	if in != nil {
		return machine.Instance{}, fail.New(fail.Conflict, "VirtualBox has a machine %s already", s.ID)
	}
	if err := haveDisks(s); err != nil {
		return machine.Instance{}, err
	}
	for _, path := range []string{s.Path(diskFile), s.Path(ownFolder)} {
		if _, err := os.Lstat(path); err == nil {
			return machine.Instance{}, fail.New(fail.Conflict, "%s is there already", path)
		}
	}
	u := undo.New(d.log)
	defer u.Run(ctx)
	u.Add("machine "+s.Name, func(ctx context.Context) error { return d.Destroy(ctx, i) })
	if err := d.build(ctx, s, makeDisk); err != nil {
		return machine.Instance{}, err
	}
	if s.Image.Format != "" { // it may be larger than what was asked for
		have, err := d.capacity(ctx, s.Path(diskFile))
		if err != nil {
			return machine.Instance{}, err
		}
		i.Spec.DiskMiB = max(i.Spec.DiskMiB, have)
	}
	if err := ctx.Err(); err != nil {
		return machine.Instance{}, fmt.Errorf("creating machine: %w", err)
	}
	u.Release()
	return i, nil
}

// build makes the machine step by step. VirtualBox would make one beside
// another of the same name: every command names the machine by its id.
func (d *Driver) build(ctx context.Context, s machine.Spec, makeDisk func(context.Context) error) error {
	if err := writeConfigDrive(ctx, s); err != nil {
		return err
	}
	list := settings(s)
	if s.Display == machine.DisplayVNC {
		if err := d.checkViewer(ctx); err != nil {
			return err
		}
	}
	if s.Network == networkHostOnly {
		card, err := d.hostOnly(ctx, s)
		if err != nil {
			return err
		}
		list = append(list, card...)
	}
	run := func(args ...string) error {
		_, err := d.vbox(ctx, changePatience, args...)
		return err
	}
	if err := run("createvm", "--name", s.Name, "--ostype", option(s, optOSType), "--uuid", s.ID, "--basefolder", s.Path(ownFolder), "--register"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"storagectl", s.ID, "--name", ideController, "--add", "ide"},
		{"storagectl", s.ID, "--name", sataController, "--add", "sata", "--portcount", strconv.Itoa(firstPlaces + len(s.Disks))},
		{"storagectl", s.ID, "--name", floppyController, "--add", "floppy"},
	} {
		if err := run(args...); err != nil {
			return err
		}
	}
	if err := d.modify(ctx, s.ID, list, ruleArgs(nil, rulesFor(s.Forwards))...); err != nil {
		return err
	}
	for _, share := range s.Shares {
		if err := d.addShare(ctx, s.ID, share); err != nil {
			return err
		}
	}
	if err := makeDisk(ctx); err != nil {
		return err
	}
	for _, slot := range slots(s) {
		if err := d.attach(ctx, s.ID, slot); err != nil {
			return err
		}
	}
	return d.addAdditions(ctx, s)
}

// maxShare is more than the longest name of a share: VirtualBox takes them all.
const maxShare = 255

func writeConfigDrive(ctx context.Context, s machine.Spec) error {
	f, err := atomicfile.Create(s.Path(configFile), 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // Commit reports
	if err := machine.WriteMedium(ctx, f, s, s.Shared("vboxsf", maxShare)); err != nil {
		return err
	}
	return f.Commit()
}

func (d *Driver) attach(ctx context.Context, id string, s slot) error {
	_, err := d.vbox(ctx, changePatience, "storageattach", id, "--storagectl", s.controller,
		"--port", strconv.Itoa(s.port), "--device", strconv.Itoa(s.device), "--type", s.kind, "--medium", s.path)
	return err
}

// makeDisk makes the machine's disk: an empty one, or its copy of a disk image.
func (d *Driver) makeDisk(ctx context.Context, s machine.Spec) error {
	size := strconv.FormatInt(s.DiskMiB, 10)
	if s.Image.Format == "" {
		_, err := d.vbox(ctx, changePatience, "createmedium", "disk", "--filename", s.Path(diskFile), "--size", size, "--format", "VDI")
		return err
	}
	if err := d.copyImage(ctx, s); err != nil {
		return err
	}
	return d.grow(ctx, s.Path(diskFile), s.DiskMiB)
}

// copyImage converts the image to the machine's own disk. VirtualBox knows
// disks by the UUID inside them and refuses a second file with the same one,
// which every machine of that image would bring: so the copy gets a new one
// first.
func (d *Driver) copyImage(ctx context.Context, s machine.Spec) error {
	if s.Image.Format == "raw" {
		_, err := d.vbox(ctx, longPatience, "convertfromraw", s.ImagePath(), s.Path(diskFile), "--format", "VDI")
		return err
	}
	source := s.Path(sourcePrefix + "." + s.Image.Format)
	if err := copyFile(ctx, s.ImagePath(), source); err != nil {
		return err
	}
	if _, err := d.vbox(ctx, changePatience, "internalcommands", "sethduuid", source, uuid.NewString()); err != nil {
		return err
	}
	if _, err := d.vbox(ctx, longPatience, "clonemedium", "disk", source, s.Path(diskFile), "--format", "VDI"); err != nil {
		return err
	}
	if _, err := d.vbox(ctx, changePatience, "closemedium", "disk", source); err != nil {
		return err
	}
	return os.Remove(source)
}

// sourcePrefix begins the name of the copy that a disk is made of.
const sourcePrefix = "source"

func copyFile(ctx context.Context, from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying disk image: %w", err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("copying disk image: %w", err)
	}
	for err == nil && ctx.Err() == nil {
		_, err = io.CopyN(dst, src, 16<<20)
	}
	if err == io.EOF { //nolint:errorlint // CopyN returns it bare
		err = nil
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("copying disk image: %w", err)
	}
	return nil
}

// symlinksKey begins the name of the permission to make symbolic links in a share.
const symlinksKey = "VBoxInternal2/SharedFoldersEnableSymlinksCreate/"

// addShare gives the guest a folder. The permission to make symbolic links in
// it counts only for shares that come after it.
func (d *Driver) addShare(ctx context.Context, id string, s machine.Share) error {
	if _, err := d.vbox(ctx, changePatience, "setextradata", id, symlinksKey+s.Name, "1"); err != nil {
		return err
	}
	args := []string{"sharedfolder", "add", id, "--name", s.Name, "--hostpath", s.Path, "--automount"}
	if s.ReadOnly {
		args = append(args, "--readonly")
	}
	_, err := d.vbox(ctx, changePatience, append(args, "--auto-mount-point", "/mnt/shared/"+s.Name)...)
	if syntax(err) { // not before 6.0: there the additions choose the place
		_, err = d.vbox(ctx, changePatience, args...)
	}
	return err
}

// removeShare takes a folder away, and the permission that went with it.
func (d *Driver) removeShare(ctx context.Context, id, name string) error {
	if _, err := d.vbox(ctx, changePatience, "sharedfolder", "remove", id, "--name", name); err != nil {
		return err
	}
	_, err := d.vbox(ctx, changePatience, "setextradata", id, symlinksKey+name)
	return err
}

// additionsSlot is the place of the guest additions' ISO.
var additionsSlot = slot{controller: sataController, port: 2, kind: "dvddrive"}

// addAdditions puts the guest additions' ISO into its place.
func (d *Driver) addAdditions(ctx context.Context, s machine.Spec) error {
	path := option(s, optAdditions)
	switch path {
	case "off":
		return nil
	case "on", "auto":
		out, err := d.vbox(ctx, queryPatience, "list", "systemproperties")
		if err != nil {
			return err
		}
		path = fields(out)["Default Guest Additions ISO"]
	}
	if _, err := os.Stat(path); path == "" || err != nil {
		if option(s, optAdditions) == "auto" {
			d.log.Info("VirtualBox has no guest additions here")
			return nil
		}
		return fail.New(fail.HostLacks, "there is no ISO image of the guest additions %q", path).
			Hint("install package virtualbox-guest-additions-iso, or name the image in option additions")
	}
	place := additionsSlot
	place.path = path
	return d.attach(ctx, s.ID, place)
}

// fields reads the lines "Key: value" that VBoxManage writes for people where
// it has nothing for programs. Of two lines with one key the first counts.
func fields(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if _, twice := all[key]; ok && !twice {
			all[key] = strings.TrimSpace(value)
		}
	}
	return all
}

// records reads blocks of such lines, divided by empty ones.
func records(text string) []map[string]string {
	var all []map[string]string
	for block := range strings.SplitSeq(text, "\n\n") {
		if one := fields(block); len(one) > 0 {
			all = append(all, one)
		}
	}
	return all
}

// within reports whether a path is in a folder.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != "." && rel != ".." && !strings.HasPrefix(rel, "../")
}

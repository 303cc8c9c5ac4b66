package plugins

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

var deviceName = regexp.MustCompile(`^[a-z][a-z0-9]{1,15}$`)

// Compat: amiconfig: rpath/amiconfig/plugins/storage.py: swap is turned on, each
// ephemeral disk is mounted on /ephemeral/N, the paths move to the disks in turn.
//
// Differs: mounts are made at every boot; the daemon that grows files on slow disks
// of 2008 is not there, so daemon and pre-allocated-space do nothing.
func storage() Plugin {
	return Plugin{
		Name: "storage", Does: "uses the platform's ephemeral disks",
		Keys: []Key{
			{Name: "daemon", Kind: Bool, Meaning: "grow files ahead of use", NoEffect: true},
			{Name: "pre-allocated-space", Kind: Integer, Meaning: "GB to allocate ahead", NoEffect: true},
			{Name: "relocate-paths", Kind: Text, Meaning: "directories to move to the disks, separated by colons"},
		},
		Apply: func(_ context.Context, c *Call) error {
			var p problems
			for _, key := range []string{"daemon", "pre-allocated-space"} {
				if v, ok := c.Section.Lookup(key); ok && v != "" && v != "0" {
					if on, err := truth(v); err != nil || on {
						c.Warn("%s has no effect: disks need no preallocation any more", key)
					}
				}
			}
			_, err := relocatePaths(c.Section)
			p.add(err)
			return p.err()
		},
		EveryBoot: func(ctx context.Context, c *Call) error {
			var p problems
			var mounts []string
			for _, name := range blockDevices(c.Root) {
				device := strings.TrimPrefix(metadata(c.Root, "block-device-mapping/"+name), "/dev/")
				if !deviceName.MatchString(device) {
					p.addf("%s: %q is not the name of a disk", name, device)
					continue
				}
				if !c.Root.Exists("/dev/"+device) && !c.Root.Pretend() {
					device = renamed(c.Root, device)
					if device == "" {
						continue // compat with clouds that list disks a machine type lacks
					}
				}
				if name == "swap" {
					_, err := c.Root.Run(ctx, "swapon", "/dev/"+device)
					p.add(err)
					continue
				}
				target := "/ephemeral/" + strings.TrimPrefix(name, "ephemeral")
				if p.add(c.Root.Mount(ctx, "/dev/"+device, target)) {
					mounts = append(mounts, target)
				}
			}
			paths, _ := relocatePaths(c.Section)
			for i, from := range paths {
				if len(mounts) > 0 {
					p.add(relocate(ctx, c.Root, from, mounts[i%len(mounts)]))
				}
			}
			return p.err()
		},
	}
}

func relocatePaths(s Section) ([]string, error) {
	var p problems
	var paths []string
	for entry := range strings.SplitSeq(s.Get("relocate-paths", ""), ":") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		clean := path.Clean(entry)
		top := strings.Count(clean, "/") < 2 && clean != "/srv" && clean != "/opt" && clean != "/scratch" && clean != "/data"
		if !path.IsAbs(entry) || top || strings.HasPrefix(clean, "/ephemeral") {
			p.addf("relocate-paths: %q is not a directory that can be moved", entry)
			continue
		}
		paths = append(paths, clean)
	}
	return paths, p.err()
}

// blockDevices returns swap and ephemeralN of the platform's list, sorted.
func blockDevices(root *guest.Root) []string {
	var names []string
	for _, file := range root.Glob(metadataDir+"block-device-mapping", "*") {
		name := path.Base(file)
		if n := strings.TrimPrefix(name, "ephemeral"); name == "swap" || n != name && n != "" && strings.Trim(n, "0123456789") == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// renamed finds a disk that the platform calls sdX under the names of paravirtual
// drivers.
func renamed(root *guest.Root, device string) string {
	letter, ok := strings.CutPrefix(device, "sd")
	if !ok {
		return ""
	}
	for _, prefix := range []string{"vd", "xvd"} {
		if root.Exists("/dev/" + prefix + letter) {
			return prefix + letter
		}
	}
	return ""
}

// relocate moves a directory to a disk and leaves a link.
func relocate(ctx context.Context, root *guest.Root, from, disk string) error {
	to := path.Join(disk, from)
	if real, err := root.Real(from); err == nil && real == to {
		return nil
	}
	if err := root.MkdirAll(path.Dir(to), guest.Attr{}); err != nil {
		return err
	}
	if root.Exists(from) && !root.Exists(to) {
		// Another file system: cp keeps owners, modes, links and attributes.
		if _, err := root.Run(ctx, "cp", "-a", "--", from, to); err != nil {
			return fmt.Errorf("moving %s to %s: %w", from, to, err)
		}
	} else if err := root.MkdirAll(to, guest.Attr{}); err != nil {
		return err
	}
	if root.Exists(from) {
		if root.Exists(from + ".orig") {
			return fmt.Errorf("moving %s to %s: %s.orig is in the way", from, to, from)
		}
		if err := root.Rename(from, from+".orig"); err != nil {
			return err
		}
	}
	return root.Symlink(to, from)
}

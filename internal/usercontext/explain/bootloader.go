package explain

import (
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

// bootLoader tells what happens before the operating system is there.
func bootLoader(c *usercontext.Context) Agent {
	a := Agent{Name: "Boot loader, before the operating system is there"}
	b := c.Block()
	if !b.Found {
		a.Summary = "Nothing in the context is for it: repository, servers and proxies are the image's own."
		if b.End != 0 {
			a.Summary = "An end marker comes before any begin marker, so it reads no key at all."
		}
		return a
	}
	a.Summary = "On the first boot it takes these keys, which the disk then keeps; everything else is the image's own."
	keys, problems := b.BootKeys()
	bad := map[int]bool{}
	for _, p := range problems {
		bad[p.Line] = true
	}
	original := map[int]usercontext.Setting{}
	for _, s := range c.Original().Block.Settings {
		original[s.Line] = s
	}
	last := map[string]int{}
	for _, s := range b.Settings {
		last[s.Key] = s.Line
	}
	for _, s := range b.Settings {
		step := Step{Line: s.Line}
		switch {
		case last[s.Key] != s.Line && c.Glidein == nil:
			step.Text = fmt.Sprintf("ignores this %s: line %d has it again", s.Key, last[s.Key])
		case bad[s.Line]:
			step.Text = fmt.Sprintf("ignores %s: the value does not fit", s.Key)
		case ignored(s.Key) != "":
			step.Text = fmt.Sprintf("ignores %s: %s", s.Key, ignored(s.Key))
		default:
			step.Text = bootText(s, keys)
		}
		if o, ok := original[s.Line]; c.Glidein == nil {
			if !ok {
				step.Original = "does not see the line, because the part is encoded"
			} else {
				step.Original = shellText(o, s)
			}
		}
		a.Steps = append(a.Steps, step)
	}
	return a
}

// bootText says what one key does.
func bootText(s usercontext.Setting, k usercontext.BootKeys) string {
	switch s.Key {
	case "cvmfs_branch":
		return "mounts the repository " + k.Branch + " as the operating system"
	case "cernvm_path":
		return "takes the directory " + k.Path + " of the repository as the root"
	case "cvmfs_tag":
		return "uses the snapshot named " + k.Tag + ", unless the disk has one already"
	case "cvmfs_server":
		return "downloads from " + strings.Join(k.Servers, ", then ") + ", not from a content delivery network"
	case "cvmfs_cdn":
		if k.NoCDN {
			return "uses no content delivery network"
		}
		return "downloads from the content delivery network " + strings.Join(k.CDN, ", ")
	case "cvmfs_http_proxy":
		return "downloads through the proxies " + k.HTTPProxy
	case "cvmfs_wait_on_squid":
		return fmt.Sprintf("waits until a proxy answers, trying each for %v", k.WaitOnSquid)
	case "resize_rootfs":
		if k.ResizeRootfs != nil && *k.ResizeRootfs {
			return "uses the whole disk"
		}
		return "uses at most 20 GiB of the disk"
	case "use_boothd":
		if k.UseBootHD != nil && *k.UseBootHD {
			return "keeps its data on the boot disk"
		}
		return "keeps its data on a disk of its own"
	case "cernvm_inject":
		return fmt.Sprintf("unpacks an archive of %d bytes at the root, once", len(k.Inject))
	case "swap_size":
		return "makes a swap file of size " + k.SwapSize
	case "cvm_cluster_pin":
		if k.ClusterMaster {
			return "tells the other machines of its cluster where it is"
		}
		return "waits for the head of its cluster, and puts its address into the context"
	case "cvm_cluster_master":
		if k.ClusterMaster {
			return "is the head of its cluster"
		}
		return "is not the head of its cluster"
	case "cvm_service_url":
		return "pairs with the machines of its cluster through " + s.Value
	}
	return "ignores " + s.Key + ", which it does not know"
}

// ignored says why Mica does nothing with a key.
func ignored(key string) string {
	for _, k := range usercontext.BootKeyTable() {
		if k.Name == key {
			return k.Ignored
		}
	}
	return ""
}

// shellText says how the original's shell reads the line, when that differs.
func shellText(o, s usercontext.Setting) string {
	switch o.Shell.Kind {
	case usercontext.Lost, usercontext.Unseen:
		return "does not set it: " + o.Shell.Why
	case usercontext.Cut:
		return fmt.Sprintf("sets it to %q only: %s", o.Shell.Value, o.Shell.Why)
	case usercontext.Expands:
		return o.Shell.Why
	case usercontext.Set:
		for _, key := range usercontext.BootKeyTable() {
			if key.Name == s.Key && key.Kind != "bool" && o.Shell.Value != s.Value {
				return fmt.Sprintf("sets it to %q", o.Shell.Value)
			}
		}
	}
	return ""
}

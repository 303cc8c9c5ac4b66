package amiconfig

import (
	"context"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/boot/repository"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

const hostKey = "/etc/ssh/ssh_host_ed25519_key"

// facts are what a host wants to know of a machine that is set up.
func facts(ctx context.Context, root *guest.Root) map[string]string {
	found := map[string]string{}
	if key := sshHostKey(ctx, root); key != "" {
		found["ssh_host_key"] = key
	}
	const cache = "/mnt/.rw/cache"
	entries, err := root.ReadDir(cache)
	if err != nil || !root.Live() {
		return found
	}
	for _, e := range entries {
		if !e.IsDir() || !root.Exists(path.Join(cache, e.Name(), "cvmfs_io."+e.Name())) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, err := repository.ReadStatus(ctx, path.Join(cache, e.Name()))
		cancel()
		if err != nil {
			root.Log().Warn("repository status", "error", err)
			continue
		}
		found["downloaded_bytes"] = strconv.FormatInt(status.Bytes, 10)
		found["downloaded_objects"] = strconv.FormatInt(status.Objects, 10)
		break
	}
	return found
}

// sshHostKey returns the line of the ed25519 host key, with which the host can
// tell this machine from another. Where there is a server but no keys yet, they
// are made now, as the distribution's own service would a moment later.
func sshHostKey(ctx context.Context, root *guest.Root) string {
	if !root.Exists(hostKey) && root.Live() && root.Has("/usr/sbin/sshd") && root.Has("ssh-keygen") {
		if _, err := root.Run(ctx, "ssh-keygen", "-A"); err != nil {
			root.Log().Warn("making host keys", "error", err)
		}
	}
	data, err := root.ReadFile(hostKey + ".pub")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return ""
	}
	return fields[0] + " " + fields[1] // the comment names the build machine at times
}

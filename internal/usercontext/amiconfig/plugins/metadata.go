package plugins

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// metadataDir is the tree of the metadata service, as amiconfig keeps it.
const metadataDir = "/var/lib/amiconfig/2007-12-15/meta-data/"

// metadata returns one value of the platform, "" where it gave none.
func metadata(root *guest.Root, name string) string {
	data, err := root.ReadFile(metadataDir + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// outboundIP returns the address this machine has towards the rest of the world.
//
// Compat: found by connecting a UDP socket, which sends nothing (amiconfig:
// cernvm/amiconfig/plugins/condor.py).
func outboundIP(ctx context.Context, root *guest.Root) (string, error) {
	if root.Pretend() {
		return "192.0.2.1", nil // an address for documentation
	}
	conn, err := root.Dial(ctx, "udp", "8.8.8.8:53")
	if err != nil {
		return "", fmt.Errorf("finding this machine's address: %w", err)
	}
	defer conn.Close()
	addr, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return "", errors.New("finding this machine's address: not an IP address")
	}
	return addr.IP.String(), nil
}

// ownName returns the machine's full name: what the platform calls it, which the
// agent itself never changes, else what the system does.
func ownName(c *Call) string {
	if c.Meta.Hostname != "" {
		return c.Meta.Hostname
	}
	for _, file := range []string{"/proc/sys/kernel/hostname", "/etc/hostname"} {
		if data, err := c.Root.ReadFile(file); err == nil {
			if name := strings.TrimSpace(string(data)); name != "" && name != "(none)" {
				return name
			}
		}
	}
	return "localhost"
}

//go:build !linux

package metadata

import (
	"errors"
	"net"
	"net/netip"
)

// Neighbour asks the kernel which hardware address is behind an address.
func Neighbour(netip.Addr) (net.HardwareAddr, error) { return nil, errors.ErrUnsupported }

func oneHop(net.Conn) {}

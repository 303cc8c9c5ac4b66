package virtualbox

import (
	"context"
	"net/netip"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// hostOnly finds, or makes, a network that only this computer and its guests
// see, and returns the second network card that leads to it. Networks are of
// the computer, not of the machine: nothing removes them.
//
// Compat: libcernvm src/Hypervisor/Virtualbox/VBoxCommon.cpp. Differs: it uses
// the first interface though it looked for one with DHCP, and drops the
// forwarded ports.
func (d *Driver) hostOnly(ctx context.Context, s machine.Spec) ([]setting, error) {
	nets, err := d.vbox(ctx, queryPatience, "list", "hostonlynets")
	if err == nil { // macOS from 7.0 on has these instead of interfaces
		return d.hostOnlyNet(ctx, s, nets)
	}
	if !syntax(err) {
		return nil, err
	}
	name, err := d.hostOnlyInterface(ctx)
	if err != nil {
		return nil, err
	}
	return []setting{
		one("nic2", "hostonly", "--nic2", "hostonly"), one("hostonlyadapter2", name, "--hostonlyadapter2", name),
		one("nictype2", option(s, optNIC), "--nictype2", option(s, optNIC)),
	}, nil
}

// hostNet is the one that is made where there is none.
const hostNet = "mica"

func (d *Driver) hostOnlyNet(ctx context.Context, s machine.Spec, listed string) ([]setting, error) {
	name := ""
	for _, net := range records(listed) {
		if name == "" || net["Name"] == hostNet {
			name = net["Name"]
		}
	}
	if name == "" {
		name = hostNet
		if _, err := d.vbox(ctx, changePatience, "hostonlynet", "add", "--name="+hostNet, "--netmask=255.255.255.0",
			"--lower-ip=192.168.56.100", "--upper-ip=192.168.56.254", "--enable"); err != nil {
			return nil, err
		}
	}
	return []setting{
		one("nic2", "hostonlynetwork", "--nic2", "hostonlynet"), one("", "", "--host-only-net2", name),
		one("nictype2", option(s, optNIC), "--nictype2", option(s, optNIC)),
	}, nil
}

func (d *Driver) hostOnlyInterface(ctx context.Context) (string, error) {
	list := func() ([]map[string]string, error) {
		out, err := d.vbox(ctx, queryPatience, "list", "hostonlyifs")
		return records(out), err
	}
	ifs, err := list()
	if err != nil {
		return "", err
	}
	if len(ifs) == 0 {
		if _, err := d.vbox(ctx, changePatience, "hostonlyif", "create"); err != nil {
			return "", fail.New(fail.HostLacks, "making a host-only network: %w", err).
				Hint("the kernel module vboxnetadp must be loaded: 'sudo modprobe vboxnetadp'").
				Hint("or do without: forwarded ports reach the guest as well")
		}
		if ifs, err = list(); err != nil {
			return "", err
		}
	}
	out, err := d.vbox(ctx, queryPatience, "list", "dhcpservers")
	if err != nil {
		return "", err
	}
	enabled := map[string]bool{} // by network; false has a server that is off
	for _, server := range records(out) {
		enabled[server["NetworkName"]] = server["Enabled"] == "Yes"
	}
	for _, i := range ifs {
		if i["Name"] != "" && enabled[i["VBoxNetworkName"]] {
			return i["Name"], nil
		}
	}
	for _, i := range ifs {
		address, err := netip.ParseAddr(i["IPAddress"])
		if i["Name"] == "" || err != nil || !address.Is4() {
			continue
		}
		verb := "add"
		if _, there := enabled[i["VBoxNetworkName"]]; there {
			verb = "modify"
		}
		three := i["IPAddress"][:strings.LastIndexByte(i["IPAddress"], '.')+1]
		_, err = d.vbox(ctx, changePatience, "dhcpserver", verb, "--ifname", i["Name"], "--ip", three+"100", "--netmask", i["NetworkMask"],
			"--lowerip", three+"101", "--upperip", three+"254", "--enable")
		return i["Name"], err
	}
	return "", fail.New(fail.HostLacks, "VirtualBox has no host-only interface with an address").
		Hint("'VBoxManage list hostonlyifs' shows them")
}

package fakevbox

import (
	"errors"
	"fmt"
	"strings"
)

func (f *fake) showvminfo(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--machinereadable": 0})
	if err != nil || len(rest) != 1 || o["--machinereadable"] == nil {
		return errors.Join(err, unknown("this fake wants one machine, --machinereadable"))
	}
	v, err := s.find(rest[0])
	if err != nil {
		return err
	}
	if v.inaccessible() {
		return refuse("E_ACCESSDENIED", "The object functionality is limited")
	}
	if v.Race > 0 {
		v.Race--
		if v.Race == 1 {
			return refuse("E_ACCESSDENIED", "The object is not ready")
		}
	}
	f.show(v)
	return nil
}

// text is a value as a style quotes it: before 7 nothing is escaped.
func (f *fake) text(value string) string {
	if f.config.Style == Style72 {
		value = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
	}
	return `"` + value + `"`
}

func (f *fake) show(v *vm) {
	put := func(key, value string) { f.printf("%s=%s\n", key, f.text(value)) }
	bare := func(key string) { f.printf("%s=%s\n", key, v.Props[key]) }
	put("name", v.Name)
	if f.config.Style == Style72 {
		put("encryption", "disabled")
		put("platformArchitecture", "x86")
	}
	put("groups", "/")
	put("ostype", "Linux 2.6 / 3.x / 4.x (64-bit)")
	put("UUID", v.UUID)
	put("CfgFile", v.file())
	put("SnapFldr", v.Folder+"/Snapshots")
	put("LogFldr", v.Folder+"/Logs")
	for _, key := range []string{"memory", "vram", "cpuexecutioncap"} {
		bare(key)
	}
	put("firmware", strings.ToUpper(v.Props["firmware"]))
	bare("cpus")
	for _, key := range []string{"boot1", "boot2", "boot3", "boot4", "acpi", "ioapic", "rtcuseutc"} {
		put(key, v.Props[key])
	}
	put("VMState", v.State)
	put("VMStateChangeTime", "2026-01-02T03:04:05.000000000")
	if f.config.Style != Style52 {
		put("graphicscontroller", v.Props["graphicscontroller"])
	}
	for n, c := range v.Controllers {
		put(fmt.Sprintf("storagecontrollername%d", n), c.Name)
		put(fmt.Sprintf("storagecontrollerportcount%d", n), fmt.Sprint(c.Ports))
	}
	for _, c := range v.Controllers {
		devices := 2
		if c.Kind == "sata" {
			devices = 1
		}
		for port := range c.Ports {
			for device := range devices {
				key := fmt.Sprintf("%s-%d-%d", c.Name, port, device)
				value := v.Slots[key]
				if value == "" {
					value = "none"
				}
				f.printf("%q=%s\n", key, f.text(value))
			}
		}
	}
	put("nic1", v.Props["nic1"])
	put("nictype1", v.Props["nictype1"])
	for n, r := range v.Rules {
		put(fmt.Sprintf("Forwarding(%d)", n), r)
	}
	if v.Props["nic2"] != "" {
		put("nic2", v.Props["nic2"])
		put("nictype2", v.Props["nictype2"])
		put("hostonlyadapter2", v.Props["hostonlyadapter2"])
	}
	put("uart1", v.Props["uart1"])
	if v.Props["uartmode1"] != "" {
		put("uartmode1", v.Props["uartmode1"])
	}
	put("clipboard", v.Props["clipboard"])
	put("draganddrop", v.Props["draganddrop"])
	if v.live() || v.Race > 0 {
		put("SessionName", "headless")
	}
	f.printf("VideoMode=\"640,480,32\"@0,0 1\n")
	put("vrde", v.Props["vrde"])
	if v.Props["vrde"] == "on" {
		port := "-1"
		if v.live() {
			port, _, _ = strings.Cut(v.Props["vrdeport"], "-")
		}
		f.printf("vrdeport=%s\n", port)
		put("vrdeports", v.Props["vrdeport"])
	}
	for n, sh := range v.Shares {
		put(fmt.Sprintf("SharedFolderNameMachineMapping%d", n+1), sh.Name)
		put(fmt.Sprintf("SharedFolderPathMachineMapping%d", n+1), sh.Path)
	}
	if f.config.Style == Style72 {
		f.printf(" rec_screen0\nrec_screen_enabled=\"on\"\n")
	} else {
		f.printf("Encryption:     disabled\n")
	}
	f.printf("description=\"of many lines\nVMState=\"running\"\nUUID=\"0\"\n")
}

func (f *fake) list(s *state, args []string) error {
	if len(args) != 1 {
		return unknown("list takes a subject")
	}
	switch args[0] {
	case "vms", "runningvms":
		for _, v := range s.Machines {
			name := v.Name
			if v.inaccessible() {
				name = "<inaccessible>"
			}
			if args[0] == "vms" || v.live() {
				f.printf("\"%s\" {%s}\n", name, v.UUID)
			}
		}
	case "hdds", "dvds", "floppies":
		for _, m := range s.Media {
			if m.Kind == map[string]string{"hdds": "disk", "dvds": "dvd", "floppies": "floppy"}[args[0]] {
				f.describe(m)
			}
		}
	case "systemproperties":
		f.printf("API version:                     7_2\nRemote desktop ExtPack:          %s\n", f.config.Extension)
		f.printf("Default Guest Additions ISO:     %s\n", f.config.Additions)
	case "hostonlyifs":
		for _, n := range s.Networks {
			f.printf("Name:            %s\nGUID:            786f6276-656e-4074-8000-0a0027000000\nDHCP:            Disabled\n", n.Name)
			f.printf("IPAddress:       192.168.56.1\nNetworkMask:     255.255.255.0\nStatus:          Up\nVBoxNetworkName: HostInterfaceNetworking-%s\n\n", n.Name)
		}
	case "dhcpservers":
		for _, n := range s.Networks {
			if n.DHCP != "" {
				f.printf("NetworkName:    HostInterfaceNetworking-%s\nDhcpd IP:       192.168.56.100\nEnabled:        %s\n\n", n.Name, n.DHCP)
			}
		}
	default: // hostonlynets, too: they are of macOS
		return unknown("Unknown subcommand \"%s\"", args[0])
	}
	return nil
}

func (f *fake) hostonlyif(s *state, args []string) error {
	if strings.Join(args, " ") != "create" {
		return unknown("Invalid hostonlyif")
	}
	name := fmt.Sprintf("vboxnet%d", len(s.Networks))
	s.Networks = append(s.Networks, network{Name: name})
	f.printf("Interface '%s' was successfully created\n", name)
	return nil
}

func (f *fake) dhcpserver(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--ifname": 1, "--ip": 1, "--netmask": 1, "--lowerip": 1, "--upperip": 1, "--enable": 0})
	if err != nil {
		return err
	}
	for n := range s.Networks {
		if s.Networks[n].Name == first(o, "--ifname") && (s.Networks[n].DHCP == "") == (strings.Join(rest, " ") == "add") && first(o, "--lowerip") == "192.168.56.101" {
			s.Networks[n].DHCP = "Yes"
			return nil
		}
	}
	return refuse("VBOX_E_OBJECT_NOT_FOUND", "DHCP server does not exist, or does already")
}

package virtualbox

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

// The values of Spec.Network and Spec.Display.
const (
	networkHostOnly = "hostonly" // besides machine.NAT
	displayNone     = "none"     // besides machine.DisplayVNC and machine.DisplayGUI
)

// The options of this driver, and what they may be.
const (
	optVRAM      = "vram"      // megabytes of video memory
	optGraphics  = "graphics"  // the graphics controller
	optNATDNS    = "natdns"    // who answers the guest's questions for names
	optOSType    = "ostype"    // VirtualBox's id of the guest's system
	optAdditions = "additions" // the guest additions' ISO: auto, on, off or a path
	optNIC       = "nictype"   // the network card
	optLoopback  = "loopback"  // whether the guest reaches this computer's 127.0.0.1
)

var defaults = map[string]string{
	optVRAM: "32", optGraphics: "vboxsvga", optNATDNS: "hostresolver", optOSType: "Linux26_64", optAdditions: "off", optNIC: "virtio", optLoopback: "on",
}

var choices = map[string][]string{
	optGraphics: {"vboxsvga", "vmsvga", "vboxvga", "none"},
	optNATDNS:   {"hostresolver", "proxy", "off"},
	optNIC:      {"virtio", "82540EM", "82543GC", "82545EM", "Am79C970A", "Am79C973"},
	optLoopback: {"on", "off"},
}

const maxVRAM = 256

// optionHelp says what each option does.
func optionHelp() map[string]string {
	return map[string]string{
		optVRAM:      "megabytes of video memory, 32 by default",
		optGraphics:  "graphics controller: " + strings.Join(choices[optGraphics], ", "),
		optNATDNS:    "who looks names up for the guest: " + strings.Join(choices[optNATDNS], ", "),
		optOSType:    "VirtualBox's id of the guest's system, Linux26_64 by default ('VBoxManage list ostypes')",
		optAdditions: "guest additions' CD: off, on, auto (if VirtualBox has one), or the path of an ISO image",
		optNIC:       "network card: " + strings.Join(choices[optNIC], ", "),
		optLoopback:  "whether the guest reaches this computer's 127.0.0.1 as 10.0.2.2, for instance a proxy: " + strings.Join(choices[optLoopback], ", "),
	}
}

func option(s machine.Spec, name string) string {
	if value := s.Options[name]; value != "" {
		return value
	}
	return defaults[name]
}

// Check implements machine.Checker.
func (d *Driver) Check(ctx context.Context, s machine.Spec) error {
	if err := check(s); err != nil {
		return err
	}
	if s.Display == machine.DisplayVNC {
		return d.checkViewer(ctx)
	}
	return nil
}

// check refuses what this driver cannot do.
func check(s machine.Spec) error {
	for name, value := range s.Options {
		if _, ok := defaults[name]; !ok {
			return fail.New(fail.Usage, "driver %s has no option %q", Name, name).
				Hint("its options are: %s", strings.Join(slices.Sorted(maps.Keys(defaults)), ", "))
		}
		if list := choices[name]; list != nil && value != "" && !slices.Contains(list, value) {
			return fail.New(fail.Usage, "option %s cannot be %q", name, value).Hint("use one of: %s", strings.Join(list, ", "))
		}
	}
	if n, err := strconv.Atoi(option(s, optVRAM)); err != nil || n < 1 || n > maxVRAM {
		return fail.New(fail.Usage, "option %s cannot be %q", optVRAM, s.Options[optVRAM]).Hint("use 1 to %d megabytes", maxVRAM)
	}
	if additions := option(s, optAdditions); !slices.Contains([]string{"auto", "on", "off"}, additions) && !strings.HasPrefix(additions, "/") {
		return fail.New(fail.Usage, "option %s cannot be %q", optAdditions, additions).
			Hint("use auto (if VirtualBox has them), on, off, or the absolute path of an ISO image")
	}
	if s.Accel != "" && s.Accel != "auto" {
		return fail.New(fail.Usage, "driver %s has no --accel %q", Name, s.Accel).Hint("VirtualBox chooses by itself: use auto")
	}
	if !slices.Contains([]string{"", machine.NAT, networkHostOnly}, s.Network) {
		return fail.New(fail.Usage, "driver %s has no network %q", Name, s.Network).
			Hint("use nat, or hostonly for a second network card that only this computer sees")
	}
	if !slices.Contains([]string{"", displayNone, machine.DisplayVNC, machine.DisplayGUI}, s.Display) {
		return fail.New(fail.Usage, "driver %s has no display %q", Name, s.Display).Hint("use none, vnc or gui")
	}
	if s.ExecutionCap < 0 || s.ExecutionCap > 100 {
		return fail.New(fail.Usage, "an execution cap cannot be %d%%", s.ExecutionCap).Hint("use 1 to 100")
	}
	switch s.Image.Format {
	case "", "vdi", "vmdk", "vpc", "raw":
	default:
		return fail.New(fail.Usage, "VirtualBox cannot boot a disk image in format %q", s.Image.Format).
			Hint("use vdi, vmdk, vpc (VHD) or raw; 'mica image' converts")
	}
	if s.Firmware != "" && s.Firmware != machine.UEFI || s.Arch != "" {
		return fail.New(fail.Usage, "driver %s has no firmware %q for architecture %q", Name, s.Firmware, s.Arch).Hint("use bios or uefi, of x86_64")
	}
	return checkDisks(s)
}

// setting is one property of a machine.
type setting struct {
	// spellings are the ways to say it, in the order they are tried: options
	// have been renamed between releases. An empty one leaves it out.
	spellings [][]string
	key, want string // where showvminfo tells it, and what; an empty key means nowhere
}

func one(key, want string, args ...string) setting {
	return setting{spellings: [][]string{args}, key: key, want: want}
}

// settings is what a machine is made of besides its media, its rules and its
// shares. The names are those that work from 5.2 to 7.2.
//
// Compat: libcernvm src/Hypervisor/Virtualbox/VBoxSession.cpp (ConfigureVM).
// Differs: it never applies the execution cap, the serial log and the remote
// display; its clock is in local time; its machines boot from a bootable data
// disk when the image is gone.
func settings(s machine.Spec) []setting {
	boot := []string{"dvd", "disk", "none", "none"}
	if s.Image.Format != "" {
		boot = []string{"disk", "none", "none", "none"}
	}
	list := []setting{
		one("cpus", strconv.Itoa(s.CPUs), "--cpus", strconv.Itoa(s.CPUs)),
		one("memory", strconv.Itoa(s.MemoryMiB), "--memory", strconv.Itoa(s.MemoryMiB)),
		one("vram", option(s, optVRAM), "--vram", option(s, optVRAM)),
		one("firmware", firmware(s), "--firmware", strings.ToLower(firmware(s))),
		one("acpi", "on", "--acpi", "on"),
		one("ioapic", "on", "--ioapic", "on"),
		one("rtcuseutc", "on", "--rtcuseutc", "on"),
		{
			spellings: [][]string{{"--graphicscontroller", option(s, optGraphics)}, nil}, // not before 6.0
			key:       "graphicscontroller", want: option(s, optGraphics),
		},
		// The firmware's picture, which is in the way of a serial console.
		{spellings: [][]string{{"--bioslogofadein", "off"}, {"--firmware-logo-fade-in", "off"}, nil}},
		{spellings: [][]string{{"--bioslogofadeout", "off"}, {"--firmware-logo-fade-out", "off"}, nil}},
	}
	for n, device := range boot {
		list = append(list, one(fmt.Sprintf("boot%d", n+1), device, fmt.Sprintf("--boot%d", n+1), device))
	}
	list = append(list,
		one("nic1", "nat", "--nic1", "nat"),
		one("nictype1", option(s, optNIC), "--nictype1", option(s, optNIC)),
		one("", "", "--natdnshostresolver1", onOff(option(s, optNATDNS) == "hostresolver")),
		one("", "", "--natdnsproxy1", onOff(option(s, optNATDNS) == "proxy")),
		// Before 7.0 it is always so.
		setting{spellings: [][]string{{"--nat-localhostreachable1", option(s, optLoopback)}, nil}},
		one("uart1", "0x03f8,4", "--uart1", "0x3F8", "4"),
		one("uartmode1", "file,"+s.Path(logFile), "--uartmode1", "file", s.Path(logFile)),
		one("cpuexecutioncap", strconv.Itoa(execution(s)), "--cpuexecutioncap", strconv.Itoa(execution(s))),
	)
	if s.Clipboard {
		list = append(list,
			one("draganddrop", "bidirectional", "--draganddrop", "bidirectional"),
			setting{
				spellings: [][]string{{"--clipboard-mode", "bidirectional"}, {"--clipboard", "bidirectional"}}, // before 6.1
				key:       "clipboard", want: "bidirectional",
			})
	}
	if s.Display == machine.DisplayVNC {
		list = append(list, one("vrde", "on", "--vrde", "on"),
			one("", "", "--vrdeaddress", "127.0.0.1"), one("", "", "--vrdeport", viewPorts),
			one("", "", "--vrdeauthtype", "null"), one("", "", "--vrdemulticon", "on"))
	} else {
		list = append(list, one("vrde", "off", "--vrde", "off"))
	}
	return list
}

// firmware is what showvminfo calls it.
func firmware(s machine.Spec) string {
	if s.Firmware == machine.UEFI {
		return "EFI"
	}
	return "BIOS"
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func execution(s machine.Spec) int {
	if s.ExecutionCap == 0 {
		return 100
	}
	return s.ExecutionCap
}

// differing keeps the settings that the machine has otherwise. A release that
// does not tell one is believed to have it right.
func differing(list []setting, in info) []setting {
	var other []setting
	for _, s := range list {
		if is, told := in[s.key]; told && !strings.EqualFold(is, s.want) {
			other = append(other, s)
		}
	}
	return other
}

// modify applies settings and, with them, more arguments: all or nothing. What
// a release does not know it says in its words, and the next spelling is tried.
func (d *Driver) modify(ctx context.Context, id string, list []setting, more ...string) error {
	spelling := make([]int, len(list))
	for {
		args := []string{"modifyvm", id}
		for n, s := range list {
			args = append(args, s.spellings[spelling[n]]...)
		}
		args = append(args, more...)
		if len(args) == 2 {
			return nil
		}
		_, err := d.vbox(ctx, changePatience, args...)
		if !syntax(err) || !next(list, spelling, err) {
			return err
		}
		d.log.Debug("trying another spelling", "error", err)
	}
}

// next moves on from the spelling that err complains about.
func next(list []setting, spelling []int, err error) bool {
	for n, s := range list {
		now := s.spellings[spelling[n]]
		if len(now) > 0 && spelling[n]+1 < len(s.spellings) && namesOption(err, now[0]) {
			spelling[n]++
			return true
		}
	}
	return false
}

// namesOption reports whether the words of err hold the option as a whole, not
// as the beginning of a longer one.
func namesOption(err error, name string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(err.Error(), func(r rune) bool {
		return r == ' ' || r == '\'' || r == '"' || r == ',' || r == ';' || r == '(' || r == ')' || r == '=' || r == ':'
	}), func(word string) bool { return word == name })
}

// sshRule is the name of the rule for the guest's SSH.
//
// Compat: libcernvm calls its one rule so.
const sshRule = "guestapi"

// ours tells mica's rules from those that the user made in VirtualBox.
func (r rule) ours() bool { return r.name == sshRule || strings.HasPrefix(r.name, "mica-") }

func rulesFor(forwards []machine.Forward) []rule {
	var all []rule
	ssh := false
	for _, f := range forwards {
		r := rule{name: fmt.Sprintf("mica-%d-%d", f.Host, f.Guest), host: f.Host}
		if f.Guest == 22 && !ssh {
			r.name, ssh = sshRule, true
		}
		r.text = fmt.Sprintf("%s,tcp,127.0.0.1,%d,,%d", r.name, f.Host, f.Guest)
		all = append(all, r)
	}
	return all
}

// exchange returns the rules to be removed and to be added, so that of mica's
// rules the wanted ones remain.
func exchange(have, want []rule) (remove, add []rule) {
	for _, r := range have {
		if r.ours() && !slices.ContainsFunc(want, func(w rule) bool { return w.text == r.text }) {
			remove = append(remove, r)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(r rule) bool { return w.text == r.text }) {
			add = append(add, w)
		}
	}
	return remove, add
}

// ruleArgs says an exchange to modifyvm.
func ruleArgs(remove, add []rule) []string {
	var args []string
	for _, r := range remove {
		args = append(args, "--natpf1", "delete", r.name)
	}
	for _, r := range add {
		args = append(args, "--natpf1", r.text)
	}
	return args
}

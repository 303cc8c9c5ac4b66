package plugins

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// setKeyboard sets the layout of the console and of X.
//
// Differs: the original only knows system-config-keyboard, which EL 6 had.
func setKeyboard(ctx context.Context, root *guest.Root, layout string) error {
	if root.Has("system-config-keyboard") && !root.Pretend() {
		_, err := root.Run(ctx, "system-config-keyboard", "--noui", layout)
		return err
	}
	var p problems
	p.add(root.Edit("/etc/vconsole.conf", guest.Attr{Mode: 0o644}, func(lines []string) []string {
		return assign(lines, "KEYMAP", layout)
	}))
	if root.Exists("/etc/default/keyboard") {
		base, variant, _ := strings.Cut(layout, "-")
		if variant == "acentos" {
			variant = "intl" // the console's us-acentos is X's us(intl)
		}
		p.add(root.Edit("/etc/default/keyboard", guest.Attr{}, func(lines []string) []string {
			lines = assign(lines, "XKBLAYOUT", `"`+base+`"`)
			return assign(lines, "XKBVARIANT", `"`+variant+`"`)
		}))
	}
	return p.err()
}

// setAutoLogin logs a user in to the desktop without asking, with the display
// manager the OS has.
//
// Compat: slim, as in cernvm-config: etc/cernvm/config. Differs: also the display
// managers that today's systems have.
func setAutoLogin(root *guest.Root, user string, on bool) error {
	var p problems
	if root.Exists("/etc/slim.conf") {
		p.add(root.Edit("/etc/slim.conf", guest.Attr{}, func(lines []string) []string {
			var out []string
			for _, l := range lines {
				if f := strings.Fields(l); len(f) > 0 && (f[0] == "default_user" || f[0] == "auto_login") {
					continue
				}
				out = append(out, l)
			}
			if on {
				out = append(out, "default_user "+user, "auto_login yes")
			}
			return out
		}))
	}
	for _, dm := range []struct{ there, file, text string }{
		{"/etc/lightdm", "/etc/lightdm/lightdm.conf.d/90-mica.conf", "[Seat:*]\nautologin-user=" + user + "\n"},
		{"/usr/bin/sddm", "/etc/sddm.conf.d/90-mica.conf", "[Autologin]\nUser=" + user + "\n"},
	} {
		switch {
		case !root.Exists(dm.there):
		case on:
			p.add(root.WriteFile(dm.file, []byte(dm.text), guest.Attr{Mode: 0o644}))
		default:
			p.add(root.Remove(dm.file))
		}
	}
	for _, file := range []string{"/etc/gdm/custom.conf", "/etc/gdm3/daemon.conf", "/etc/gdm3/custom.conf"} {
		if root.Exists(file) {
			p.add(root.Edit(file, guest.Attr{}, func(lines []string) []string { return gdmAutoLogin(lines, user, on) }))
		}
	}
	return p.err()
}

// gdmAutoLogin sets the two options in the section [daemon].
func gdmAutoLogin(lines []string, user string, on bool) []string {
	var out []string
	at := -1
	for _, l := range lines {
		if strings.HasPrefix(l, "AutomaticLogin=") || strings.HasPrefix(l, "AutomaticLoginEnable=") {
			continue
		}
		out = append(out, l)
		if strings.TrimSpace(l) == "[daemon]" {
			at = len(out)
		}
	}
	if !on {
		return out
	}
	if at < 0 {
		out = append(out, "[daemon]")
		at = len(out)
	}
	rest := append([]string{"AutomaticLoginEnable=True", "AutomaticLogin=" + user}, out[at:]...)
	return append(out[:at:at], rest...)
}

// setDesktop starts the graphical desktop, now and at later boots.
//
// Compat: "startxdm=off" boots into the console later, but edition Desktop starts
// the desktop now all the same. Differs: a target of systemd instead of a run
// level; isolating it would end the agent, so it is started.
func setDesktop(ctx context.Context, c *Call, startX *bool) error {
	target := "graphical.target"
	if startX != nil && !*startX {
		target = "multi-user.target"
	}
	if c.Root.Systemd() || c.Root.Pretend() {
		if !c.Root.Pretend() && !hasDisplayManager(c.Root) {
			c.Warn("edition is Desktop, but this operating system has no display manager")
			return nil
		}
		if _, err := c.Root.Run(ctx, "systemctl", "set-default", target); err != nil {
			return err
		}
		return c.Root.Service(ctx, []string{"display-manager"}, guest.Start)
	}
	if c.Root.Has("telinit") {
		_, err := c.Root.Run(ctx, "telinit", "5")
		return err
	}
	c.Warn("edition is Desktop, but nothing here can start one")
	return nil
}

func hasDisplayManager(root *guest.Root) bool { return root.HasService("display-manager") }

const swapFile = "/mnt/.rw/swapfile"

// swapSize reads a size; 0 is no swap.
//
// Compat: "auto" is 2 GiB for each processor (cernvm-config: etc/cernvm/config,
// option -t). Differs: "off" is no swap, where the original takes it for a size.
func swapSize(root *guest.Root, value string) (int64, error) {
	switch strings.ToLower(value) {
	case "off", "no", "0", "":
		return 0, nil
	case "auto":
		return int64(processors(root)) << 31, nil
	}
	digits := strings.TrimRight(value, "KMGTkmgtiIbB")
	n, err := number(digits, 1, 1<<40)
	unit := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(value[len(digits):]), "B"), "I")
	shift, ok := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	size := int64(n) << shift
	if err != nil || !ok || size>>shift != int64(n) || size < 1<<20 || size > 1<<44 {
		return 0, fmt.Errorf("swap_size: %q is not a size (4G, 512M, auto or off)", value)
	}
	return size, nil
}

// processors counts those the system shows; at least one.
func processors(root *guest.Root) int {
	n := 0
	data, _ := root.ReadFile("/proc/cpuinfo")
	for _, l := range guest.Lines(data) {
		if strings.HasPrefix(l, "processor") {
			n++
		}
	}
	return max(n, 1)
}

// swapOn makes the swap file if there is none, and uses it.
func swapOn(ctx context.Context, root *guest.Root, value string) error {
	size, err := swapSize(root, value)
	if err != nil || size == 0 {
		return nil //nolint:nilerr // reported when the options were looked through
	}
	if data, err := root.ReadFile("/proc/swaps"); err == nil && strings.Contains(string(data), path.Base(swapFile)+" ") {
		return nil
	}
	if !root.Exists(swapFile) {
		if err := root.Allocate(swapFile, size); err != nil {
			return fmt.Errorf("swap_size: %w", err)
		}
		if _, err := root.Run(ctx, "mkswap", swapFile); err != nil {
			_ = root.Remove(swapFile)
			return fmt.Errorf("swap_size: %w", err)
		}
	}
	if _, err := root.Run(ctx, "swapon", swapFile); err != nil {
		return fmt.Errorf("swap_size: %w", err)
	}
	return nil
}

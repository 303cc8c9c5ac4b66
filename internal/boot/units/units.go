package units

import (
	"fmt"
	"path"

	"github.com/micavm/mica/internal/stage"
)

// Dir is where the files go.
const Dir = "/run/systemd/system"

// File is a file, or with Link set a symbolic link, below Dir.
type File struct {
	Name string
	Text string
	Link string
}

// Plan is what the boot found out that matters to systemd.
type Plan struct {
	// CloudInit says that the context holds something for cloud-init. If not,
	// cloud-init is masked: it would look for minutes for data that is not there.
	CloudInit bool

	// Shares are the folders of the host to mount, with names that are safe.
	Shares []Share
}

// Files returns the units for a plan, sorted by dependency: a link comes after
// what it points to.
func Files(p Plan) []File {
	files := []File{
		{Name: "mnt-.ro.mount.d/10-mica.conf", Text: keep},
		{Name: "mnt-.rw.mount.d/10-mica.conf", Text: keep},
		{Name: "mica-hostkeys.service", Text: hostkeys},
		{Name: "mica-apply.service", Text: apply},
		{Name: "multi-user.target.wants/mica-hostkeys.service", Link: "../mica-hostkeys.service"},
		{Name: "multi-user.target.wants/mica-apply.service", Link: "../mica-apply.service"},
		// Debian's ifupdown takes the interfaces down while the root file system
		// still needs them. Compat: cernvm-config changes the network script likewise.
		{Name: "networking.service.d/10-mica.conf", Text: "[Service]\nExecStop=\n"},
		// Socket activation starts ssh without multi-user.target.
		{Name: "ssh.socket.d/10-mica.conf", Text: "[Unit]\nWants=mica-hostkeys.service\nAfter=mica-hostkeys.service\n"},
	}
	if !p.CloudInit {
		for _, unit := range cloudInit {
			files = append(files, File{Name: unit, Link: "/dev/null"})
		}
	}
	for _, s := range p.Shares {
		name := s.unit()
		files = append(files,
			File{Name: name, Text: s.text()},
			File{Name: "multi-user.target.wants/" + name, Link: "../" + name})
	}
	return files
}

// cloudInit lists the units of cloud-init, old and new names.
var cloudInit = []string{
	"cloud-config.service", "cloud-final.service", "cloud-init-hotplugd.socket", "cloud-init-local.service",
	"cloud-init-main.service", "cloud-init-network.service", "cloud-init.service", "cloud-init.target",
}

// keep stops systemd from unmounting what the root file system is made of. The
// mounts are found in /proc/self/mountinfo and would get "Conflicts=umount.target".
const keep = `[Unit]
Description=Part of the root file system
DefaultDependencies=no
RefuseManualStop=yes
`

const hostkeys = `[Unit]
Description=SSH host key of this machine
Documentation=man:ssh-keygen(1)
DefaultDependencies=no
Wants=local-fs.target
After=local-fs.target systemd-machine-id-commit.service
Before=ssh.service sshd.service ssh.socket sshd-keygen.target mica-apply.service shutdown.target
Conflicts=shutdown.target
ConditionPathExists=` + stage.Program + `

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=` + stage.Program + ` hostkeys
`

// apply runs when the system is up far enough to create users and start
// services, beside the login services: an operator gets in even if it hangs.
const apply = `[Unit]
Description=Apply the context of this machine
Wants=network-online.target
After=basic.target network.target network-online.target mica-hostkeys.service dbus.service nss-user-lookup.target cloud-init.service
Before=display-manager.service
ConditionPathExists=` + stage.Program + `

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=` + stage.Program + ` apply
TimeoutStartSec=30min
KillMode=process
StandardOutput=journal
StandardError=journal
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
`

// Validate checks that no file leaves Dir; a test runs it over every plan.
func Validate(files []File) error {
	seen := map[string]bool{}
	for _, f := range files {
		if clean := path.Clean(f.Name); clean != f.Name || path.IsAbs(f.Name) || clean == ".." || seen[f.Name] {
			return fmt.Errorf("unit file %q: bad or repeated name", f.Name)
		}
		if (f.Text == "") == (f.Link == "") {
			return fmt.Errorf("unit file %q: neither text nor link, or both", f.Name)
		}
		seen[f.Name] = true
	}
	return nil
}

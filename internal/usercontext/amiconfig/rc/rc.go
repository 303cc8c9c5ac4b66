package rc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/micavm/mica/internal/stage"
)

// The two services: new host keys before the SSH server starts, the context last.
const (
	name     = "mica-apply"
	hostKeys = "mica-hostkeys"
)

// ErrUnknown says that the system's way to start services is none of those known.
var ErrUnknown = errors.New("the system starts its services in no known way")

// file is one thing to write: a file, or with link set a symbolic link.
type file struct {
	name, text, link string
}

// Install makes the system below root apply its context at every boot, and returns
// what starts its services: "sysv", "openrc" or "busybox". What is there already is
// left as it is. With ErrUnknown nothing was written.
func Install(root *os.Root) (string, error) {
	kind, files, err := plan(root)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if err := f.write(root); err != nil {
			return kind, fmt.Errorf("having the context applied: %w", err)
		}
	}
	return kind, nil
}

// plan chooses by what is there. OpenRC comes first: such a system has an init.d,
// and perhaps an inittab, too.
func plan(root *os.Root) (string, []file, error) {
	switch {
	case isDir(root, "etc/runlevels/default"):
		return "openrc", []file{
			{name: "etc/init.d/" + hostKeys, text: openrcHostKeys},
			{name: "etc/runlevels/default/" + hostKeys, link: "/etc/init.d/" + hostKeys},
			{name: "etc/init.d/" + name, text: openrcApply},
			{name: "etc/runlevels/default/" + name, link: "/etc/init.d/" + name},
		}, nil
	case isDir(root, "etc/rc.d/rc3.d"):
		return "sysv", sysv("etc/rc.d"), nil
	case isDir(root, "etc/rc3.d") && isDir(root, "etc/init.d"):
		return "sysv", sysv("etc"), nil
	}
	table, err := root.ReadFile("etc/inittab")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("having the context applied: %w", err)
	}
	if usesBusybox(root) && len(table) > 0 {
		if strings.Contains(string(table), stage.Program+" apply") {
			return "busybox", nil, nil
		}
		text := strings.TrimRight(string(table), "\n") + "\n::wait:" + stage.Program + " hostkeys\n::once:" + stage.Program + " apply\n"
		return "busybox", []file{{name: "etc/inittab", text: text}}, nil
	}
	return "", nil, ErrUnknown
}

// sysv applies the context last of all, so that an operator gets in even if it hangs.
//
// Differs: the original applies at 45, and starts services of the context at 95
// (cernvm-config: etc/init.d); here one program does both.
func sysv(dir string) []file {
	files := []file{
		{name: path.Join(dir, "init.d", hostKeys), text: script(hostKeys, "hostkeys", "08", "$local_fs", "makes the SSH host key of this machine")},
		{name: path.Join(dir, "init.d", name), text: script(name, "apply", "99", "$all", "applies the context of this machine")},
	}
	for _, level := range []string{"2", "3", "4", "5"} {
		level = path.Join(dir, "rc"+level+".d")
		files = append(files,
			file{name: path.Join(level, "S08"+hostKeys), link: "../init.d/" + hostKeys},
			file{name: path.Join(level, "S99"+name), link: "../init.d/" + name})
	}
	return files
}

func isDir(root *os.Root, name string) bool {
	fi, err := root.Stat(name)
	return err == nil && fi.IsDir()
}

// usesBusybox reports whether init is busybox, whose inittab has other actions than
// that of System V.
func usesBusybox(root *os.Root) bool {
	for _, name := range []string{"sbin/init", "usr/sbin/init"} {
		if to, err := root.Readlink(name); err == nil {
			return strings.HasPrefix(path.Base(to), "busybox")
		}
	}
	return false
}

func (f file) write(root *os.Root) error {
	if f.link != "" {
		if !isDir(root, path.Dir(f.name)) { // a run level that the system does not have
			return nil
		}
		if err := root.Symlink(f.link, f.name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
	perm := fs.FileMode(0o755)
	if fi, err := root.Stat(f.name); err == nil {
		perm = fi.Mode().Perm()
		if old, err := root.ReadFile(f.name); err == nil && string(old) == f.text {
			return nil
		}
	}
	// Through another name: a machine that stops here must find the old file or the
	// new one.
	part := f.name + ".mica-new"
	if err := errors.Join(root.WriteFile(part, []byte(f.text), perm), root.Chmod(part, perm)); err != nil {
		return err
	}
	return root.Rename(part, f.name)
}

// script is for init.d of System V. Red Hat's chkconfig and Debian's insserv read
// the comments.
func script(name, command, order, after, does string) string {
	return strings.NewReplacer("NAME", name, "COMMAND", command, "ORDER", order, "AFTER", after, "DOES", does, "GUEST", stage.Program).Replace(`#!/bin/sh
# chkconfig: 2345 ORDER 01
# description: DOES
### BEGIN INIT INFO
# Provides:          NAME
# Required-Start:    AFTER
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: DOES
### END INIT INFO

case "$1" in
start)
	[ -x GUEST ] || exit 0
	exec GUEST COMMAND
	;;
stop | restart | reload | force-reload)
	;;
*)
	echo "Usage: $0 start" >&2
	exit 2
	;;
esac
`)
}

const openrcHostKeys = `#!/sbin/openrc-run
description="Make the SSH host key of this machine"

depend() {
	need localmount
	before sshd dropbear
}

start() {
	[ -x ` + stage.Program + ` ] || return 0
	ebegin "Making the host key"
	` + stage.Program + ` hostkeys
	eend $?
}
`

const openrcApply = `#!/sbin/openrc-run
description="Apply the context of this machine"

depend() {
	need localmount
	use net dns
	after *
}

start() {
	[ -x ` + stage.Program + ` ] || return 0
	ebegin "Applying the context"
	` + stage.Program + ` apply >/dev/null
	eend $?
}
`

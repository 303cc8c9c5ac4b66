#!/bin/bash
# Makes a root directory with VirtualBox in it, to run the tests of its driver.
#
#   vbox-root.sh [DIRECTORY]    needs root, mmdebstrap, and apt's package lists
#
# The default is ~/.cache/mica/vbox-root. A directory that is complete is left
# alone. It downloads about 140 MB from the Debian mirror this computer uses,
# takes a minute or two and 400 MB, and mounts nothing that outlives it.
#
# VirtualBox is in no stable Debian, so this takes it from unstable, which moves:
# exit code 7 says that it cannot be made now, or not here.
#
# Packages are only extracted: nothing in there is installed, no maintainer script
# runs, no kernel module is built. VBoxHeadless in that root is a stand-in that
# runs the machine in VirtualBox's own interpreter. That needs a display, so Xvfb
# is there as well; it is slow, and enough for a boot sector.
set -euo pipefail

root=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/mica/vbox-root}
case $root in /*) ;; *) root=$PWD/$root ;; esac
form=3 # of what this script makes; another one is made anew

complete() { [ "$(cat "$root/.form" 2>/dev/null)" = $form ] && [ -e "$root/.complete" ]; }
unable() { echo "vbox-root: $*" >&2; exit 7; }

if complete; then
	echo "vbox-root: $root has VirtualBox $(cat "$root/.complete")" >&2
	exit 0
fi
[ "$(id -u)" = 0 ] || unable "this is not root"
for program in mmdebstrap unshare dpkg-deb flock; do
	command -v $program >/dev/null || unable "there is no $program"
done
mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
	awk '$1 !~ /-/ && !found { print $2; found = 1 }')
[ -n "$mirror" ] || unable "apt knows no Debian mirror; run 'apt-get update' first"

mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9
! complete || exit 0

part=$root.part
work=$(mktemp -d)
rm -rf "$part"
trap 'rm -rf "$part" "$work"' EXIT
trap 'exit 130' INT TERM

# An empty package stands for what is not wanted: kernel modules, and the drivers
# of graphics cards with their compiler, which are a third of the whole.
mkdir -p "$work/stand-in/DEBIAN" "$work/packages"
cat >"$work/stand-in/DEBIAN/control" <<'CONTROL'
Package: mica-stand-in
Version: 99
Architecture: all
Maintainer: nobody <nobody@localhost>
Provides: virtualbox-modules, systemd-sysusers, libgl1-mesa-dri (= 99), libglx-mesa0 (= 99), libegl-mesa0 (= 99), libgbm1 (= 99), mesa-libgallium (= 99)
Conflicts: virtualbox-dkms, virtualbox-source, libgl1-mesa-dri, libglx-mesa0, libegl-mesa0, libgbm1, mesa-libgallium
Description: stands for kernel modules and drivers of graphics cards
CONTROL
dpkg-deb --root-owner-group -b "$work/stand-in" "$work/packages/stand-in.deb" >/dev/null
{
	cat "$work/stand-in/DEBIAN/control"
	echo "Filename: ./stand-in.deb"
	echo "Size: $(stat -c %s "$work/packages/stand-in.deb")"
	echo "SHA256: $(sha256sum <"$work/packages/stand-in.deb" | cut -d' ' -f1)"
} >"$work/packages/Packages"
chmod -R go+rX "$work"

# The root's apt follows this computer's choices about stale package lists.
stale=$(apt-config shell V Acquire::Check-Valid-Until D Acquire::Check-Date)
V=true D=true
eval "$stale"
mmdebstrap --quiet --variant=extract --mode=root --components=main,contrib \
	--aptopt="Acquire::Check-Valid-Until \"$V\"" --aptopt="Acquire::Check-Date \"$D\"" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
	--include=mica-stand-in,virtualbox,virtualbox-qt,xvfb,base-files,base-passwd,bash,coreutils,dash,grep,libc-bin,sed \
	sid "$part" "deb $mirror sid main contrib" "deb [trusted=yes] copy:$work/packages ./" ||
	unable "Debian unstable at $mirror does not give VirtualBox now"

rm -rf "$part"/usr/share/{doc,man,locale,icons,virtualbox/nls} "$part"/usr/lib/virtualbox/{vboxwebsrv,webtest}
cp "$part/usr/share/base-passwd/passwd.master" "$part/etc/passwd"
cp "$part/usr/share/base-passwd/group.master" "$part/etc/group"
mkdir -p "$part/tmp"
chmod 1777 "$part/tmp"

# VBoxSVC lets only the process it started itself lock the machine: hence exec.
mv "$part/usr/lib/virtualbox/VBoxHeadless" "$part/usr/lib/virtualbox/VBoxHeadless.orig"
cat >"$part/usr/lib/virtualbox/VBoxHeadless" <<'HEADLESS'
#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in
	--startvm | -s) vm=$2; shift 2 ;;
	--comment | --vrde) shift 2 ;;
	*) shift ;;
	esac
done
export DISPLAY="${DISPLAY:-:77}" XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp/xdg}"
exec /usr/lib/virtualbox/VirtualBoxVM --startvm "$vm" --execute-all-in-iem --driverless --no-startvm-errormsgbox
HEADLESS
chmod 755 "$part/usr/lib/virtualbox/VBoxHeadless"

# What comes from a moving distribution is tried before tests are blamed: it
# starts a machine. Mounts and processes live in name spaces and end with them.
export part
version=$(unshare --mount --pid --fork --kill-child --propagation private sh -eu <<'INSIDE'
mount -t proc proc "$part/proc"
mount -t sysfs sys "$part/sys"
mount --rbind /dev "$part/dev"
mount -t tmpfs tmp "$part/tmp"
mkdir -m 700 "$part/tmp/xdg"
chroot "$part" /sbin/ldconfig
inside() {
	timeout 240 chroot "$part" env -i PATH=/usr/bin:/bin HOME=/tmp VBOX_USER_HOME=/tmp/registry USER=root LOGNAME=root \
		LC_ALL=C.UTF-8 DISPLAY=:77 XDG_RUNTIME_DIR=/tmp/xdg "$@"
}
inside Xvfb :77 -screen 0 640x480x24 -noreset -nolisten tcp >/dev/null 2>&1 &
manage=/usr/lib/virtualbox/VBoxManage
version=$(inside $manage --version | tail -n 1)
inside $manage setextradata global VBoxInternal/HM/FallbackToIEM 1 >&2
inside $manage createvm --name try --ostype Linux26_64 --basefolder /tmp --register >&2
inside $manage startvm try --type headless >&2
inside $manage showvminfo try --machinereadable | grep -x 'VMState="running"' >&2
inside $manage controlvm try poweroff >&2
echo "$version"
INSIDE
) || unable "the VirtualBox of Debian unstable at $mirror does not run a machine"
case $version in [0-9]*) ;; *) unable "the VirtualBox of Debian unstable says its version is '$version'" ;; esac

echo $form >"$part/.form"
echo "$version" >"$part/.complete"
rm -rf "$root"
mv "$part" "$root"
echo "vbox-root: $root has VirtualBox $version" >&2

#!/bin/sh
# Makes a root directory with VirtualBox in it, to run the tests of its driver.
#
#   vbox-root.sh [DIRECTORY]    needs root, mmdebstrap, and apt's package lists
#
# The default is ~/.cache/mica/vbox-root. A directory that is complete is left
# alone. It downloads about 300 MB from the Debian mirror this computer uses,
# takes about 6 minutes and 1.1 GB, and mounts nothing that outlives it.
#
# No kernel module is built: VBoxHeadless in that root is a stand-in that runs
# the machine in VirtualBox's own interpreter. That needs a display, so Xvfb is
# there as well; it is slow, and enough for a boot sector.
set -eu

root=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/mica/vbox-root}
case $root in /*) ;; *) root=$PWD/$root ;; esac

if [ -e "$root/.complete" ]; then
	echo "vbox-root: $root has VirtualBox $(cat "$root/.complete")" >&2
	exit 0
fi

mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
	awk '$1 !~ /-/ { print $2; exit }')
if [ -z "$mirror" ]; then
	echo "vbox-root: apt knows no Debian mirror; run 'apt-get update' first" >&2
	exit 7
fi
for program in mmdebstrap unshare dpkg-deb; do
	command -v $program >/dev/null || { echo "vbox-root: there is no $program" >&2; exit 7; }
done

mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9
[ ! -e "$root/.complete" ] || exit 0

# The root's apt follows this computer's choices about stale package lists.
stale=$(apt-config shell V Acquire::Check-Valid-Until D Acquire::Check-Date)
V=true D=true
eval "$stale"

part=$root.part
rm -rf "$part"
trap 'rm -rf "$part"' EXIT
trap 'exit 130' INT TERM

mmdebstrap --quiet --variant=minbase --mode=root --components=main,contrib \
	--aptopt="Acquire::Check-Valid-Until \"$V\"" --aptopt="Acquire::Check-Date \"$D\"" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	sid "$part" "deb $mirror sid main contrib"

# VirtualBox wants kernel modules; an empty package says that they are there.
mkdir -p "$part/tmp/modules/DEBIAN"
cat >"$part/tmp/modules/DEBIAN/control" <<'CONTROL'
Package: virtualbox-modules-none
Version: 99
Architecture: all
Maintainer: nobody <nobody@localhost>
Provides: virtualbox-modules
Description: stand-in, no kernel modules
CONTROL
dpkg-deb -b "$part/tmp/modules" "$part/tmp/modules.deb" >/dev/null
rm -rf "$part/tmp/modules"
printf '#!/bin/sh\nexit 101\n' >"$part/usr/sbin/policy-rc.d"
chmod 755 "$part/usr/sbin/policy-rc.d"
cp -L /etc/resolv.conf "$part/etc/resolv.conf"

# The mounts live in a name space of their own and end with it.
export part
unshare --mount --propagation private sh -eu <<'INSIDE'
mount -t proc proc "$part/proc"
mount -t sysfs sys "$part/sys"
mount --rbind /dev "$part/dev"
export DEBIAN_FRONTEND=noninteractive
chroot "$part" apt-get update -qq </dev/null
chroot "$part" dpkg-divert --quiet --local --rename \
	--divert /usr/lib/virtualbox/VBoxHeadless.orig --add /usr/lib/virtualbox/VBoxHeadless
chroot "$part" apt-get install -y -qq --no-install-recommends \
	-o Dpkg::Use-Pty=0 /tmp/modules.deb virtualbox virtualbox-qt xvfb </dev/null >"$part/tmp/install.log" 2>&1 ||
	{ tail -n 20 "$part/tmp/install.log" >&2; exit 1; }
chroot "$part" apt-get clean
chroot "$part" /usr/lib/virtualbox/VBoxManage --version | tail -n 1 >"$part/tmp/version"
INSIDE
rm -f "$part/tmp/modules.deb" "$part/tmp/install.log"

# VBoxSVC lets only the process it started itself lock the machine: hence exec.
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

mv "$part/tmp/version" "$part/.complete"
rm -rf "$root"
mv "$part" "$root"
echo "vbox-root: $root has VirtualBox $(cat "$root/.complete")" >&2

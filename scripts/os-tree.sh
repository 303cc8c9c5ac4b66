#!/bin/sh
# Makes a small Debian operating system tree to publish as a repository.
#
#   os-tree.sh DIRECTORY    needs root, mmdebstrap, and apt's package lists
#
# The tree holds no identity: no host keys, no machine id, no users. It also
# holds no kernel (the boot image brings it) but all of the kernel's modules, so
# that the running system loads from the repository what the boot image lacks.
set -eu

tree=${1:?usage: os-tree.sh DIRECTORY}
case $tree in /*) ;; *) tree=$PWD/$tree ;; esac
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *\(linux-image-.*\)/\1/p' | head -n 1)
sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
	'Created-By: Packages' 'Origin: Debian' | grep ' bookworm' | sort -u)
if [ -z "$kernel" ] || [ -z "$sources" ]; then
	echo "os-tree: apt knows no Debian 12 packages; run 'apt-get update' first" >&2
	exit 7
fi

# The tree's apt follows this computer's choices about stale package lists.
stale=$(apt-config shell V Acquire::Check-Valid-Until D Acquire::Check-Date)
V=true D=true
eval "$stale"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
(cd "$work" && apt-get download -q "$kernel" >/dev/null && dpkg-deb -x ./"$kernel"_*.deb kernel)

rm -rf "$tree" "$tree.part"
printf '%s\n' "$sources" | mmdebstrap --quiet --variant=minbase --mode=root \
	--aptopt="Acquire::Check-Valid-Until \"$V\"" --aptopt="Acquire::Check-Date \"$D\"" \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--include=systemd,systemd-sysv,dbus,udev,kmod,iproute2,openssh-server,sudo,procps,attr,cloud-init,netplan.io \
	--customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname' \
	--customize-hook=': > "$1"/etc/machine-id' \
	--customize-hook='printf "127.0.0.1 localhost\n::1 localhost ip6-localhost\n" > "$1"/etc/hosts' \
	--customize-hook='printf "# the boot image mounts the root file system\n" > "$1"/etc/fstab' \
	--customize-hook='printf "locale: false\n" > "$1"/etc/cloud/cloud.cfg.d/90_no_locales.cfg' \
	--customize-hook='mkdir -p "$1"/mnt "$1"/cvmfs' \
	--customize-hook='chroot "$1" systemctl enable systemd-networkd.service >/dev/null 2>&1' \
	--customize-hook='chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service systemd-networkd-wait-online.service >/dev/null 2>&1' \
	--customize-hook="cp -a '$work'/kernel/lib/modules \"\$1\"/usr/lib/ && for m in \"\$1\"/usr/lib/modules/*; do chroot \"\$1\" depmod \"\${m##*/}\"; done" \
	bookworm "$tree.part" -
mv "$tree.part" "$tree"

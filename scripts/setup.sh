#!/bin/sh
# Installs with apt what is missing for a purpose, and nothing when nothing is.
#
#   setup.sh demo    what 'make demo' needs
#   setup.sh test    that, and the other tools the tests compare against
set -eu

demo="qemu-system-x86 mmdebstrap openssh-client ca-certificates"
test="qemu-utils xorriso genisoimage isolinux syslinux-common syslinux-utils mtools dosfstools fdisk gdisk e2fsprogs
	xfsprogs btrfs-progs squashfs-tools busybox-static kmod cpio attr libcap2-bin sqlite3 openssl iproute2 procps
	zstd xz-utils cloud-image-utils bc libvirt-daemon-system dnsmasq-base tini libxml2-utils ovmf qemu-system-arm qemu-efi-aarch64 rsync"

case ${1-} in
demo) want=$demo ;;
test) want="$demo $test" ;;
*) echo "usage: setup.sh demo|test" >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null || ! command -v go >/dev/null; then
	echo "setup: this needs Debian 12 (apt-get) and Go 1.26 or later in PATH" >&2
	exit 7
fi
missing=""
for package in $want; do
	dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
# Package lists are needed even when nothing is missing: the image is built from
# packages that apt fetches and verifies.
lists=$(apt-cache depends linux-image-amd64 2>/dev/null | grep -c 'Depends: linux-image-' || true)
[ -n "$missing" ] || [ "$lists" = 0 ] || exit 0

sudo=""
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "setup: run as root: apt-get install$missing" >&2; exit 7; }
	sudo=sudo
fi
echo "setup: installing${missing:- apt's package lists}"
$sudo apt-get update -q >/dev/null
[ -z "$missing" ] ||
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		-o DPkg::Lock::Timeout=900 $missing >/dev/null

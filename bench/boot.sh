#!/bin/bash
# How long a machine takes to an SSH banner: Mica against the same operating
# system tree on an ext4 disk, booted by the same QEMU, in turn, in one run.
#
#   bench/boot.sh [RUNS [DELAY]]      needs 'scripts/demo-assets.sh' and root
#
# Cold is a first boot on an empty disk; ahead is one along a profile that the
# first cold boot left; warm is the next boot of the cold machine. Every answer of
# the server comes DELAY later than it could, by default 0ms.
# The yardstick boots the same kernel through an initramfs that does nothing but
# load the drivers and mount the disk. It has no boot menu (two seconds), makes no
# host keys and applies no context: it is what an image with everything done
# beforehand would take.
set -euo pipefail

cd "$(dirname "$0")/.."
runs=${1:-1}
delay=${2:-0ms}
name=demo.mica.test
out=build/bench
tree=build/demo/tree
mica=$PWD/bin/mica
port=$(cat build/demo/port)
export MICA_HOME=$PWD/$out/home
mkdir -p "$out"
accel=tcg,thread=multi
if grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; then accel=kvm; fi

cleanup() {
	"$mica" destroy --force bench >/dev/null 2>&1 || true
	[ -z "${server-}" ] || kill "$server" 2>/dev/null || true
	rm -rf "$out/profiled"
	[ -z "${qemu-}" ] || kill "$qemu" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

now() { date +%s.%N; }
since() { echo "$(now) - $1" | bc; }

# banner PORT: wait until an SSH server says its name there
banner() {
	for _ in $(seq 6000); do
		if timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/$1 && read -r line <&3 && [[ \$line == SSH-* ]]" 2>/dev/null; then return 0; fi
		sleep 0.1
	done
	echo "bench: no SSH banner on port $1" >&2
	return 1
}

# downloads: what the machine's client fetched, what of it somebody waited for, and
# the most memory it used
downloads() {
	"$mica" ssh --user root bench -- /run/initramfs/bin/mica-guest status | awk '$1 == "\"repository\":" {r = 1}
		r && $1 == "\"objects\":" && !o {o = $2} r && $1 == "\"bytes\":" {b = $2} r && $1 == "\"ahead\":" {a = $2}
		r && $1 == "\"peak_memory\":" {m = $2; r = 0}
		END {printf "%.1f MB in %d objects downloaded, %d of them waited for, client memory at most %.1f MB\n", b / 1e6, o, o - a, m / 1e6}'
}

# serve FOLDER: in place of what was served
serve() {
	if [ -n "${server-}" ]; then
		kill "$server"
		wait "$server" 2>/dev/null || true
	fi
	"$out/away" "$1" "127.0.0.1:$port" "$delay" &
	server=$!
}

# create: a first boot; prints the seconds until its user can log in
create() {
	local began
	began=$(now)
	"$mica" create bench examples/demo.context --image build/demo/mica.iso --progress none >/dev/null 2>&1
	since "$began"
}

# --- the yardstick: ext4 disk and initramfs ---
yardstick() {
	local work=$out/ext4 release
	[ ! -f "$work/disk" ] || return 0
	mkdir -p "$work/initramfs/bin" "$work/initramfs/lib/modules"
	rm -rf "$work/packages" && mkdir "$work/packages"
	local deb
	deb=$(find build/packages -name 'linux-image-*.deb' | sort | tail -n 1)
	dpkg-deb -x "$deb" "$work/packages"
	release=$(basename "$work"/packages/boot/vmlinuz-*)
	cp "$work/packages/boot/$release" "$work/vmlinuz"
	release=${release#vmlinuz-}
	cp "$(command -v busybox)" "$work/initramfs/bin/"
	mkdir -p "$work/initramfs/lib/modules/$release"
	: >"$work/initramfs/load"
	/sbin/depmod -b "$work/packages" "$release" # the package leaves that to its installation
	local name file
	# what is built in has no file, and is no failure
	for name in virtio_pci virtio_blk virtio_net virtio_rng ext4 crc32c_generic; do
		/sbin/modprobe -d "$work/packages" -S "$release" --show-depends "$name" 2>/dev/null | sed -n 's/^insmod //p' || true
	done | awk '!seen[$0]++' | while read -r file; do
		cp "$file" "$work/initramfs/lib/modules/$release/"
		echo "/lib/modules/$release/$(basename "$file")" >>"$work/initramfs/load"
	done
	cat >"$work/initramfs/init" <<-'INIT'
		#!/bin/busybox sh
		/bin/busybox mkdir -p /proc /sys /dev /root
		/bin/busybox mount -t proc proc /proc
		/bin/busybox mount -t sysfs sysfs /sys
		/bin/busybox mount -t devtmpfs dev /dev
		while read -r m; do /bin/busybox insmod "$m"; done </load
		until /bin/busybox mount -t ext4 /dev/vda /root; do /bin/busybox sleep 0.1; done
		/bin/busybox mount --move /dev /root/dev
		/bin/busybox mount --move /sys /root/sys
		/bin/busybox mount --move /proc /root/proc
		exec /bin/busybox switch_root /root /sbin/init
	INIT
	chmod +x "$work/initramfs/init"
	(cd "$work/initramfs" && find . | cpio -o -H newc --quiet | gzip -9 >../initrd)
	cp -a --reflink=auto "$tree" "$work/root"
	ssh-keygen -q -t ed25519 -N '' -f "$work/root/etc/ssh/ssh_host_ed25519_key"
	printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n' >"$work/root/etc/systemd/network/10-dhcp.network"
	touch "$work/root/etc/cloud/cloud-init.disabled"
	mke2fs -q -t ext4 -d "$work/root" "$work/disk.part" 3000M >/dev/null
	rm -rf "$work/root" "$work/packages"
	mv "$work/disk.part" "$work/disk"
}

# ext4boot DISK: boots it and prints the seconds to the banner
ext4boot() {
	local began
	began=$(now)
	qemu-system-x86_64 -machine q35 -accel "$accel" -m 2048 -nodefaults -no-user-config -display none \
		-kernel "$out/ext4/vmlinuz" -initrd "$out/ext4/initrd" -append "console=ttyS0 quiet net.ifnames=0" \
		-drive "if=virtio,format=raw,file=$1" -device virtio-rng-pci -serial "file:$out/ext4/serial.log" \
		-netdev user,id=n,hostfwd=tcp:127.0.0.1:22922-:22 -device virtio-net-pci,netdev=n &
	qemu=$!
	banner 22922
	since "$began"
	sleep 3 # let what was written reach the disk
	kill "$qemu"
	wait "$qemu" 2>/dev/null || true
	qemu=""
}

yardstick
go build -o "$out/away" bench/away.go
rm -rf "$out/profiled"
echo "load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, $accel, answers $delay late"
printf '%-4s %11s %11s %11s %11s %11s %7s %7s %7s\n' run "mica cold" "mica ahead" "mica warm" "ext4 cold" "ext4 warm" ahead cold warm
for run in $(seq "$runs"); do
	serve build/demo/repo
	mcold=$(create)
	"$mica" ssh --user root bench -- sync
	facts=$(downloads)
	if [ ! -d "$out/profiled" ]; then
		cp -a build/demo/repo "$out/profiled"
		"$mica" repo profile record bench "$out/boot.profile" 2>/dev/null
		"$mica" repo profile attach "$out/profiled/$name" "$out/boot.profile" --keys build/demo/keys 2>/dev/null
	fi
	"$mica" stop --shutdown bench >/dev/null
	began=$(now)
	"$mica" start bench >/dev/null 2>&1
	banner "$("$mica" ssh-config bench | awk '$1 == "Port" {print $2}')"
	mwarm=$(since "$began")
	warmfacts=$(downloads)
	"$mica" destroy --force bench >/dev/null
	serve "$out/profiled"
	mahead=$(create)
	aheadfacts=$(downloads)
	"$mica" destroy --force bench >/dev/null
	cp --sparse=always "$out/ext4/disk" "$out/ext4/run"
	ecold=$(ext4boot "$out/ext4/run")
	ewarm=$(ext4boot "$out/ext4/run")
	ratio() { echo "scale=4; $1 / $2" | bc; }
	printf '%-4s %9.1f s %9.1f s %9.1f s %9.1f s %9.1f s %6.2fx %6.2fx %6.2fx\n' "$run" "$mcold" "$mahead" "$mwarm" "$ecold" "$ewarm" \
		"$(ratio "$mahead" "$mcold")" "$(ratio "$mcold" "$ecold")" "$(ratio "$mwarm" "$ewarm")"
	echo "     cold:  $facts"
	echo "     ahead: $aheadfacts"
	echo "     warm:  $warmfacts"
done

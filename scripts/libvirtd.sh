#!/bin/sh
# A libvirt system daemon of its own, for tests: with its own mounts, network
# and process ids, so that nothing of this computer's libvirt is seen or
# changed and nothing is left when it ends. Needs root, not systemd.
#
#   libvirtd.sh run COMMAND [ARG]...         runs a command beside a fresh daemon
#   libvirtd.sh start DIR                    starts one that keeps its files in DIR
#   libvirtd.sh exec DIR COMMAND [ARG]...    runs a command beside that one
#   libvirtd.sh stop DIR                     ends it and removes DIR
#   libvirtd.sh session COMMAND [ARG]...     runs a command as the user nobody, who
#                                            may start a session daemon
#
# LIBVIRTD_QEMU_USER is who QEMU runs as: root if unset, libvirt-qemu as
# distributions have it. LIBVIRTD_LOG_SIZE is after how many bytes virtlogd cuts a
# console log, 2 MiB if unset.
set -eu

self=$(readlink -f "$0")

fail() { echo "libvirtd.sh: $1" >&2; exit "${2:-1}"; }

need() {
	[ "$(id -u)" = 0 ] || fail "run as root" 7
	for program in libvirtd virtlogd tini unshare nsenter ip; do
		command -v $program >/dev/null || fail "$program is missing: scripts/setup.sh test installs it" 7
	done
}

# apart runs "world" in namespaces of its own, in which tini is process 1: it
# reaps what libvirt leaves behind, and all processes end with it.
apart() {
	exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private -- tini -g -- "$self" world "$@"
}

# hide_kvm DIR takes /dev/kvm away, by a /dev made in DIR. On a computer whose
# processor cannot run machines, which may be one itself, the device opens and does
# not work, or opens for some users only. libvirt finds then at each step that what
# it knows of QEMU does not fit, and looks at QEMU anew, which takes a second.
hide_kvm() {
	[ -e /dev/kvm ] || return 0
	mkdir "$1"
	mount -t tmpfs -o mode=0755 none "$1"
	for node in /dev/*; do
		case $node in /dev/kvm) continue ;; esac
		if [ -d "$node" ] && [ ! -L "$node" ]; then
			mkdir "$1/${node#/dev/}"
			mount --rbind "$node" "$1/${node#/dev/}"
		else
			cp -a "$node" "$1/"
		fi
	done
	mount --move "$1" /dev
}

# world is what runs inside: DIR COMMAND [ARG]...
world() {
	dir=$1; shift
	ip link set lo up
	mkdir -p "$dir/etc" "$dir/lib" "$dir/log" "$dir/cache" /run/libvirt
	cp -a /etc/libvirt/. "$dir/etc/"
	cp -a /var/lib/libvirt/. "$dir/lib/"
	mkdir -p "$dir/lib/images" "$dir/log/qemu"
	chmod 0711 "$dir" "$dir/lib" "$dir/lib/images"
	mount -t tmpfs -o mode=0755 none /run/libvirt
	mount --bind "$dir/etc" /etc/libvirt
	mount --bind "$dir/lib" /var/lib/libvirt
	mount --bind "$dir/log" /var/log/libvirt
	mount --bind "$dir/cache" /var/cache/libvirt
	grep -qwE 'vmx|svm' /proc/cpuinfo || hide_kvm "$dir/dev"
	rm -f /etc/libvirt/qemu/networks/autostart/* /etc/libvirt/qemu/autostart/*
	{
		echo 'security_driver = "none"'
		if [ "${LIBVIRTD_QEMU_USER:-root}" = root ]; then
			printf 'user = "root"\ngroup = "root"\ndynamic_ownership = 0\n'
		fi
	} >>/etc/libvirt/qemu.conf
	mkdir -p /etc/libvirt/storage/autostart
	cat >/etc/libvirt/storage/default.xml <<-POOL
		<pool type='dir'>
		  <name>default</name>
		  <uuid>6c2b8f0e-6f5d-4b8e-9a40-0c1f6f3f2f11</uuid>
		  <target><path>/var/lib/libvirt/images</path></target>
		</pool>
	POOL
	ln -sf ../default.xml /etc/libvirt/storage/autostart/default.xml
	[ -z "${LIBVIRTD_LOG_SIZE-}" ] || echo "max_size = $LIBVIRTD_LOG_SIZE" >>/etc/libvirt/virtlogd.conf
	virtlogd --daemon --pid-file /run/libvirt/virtlogd.pid
	libvirtd --pid-file /run/libvirt/libvirtd.pid 2>"$dir/libvirtd.err" &
	n=0
	until [ -S /run/libvirt/libvirt-sock ]; do
		n=$((n + 1))
		[ $n -lt 300 ] || { cat "$dir/libvirtd.err" >&2; fail "libvirtd did not come up"; }
		sleep 0.1
	done
	: >"$dir/ready"
	trap leave EXIT
	trap 'exit 143' INT TERM
	rc=0
	"$@" || rc=$?
	exit $rc
}

# groups lists the control groups of a machine, the innermost first.
groups() { find /sys/fs/cgroup -depth -type d -path "*/machine*/qemu-*-$1.libvirt-qemu*" 2>/dev/null || true; }

# leave ends the machines that still run, and removes their control groups,
# which are no part of a world.
leave() {
	for pidfile in /run/libvirt/qemu/*.pid; do
		[ -e "$pidfile" ] || continue
		pid=$(cat "$pidfile")
		name=$(basename "$pidfile" .pid)
		kill -9 "$pid" 2>/dev/null || continue
		n=0
		until [ -z "$(groups "$name")" ] || [ $n -ge 50 ]; do
			groups "$name" | xargs -r -d '\n' rmdir 2>/dev/null || true # busy until the kernel is done with it
			n=$((n + 1))
			sleep 0.1
		done
	done
}

# sweep removes libvirt's own control group where it was the last world's.
sweep() {
	pgrep -f 'libvirtd\.sh world' >/dev/null || rmdir /sys/fs/cgroup/machine /sys/fs/cgroup/*/machine 2>/dev/null || true
}

case ${1-} in
run)
	shift
	[ $# -gt 0 ] || fail "run what?" 2
	need
	dir=$(mktemp -d "${TMPDIR:-/tmp}/libvirtd.XXXXXX")
	trap 'rm -rf "$dir"; sweep' EXIT
	trap 'exit 143' INT TERM
	rc=0
	(apart "$dir" "$@") || rc=$?
	exit $rc
	;;
start)
	dir=${2:?start where?}
	need
	if [ -f "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; then exit 0; fi
	rm -rf "$dir"
	mkdir -p "$dir"
	(apart "$dir" sleep infinity) >"$dir/out" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	n=0
	until [ -e "$dir/ready" ]; do
		n=$((n + 1))
		kill -0 "$(cat "$dir/pid")" 2>/dev/null && [ $n -lt 400 ] || { cat "$dir/out" >&2; fail "it did not come up"; }
		sleep 0.1
	done
	;;
exec)
	dir=${2:?exec where?}
	shift 2
	[ -f "$dir/pid" ] || fail "nothing runs in $dir: libvirtd.sh start $dir" 4
	inner=$(cat "/proc/$(cat "$dir/pid")/task/$(cat "$dir/pid")/children")
	exec nsenter --target "${inner%% *}" --mount --net --pid -- sh -c 'cd "$1" && shift && exec "$@"' sh "$PWD" "$@"
	;;
stop)
	dir=${2:?stop where?}
	if [ -f "$dir/pid" ]; then
		pid=$(cat "$dir/pid")
		inner=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
		[ -z "${inner%% *}" ] || kill -TERM "${inner%% *}" 2>/dev/null || true
		n=0
		while [ $n -lt 100 ] && [ -n "$(cat "/proc/$pid/task/$pid/children" 2>/dev/null)" ]; do n=$((n + 1)); sleep 0.1; done
		kill -9 "$pid" 2>/dev/null || true
		while kill -0 "$pid" 2>/dev/null && [ "$(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null)" != Z ]; do sleep 0.1; done
		rm -rf "$dir"
	fi
	sweep
	;;
session)
	shift
	[ $# -gt 0 ] || fail "run what?" 2
	need
	dir=$(mktemp -d "${TMPDIR:-/tmp}/libvirtd.XXXXXX")
	trap 'rm -rf "$dir"' EXIT
	trap 'exit 143' INT TERM
	chmod 0711 "$dir"
	install -d -o 65534 -g 65534 -m 0700 "$dir/home" "$dir/run" "$dir/tmp"
	rc=0
	unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private -- \
		tini -g -- "$self" nobody "$dir" "$@" || rc=$?
	exit $rc
	;;
nobody)
	dir=$2
	shift 2
	ip link set lo up
	rc=0
	setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" TMPDIR="$dir/tmp" \
		XDG_CACHE_HOME= XDG_CONFIG_HOME= "$@" || rc=$?
	exit $rc
	;;
world)
	shift
	world "$@"
	;;
*)
	sed -n '2,16s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac

#!/bin/bash
# Runs the tiers of tests, by default all; docs/testing.md describes them.
# MICA_TIERS picks some: "short full root drivers virtualbox vm" in any combination;
# MICA_STORIES picks some of the vm tier's by a regular expression.
set -euo pipefail

cd "$(dirname "$0")/.."
tiers=${MICA_TIERS:-"full root drivers virtualbox vm"}
require=apt-get,busybox,qemu-system-x86_64,qemu-system-aarch64,qemu-img,xorriso,isoinfo,mcopy,mdir,fsck.vfat,sgdisk,mkfs.ext4,mkfs.vfat,sqlite3,openssl,cpio,getfattr,cloud-localds,libvirtd,virtlogd,virt-xml-validate,xmllint,tini,rsync
export MICA_TEST_REQUIRE=${MICA_TEST_REQUIRE:+$MICA_TEST_REQUIRE,}$require
export PATH=$PATH:/usr/sbin:/sbin
as_root=()
[ "$(id -u)" = 0 ] || as_root=(-exec "sudo -E")

step() { echo; echo "== $* ($(date +%T))"; }

# What could not be run for reasons outside of this project, for the last line.
not_run=""

# VirtualBox comes from a distribution that moves, and takes its time to come: it is
# fetched while the other tiers run.
vbox=${XDG_CACHE_HOME:-$HOME/.cache}/mica/vbox-root
vbox_log=build/vbox-root.log
vbox_job=""
case $tiers in
*virtualbox*)
	mkdir -p build
	${as_root:+sudo -E} timeout 1500 nice scripts/vbox-root.sh "$vbox" >"$vbox_log" 2>&1 </dev/null &
	vbox_job=$!
	# A tier that fails ends the script: what it leaves is ended with it.
	trap '[ -z "$vbox_job" ] || kill "$vbox_job" 2>/dev/null || true' EXIT
	;;
esac

step "formatting and vet"
unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "not formatted: $unformatted" >&2; exit 1; }
go vet ./...

case $tiers in
*short*) step "short tests"; go test -short ./... ;;
esac
# Packages with tests of the root tier. Root runs all their tests there, and need
# not run most of them twice.
packages=$(grep -rl --include=*_test.go 'tier\.Root(' . | grep -v /drivers/ | xargs -r -n1 dirname | sort -u)
others() {
	case "$(id -u) $tiers" in
	# shellcheck disable=SC2086
	"0 "*root*) go list ./... | grep -vxF "$(go list $packages)" ;;
	*) echo ./... ;;
	esac
}
case $tiers in
*full*) step "full tests: in-process services, oracles"; others | xargs go test -timeout 15m ;;
esac
case $tiers in
*root*)
	step "root tests: FUSE, loop devices, network namespaces, and all others of their packages"
	# shellcheck disable=SC2086
	[ -z "$packages" ] || MICA_TEST=root go test -count=1 -p 1 -timeout 15m "${as_root[@]}" $packages
	;;
esac
case $tiers in
*drivers*)
	step "drivers: machines under the real libvirt"
	MICA_TEST=root go test -count=1 -timeout 20m "${as_root[@]}" ./internal/machine/drivers/libvirt
	;;
esac
case $tiers in
*virtualbox*)
	step "drivers: machines under the real VirtualBox"
	code=0
	wait "$vbox_job" || code=$?
	vbox_job=""
	tail -n 5 "$vbox_log"
	if [ "$code" = 0 ]; then
		MICA_VBOX_ROOT=$vbox go test -count=1 -timeout 20m -run 'TestReal$' "${as_root[@]}" ./internal/machine/drivers/virtualbox
	else
		echo "VirtualBox could not be fetched (code $code, $vbox_log): its tests are NOT RUN" >&2
		not_run="$not_run virtualbox"
	fi
	;;
esac
case $tiers in
*vm*)
	step "machines: what they boot"
	scripts/demo-assets.sh
	step "machines: stories"
	MICA_TEST=vm MICA_TEST_ASSETS=$PWD/build/demo go test -count=1 -p 1 -timeout 40m -run "${MICA_STORIES:-.}" -v ./test/... 2>&1 |
		grep --line-buffered -v '^=== \(RUN\|PAUSE\|CONT\)'
	;;
esac
echo
if [ -n "$not_run" ]; then
	echo "== NOT RUN, see above:$not_run"
	echo "== all other tiers passed: $tiers ($(date +%T))"
else
	echo "== all tiers passed: $tiers ($(date +%T))"
fi

#!/bin/bash
# Runs the tiers of tests, by default all but VirtualBox's; docs/testing.md describes
# them. MICA_TIERS picks some: "short full root drivers virtualbox vm" in any
# combination; MICA_STORIES picks some of the vm tier's by a regular expression.
set -euo pipefail

cd "$(dirname "$0")/.."
tiers=${MICA_TIERS:-"full root drivers vm"}
require=apt-get,busybox,qemu-system-x86_64,qemu-img,xorriso,isoinfo,mcopy,sgdisk,mkfs.ext4,mkfs.vfat,sqlite3,openssl,cpio,getfattr,cloud-localds,libvirtd,virtlogd,tini
export MICA_TEST_REQUIRE=${MICA_TEST_REQUIRE:+$MICA_TEST_REQUIRE,}$require
export PATH=$PATH:/usr/sbin:/sbin
as_root=()
[ "$(id -u)" = 0 ] || as_root=(-exec "sudo -E")

step() { echo; echo "== $* ($(date +%T))"; }

step "formatting and vet"
unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "not formatted: $unformatted" >&2; exit 1; }
go vet ./...

case $tiers in
*short*) step "short tests"; go test -short ./... ;;
esac
case $tiers in
*full*) step "full tests: in-process services, oracles"; go test -timeout 15m ./... ;;
esac
case $tiers in
*root*)
	step "root tests: FUSE, loop devices, network namespaces"
	packages=$(grep -rl --include=*_test.go 'tier\.Root(' . | grep -v /drivers/ | xargs -r -n1 dirname | sort -u)
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
	vbox=${XDG_CACHE_HOME:-$HOME/.cache}/mica/vbox-root
	${as_root:+sudo -E} scripts/vbox-root.sh "$vbox"
	MICA_VBOX_ROOT=$vbox go test -count=1 -timeout 60m -run TestReal "${as_root[@]}" ./internal/machine/drivers/virtualbox
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
echo "== all tiers passed: $tiers ($(date +%T))"

#!/bin/bash
# Runs every tier of tests that this computer can run; docs/testing.md describes
# them. MICA_TIERS picks some: "short full root drivers vm" in any combination;
# MICA_STORIES picks some of the vm tier's by a regular expression.
set -euo pipefail

cd "$(dirname "$0")/.."
tiers=${MICA_TIERS:-"full root drivers vm"}
require=apt-get,busybox,qemu-system-x86_64,qemu-img,xorriso,isoinfo,mcopy,sgdisk,mkfs.ext4,mkfs.vfat,sqlite3,openssl,cpio,getfattr,cloud-localds,libvirtd,virtlogd,tini
export MICA_TEST_REQUIRE=${MICA_TEST_REQUIRE:+$MICA_TEST_REQUIRE,}$require
export PATH=$PATH:/usr/sbin:/sbin
as_root=()
[ "$(id -u)" = 0 ] || as_root=(-exec "sudo -E")

step() { echo; echo "== $* ($(date +%T))"; }

vbox=${XDG_CACHE_HOME:-$HOME/.cache}/mica/vbox-root
case $tiers in
*drivers*) # mostly waits for the network, so beside the other tests
	mkdir -p build
	${as_root:+sudo -E} scripts/vbox-root.sh "$vbox" >build/vbox-root.log 2>&1 &
	made_vbox=$!
	;;
esac

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
	step "drivers: what runs machines, really"
	if wait "$made_vbox"; then
		export MICA_VBOX_ROOT=$vbox
	else
		echo "no VirtualBox to test with, its driver sees the stand-in only:" >&2
		tail -n 5 build/vbox-root.log >&2
	fi
	MICA_TEST=root go test -count=1 -p 1 -timeout 30m "${as_root[@]}" ./internal/machine/... ./internal/launch/...
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

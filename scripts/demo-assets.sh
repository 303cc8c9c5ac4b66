#!/bin/sh
# Makes what the demo and the tests that boot machines share, in build/demo:
#
#   tree/     a small Debian, made once         repo/   it, published
#   keys/     the repository's keys             mica.iso, port
#
# The image finds its repository at http://10.0.2.2:PORT, which is this
# computer as QEMU's user network shows it to a guest.
set -eu

cd "$(dirname "$0")/.."
out=build/demo
name=demo.mica.test
mica=bin/mica
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
mkdir -p "$out"

if [ ! -d "$out/tree" ]; then
	echo "demo: making the operating system tree (Debian 12), about two minutes"
	$sudo scripts/os-tree.sh "$out/tree"
fi
if [ ! -f "$out/repo/$name/.cvmfspublished" ] || [ "$out/tree" -nt "$out/repo/$name/.cvmfspublished" ]; then
	echo "demo: publishing it as $name"
	$sudo "$mica" repo publish "$out/tree" --repo "$out/repo" --name "$name" --keys "$out/keys" --tag v1
	[ -z "$sudo" ] || $sudo chown -R "$(id -u):$(id -g)" "$out/repo" "$out/keys"
fi

if [ ! -f "$out/port" ]; then
	port=${MICA_DEMO_PORT:-8765}
	while bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null; do # somebody listens there
		port=$((port + 1))
	done
	echo "$port" >"$out/port"
fi
port=$(cat "$out/port")
key=$out/keys/$name.pub
if [ ! -f "$out/mica.iso" ] || [ bin/mica-guest -nt "$out/mica.iso" ] || [ bin/mica -nt "$out/mica.iso" ] ||
	[ "$key" -nt "$out/mica.iso" ] || [ "$out/port" -nt "$out/mica.iso" ]; then
	echo "demo: building the boot image"
	"$mica" image build -o "$out/mica.iso" --repository "$name" --key "$key" --tag v1 \
		--url "http://10.0.2.2:$port/cvmfs/$name" --cache build/packages
fi

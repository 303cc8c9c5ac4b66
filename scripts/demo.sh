#!/bin/bash
# The main job from end to end: build the image, publish a small operating
# system, boot a machine from a context, log in and look around.
#
#   demo.sh         run it (again)          demo.sh stop    remove what runs
set -euo pipefail

cd "$(dirname "$0")/.."
out=build/demo
repository=demo.mica.test
mica=$PWD/bin/mica
iso=$PWD/$out/mica.iso

# ours: the machine called demo was made by a demo, this checkout's or another's
ours() { [[ $("$mica" show demo --output json 2>/dev/null) == *"/build/demo/mica.iso"* ]]; }

stop() {
	if ours; then "$mica" destroy --force demo; fi
	if [ -f "$out/serve.pid" ] && serving; then kill "$(cat "$out/serve.pid")"; fi
	rm -f "$out/serve.pid"
}

serving() { [[ $(tr '\0' ' ' 2>/dev/null </proc/"$(cat "$out/serve.pid" 2>/dev/null)"/cmdline) == *"repo serve"* ]]; }

if [ "${1-}" = stop ]; then
	stop
	exit 0
fi

began=$(date +%s)
scripts/demo-assets.sh
port=$(cat "$out/port")
if ! serving; then
	echo "demo: serving the repository on 127.0.0.1:$port"
	setsid "$mica" repo serve "$out/repo" --listen "127.0.0.1:$port" </dev/null >"$out/serve.log" 2>&1 &
	echo $! >"$out/serve.pid"
	for _ in $(seq 50); do
		bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" 2>/dev/null && break
		sleep 0.1
	done
	serving || { echo "demo: the server did not start:" >&2; cat "$out/serve.log" >&2; exit 1; }
fi

if "$mica" show demo >/dev/null 2>&1; then
	ours || { echo "demo: there is a machine called demo that is not the demo's; rename or destroy it" >&2; exit 5; }
	"$mica" destroy --force demo
fi
"$mica" create demo examples/demo.context --image "$iso"

echo
echo "demo: logging in"
"$mica" ssh demo -- 'echo; . /etc/os-release; echo "operating system:   $PRETTY_NAME, host name $(hostname)";
	echo "left by the script: $(cat /var/lib/mica-demo.txt)"'
echo "boot image:         $(stat -c %s "$iso") bytes"
"$mica" ssh --user root demo -- /run/initramfs/bin/mica-guest status |
	awk '$1 == "\"objects\":" {o = $2} $1 == "\"bytes\":" {b = $2}
		END {printf "downloaded:         %.1f MB in %d objects, until now\n", b / 1e6, o}'
echo
echo "demo: done in $(($(date +%s) - began)) s. The machine stays up; try"
echo "  bin/mica list            bin/mica show demo      bin/mica logs demo"
echo "  bin/mica stop demo       bin/mica start demo     bin/mica console demo"
echo "  bin/mica ssh demo        bin/mica destroy demo   make demo-stop"

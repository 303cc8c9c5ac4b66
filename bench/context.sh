#!/bin/bash
# How long it takes to put a context on a medium and to check one: Mica against
# genisoimage and cloud-localds, whole processes, in turn, in one run.
#
#   bench/context.sh [RUNS]      needs bin/mica, genisoimage and cloud-localds
#
# genisoimage packs a tree that is there already; Mica reads the context, makes the
# metadata and packs. cloud-localds gets the metadata it needs as a file.
set -euo pipefail

cd "$(dirname "$0")/.."
runs=${1:-100}
mica=$PWD/bin/mica
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MICA_HOME=$work/home

# A context of 16 KiB, the most that every cloud takes: a script, options, keys.
{
	echo '#!/bin/sh.after'
	echo 'grep -q amiconfig /proc/1/cmdline || exit 0'
	for i in $(seq 10000 10400); do echo "echo number $i >/srv/line.$i"; done | head -c 15700 | sed '$d'
	printf 'exit 0\n\n[amiconfig]\nplugins=hostname cernvm\n\n[hostname]\nhostname=worker\n\n[cernvm]\nrepositories=sft,grid\nservices=docker\n\n'
	printf '[ucernvm-begin]\ncvmfs_branch=cernvm-prod.cern.ch\ncvmfs_http_proxy="DIRECT"\n[ucernvm-end]\n'
} >"$work/context"
size=$(stat -c %s "$work/context")
truncate -s 16384 "$work/padded"
{ cat "$work/context"; printf '#%*s\n' $((16384 - size - 2)) '' | tr ' ' x; } >"$work/padded"
mv "$work/padded" "$work/context"
[ "$(stat -c %s "$work/context")" = 16384 ]
"$mica" context check --ignore C010 "$work/context" 2>/dev/null

mkdir -p "$work/tree/openstack/latest" "$work/tree/ec2/latest"
"$mica" context iso "$work/context" --hostname worker --instance-id i-1 --out "$work/first.iso"
isoinfo -R -i "$work/first.iso" -x /openstack/latest/meta_data.json >"$work/tree/openstack/latest/meta_data.json"
isoinfo -R -i "$work/first.iso" -x /ec2/latest/meta-data.json >"$work/tree/ec2/latest/meta-data.json"
isoinfo -R -i "$work/first.iso" -x /readme >"$work/tree/readme"
cp "$work/context" "$work/tree/openstack/latest/user_data"
cp "$work/context" "$work/tree/ec2/latest/user-data"
printf '{"instance-id": "i-1", "local-hostname": "worker"}\n' >"$work/meta-data"

# one NAME COMMAND...: runs the command, and notes the microseconds it took
one() {
	local name=$1 began ended
	shift
	began=${EPOCHREALTIME/[.,]/}
	"$@" >/dev/null 2>&1
	ended=${EPOCHREALTIME/[.,]/}
	echo $((ended - began)) >>"$work/$name.us"
}

# The middle and the tenth of a series, in milliseconds.
at() { sort -n "$work/$1.us" | awk -v q="$2" '{v[NR] = $1} END {i = int(NR * q) + 1; printf "%.2f", v[i] / 1000}'; }

for _ in $(seq "$runs"); do
	one config-2 "$mica" context iso "$work/context" --hostname worker --instance-id i-1 --force --out "$work/a.iso"
	one genisoimage genisoimage -quiet -R -J -V CONFIG-2 -o "$work/b.iso" "$work/tree"
	one nocloud "$mica" context iso "$work/context" --layout nocloud --hostname worker --instance-id i-1 --force --out "$work/c.iso"
	one cloud-localds cloud-localds "$work/d.iso" "$work/context" "$work/meta-data"
	one drive "$mica" context drive "$work/context" --hostname worker --instance-id i-1 --force --out "$work/e.img"
	one check "$mica" context check "$work/context"
	one version "$mica" version
done

echo "load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, $runs runs of each, a context of 16384 bytes"
printf '%-34s %10s %10s\n' "" "median ms" "best 10%"
for name in config-2 genisoimage nocloud cloud-localds drive check version; do
	printf '%-34s %10s %10s\n' "$name" "$(at $name 0.5)" "$(at $name 0.1)"
done
ratio() { echo "scale=3; $(at "$1" "$3") / $(at "$2" "$3")" | bc; }
echo "config-2 / genisoimage: $(ratio config-2 genisoimage 0.5) (best 10%: $(ratio config-2 genisoimage 0.1))"
echo "nocloud / cloud-localds: $(ratio nocloud cloud-localds 0.5) (best 10%: $(ratio nocloud cloud-localds 0.1))"
if command -v /usr/bin/time >/dev/null; then
	echo "peak memory of check: $(/usr/bin/time -f %M "$mica" context check "$work/context" 2>&1 >/dev/null | tail -n 1) KiB," \
		"of iso: $(/usr/bin/time -f %M "$mica" context iso "$work/context" --force --out "$work/a.iso" 2>&1 >/dev/null | tail -n 1) KiB"
fi
stat -c '%s bytes: %n' "$work/a.iso" "$work/b.iso" "$work/c.iso" "$work/d.iso" "$work/e.img" | sed "s|$work/||"

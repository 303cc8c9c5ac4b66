#!/bin/bash
# What the mica command itself costs, apart from any boot.
#
#   bench/machine.sh [RUNS [MACHINES]]      needs QEMU, ssh and python3
#
# The guest is one boot sector. For ssh the machine's record is made to lead to
# an SSH server of this computer: what is left is what 'mica ssh' adds to ssh.
set -euo pipefail

cd "$(dirname "$0")/.."
runs=${1:-20}
count=${2:-1000}
work=$(mktemp -d)
export MICA_HOME=$work/home MICA_IMAGE=$work/tiny.iso MICA_CREATE_MEMORY=64 MICA_CREATE_DISK=64M MICA_CREATE_ACCEL=tcg
mkdir -p bin
go build -trimpath -ldflags='-s -w' -o "$work/mica" ./cmd/mica
mica=$work/mica
go run bench/tinyiso.go >"$MICA_IMAGE"
go build -o "$work/sshd" bench/sshd.go
printf '[amiconfig]\nplugins=hostname\n' >"$work/context"

cleanup() {
	"$mica" destroy --all --yes --parallel 4 >/dev/null 2>&1 || true
	[ -z "${sshd-}" ] || kill "$sshd" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

# each COMMAND...: runs it $runs times with the run's number in $n, prints milliseconds each
each() {
	local began n
	began=$(date +%s%N)
	for n in $(seq "$runs"); do
		n=$n bash -c "$1" >/dev/null 2>&1 || { echo "bench: failed: $1" >&2; return 1; }
	done
	echo "$(($(date +%s%N) - began)) $runs" | awk '{printf "%.1f", $1 / $2 / 1e6}'
}
# peak COMMAND...: the most memory it used, in MiB
peak() { python3 -c 'import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
print("%.1f" % (resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024))' "$@"; }
export mica work

echo "load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors"
nothing=$(each true)
echo "starting a shell (in all that follows)      $nothing ms"
echo "mica version                                $(each '"$mica" version') ms"
echo "create --no-start                           $(each '"$mica" create "c$n" "$work/context" --unverified --no-start') ms"
echo "destroy                                     $(each '"$mica" destroy "c$n"') ms"

"$mica" create m "$work/context" --unverified --no-wait >/dev/null 2>&1
echo "stop (saves 64 MiB) and start               $(each '"$mica" stop m && "$mica" start m') ms"
port=22877
"$work/sshd" "127.0.0.1:$port" &
sshd=$!
python3 - "$MICA_HOME/machines/m/record.json" "$port" <<-'EDIT'
	import json, sys
	record = json.load(open(sys.argv[1]))
	record["instance"]["spec"]["forwards"] = [{"host": int(sys.argv[2]), "guest": 22}]
	json.dump(record, open(sys.argv[1], "w"))
EDIT
user=$(id -un)
export user port
sleep 1
plain=$(each 'ssh -F none -i "$MICA_HOME/machines/m/id_ed25519" -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="$work/known" -p "$port" "$user@127.0.0.1" true')
ours=$(each '"$mica" ssh -l "$user" m -- true')
echo "ssh HOST true                               $plain ms"
echo "mica ssh m -- true                          $ours ms ($(echo "$plain $ours" | awk '{printf "%.2f", $2 / $1}') times)"
"$mica" destroy --force m

began=$(date +%s%N)
"$mica" create --count "$count" 'w{nnnn}' "$work/context" --unverified --no-start --parallel 4 >/dev/null 2>&1
echo "create --count $count --no-start              $((($(date +%s%N) - began) / 1000000)) ms in all"
runs=5
echo "list of $count machines                       $(each '"$mica" list') ms"
echo "list of $count machines, memory               $(peak "$mica" list) MiB"
echo "show of one of $count, memory                 $(peak "$mica" show w0001) MiB"
began=$(date +%s%N)
"$mica" destroy --all --yes --parallel 4 >/dev/null
echo "destroy --all of $count                       $((($(date +%s%N) - began) / 1000000)) ms in all"

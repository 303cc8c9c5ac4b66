#!/bin/bash
# What the mica command itself costs, apart from any boot.
#
#   bench/machine.sh [ROUNDS [MACHINES]]      needs QEMU, ssh and python3
#
# The guest is one boot sector. For ssh the machine's record is made to lead to
# an SSH server of this computer: what is left is what 'mica ssh' adds to ssh.
# Beside 'create' a bare QEMU is started with the same hardware: what is left is
# what the record, the locks, the keys, the config drive and the watch over QEMU cost.
set -euo pipefail

cd "$(dirname "$0")/.."
runs=${1:-11}
count=${2:-1000}
work=$(mktemp -d)
export MICA_HOME=$work/home MICA_IMAGE=$work/tiny.iso MICA_CREATE_MEMORY=64 MICA_CREATE_DISK=64M MICA_CREATE_ACCEL=tcg
go build -trimpath -ldflags='-s -w' -o "$work/mica" ./cmd/mica
mica=$work/mica
go run bench/tinyiso.go >"$MICA_IMAGE"
go build -o "$work/sshd" bench/sshd.go
go build -o "$work/turns" bench/turns.go
printf '[amiconfig]\nplugins=hostname\n' >"$work/context"

cleanup() {
	"$mica" destroy --all --yes --parallel 4 >/dev/null 2>&1 || true
	[ -z "${sshd-}" ] || kill "$sshd" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

export mica work
echo "$(date +%F), load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, $runs rounds"
echo "$("$mica" version), $(qemu-system-x86_64 --version | head -n 1)"

"$mica" create m "$work/context" --unverified --no-wait >/dev/null 2>&1
"$mica" create s "$work/context" --unverified --no-wait >/dev/null 2>&1
port=22877
"$work/sshd" "127.0.0.1:$port" &
sshd=$!
python3 - "$MICA_HOME/machines/s/record.json" "$port" <<-'EDIT'
	import json, sys
	record = json.load(open(sys.argv[1]))
	record["instance"]["spec"]["forwards"] = [{"host": int(sys.argv[2]), "guest": 22}]
	json.dump(record, open(sys.argv[1], "w"))
EDIT
user=$(id -un)
export user port

"$work/turns" "$runs" <<-'PLAN'
	nothing|sh|true
	version|mica|exec "$mica" version
	create --no-start|mica|exec "$mica" create "c$n" "$work/context" --unverified --no-start
	create and start|mica|exec "$mica" create "d$n" "$work/context" --unverified --no-wait
	create and start|qemu|truncate -s 64M "$work/q$n.raw" && exec qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 1 -m 64 -nodefaults -no-user-config -display none -cdrom "$MICA_IMAGE" -boot d -drive "if=virtio,format=raw,file=$work/q$n.raw" -netdev user,id=n -device virtio-net-pci,netdev=n,romfile= -serial "file:$work/q$n.log" -daemonize -pidfile "$work/q$n.pid"
	stop, 64 MiB saved|mica|exec "$mica" stop m
	start from saved|mica|exec "$mica" start m
	destroy, off|mica|exec "$mica" destroy "c$n"
	destroy, running|mica|exec "$mica" destroy --force "d$n"
	-|qemu|kill "$(cat "$work/q$n.pid")"
	ssh HOST true|ssh|exec ssh -F none -i "$MICA_HOME/machines/s/id_ed25519" -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="$work/known" -p "$port" "$user@127.0.0.1" true
	ssh HOST true|mica|exec "$mica" ssh -l "$user" s -- true
PLAN
"$mica" destroy --force m s >/dev/null

echo
began=$(date +%s%N)
"$mica" create --count "$count" 'w{nnnn}' "$work/context" --unverified --no-start --parallel 4 >/dev/null 2>&1
echo "create --count $count --no-start: $((($(date +%s%N) - began) / 1000000)) ms in all"
"$work/turns" "$runs" <<-'PLAN'
	list|mica|exec "$mica" list
	list -o json|mica|exec "$mica" list -o json
	show of one|mica|exec "$mica" show w0001
PLAN
began=$(date +%s%N)
"$mica" destroy --all --yes --parallel 4 >/dev/null
echo "destroy --all of $count: $((($(date +%s%N) - began) / 1000000)) ms in all"

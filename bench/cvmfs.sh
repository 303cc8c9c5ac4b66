#!/bin/bash
# What reading and publishing a CernVM-FS repository costs: 'mica repo' beside the
# same tree on this computer's disk, beside squashfuse, and beside zlib alone, as
# whole processes, in turn, in one run.
#
#   bench/cvmfs.sh [ROUNDS [FILES [MEGABYTES]]]      needs root; installs the peers
#
# The tree has FILES small files and one of so many MEGABYTES (bench/maketree.go).
# Cold is a new mount with an empty cache and its server on the loopback; the tree
# on the disk is in the page cache all the time. Far is an eighth of the directories,
# in a row or with gaps, with each answer 10 ms late, beside one request at a time.
# What was published stays to the end: for minutes after a removal ext4 passes over
# the inodes that became free, one by one, and a publisher would be measured by that.
# squashfuse has its data on this disk.
# With 'million' as the first argument a million files are published once, for
# the memory that takes.
set -euo pipefail

cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "cvmfs.sh: run as root" >&2; exit 7; }
for program in squashfuse mksquashfs zstd curl; do
	command -v $program >/dev/null || missing=yes
done
if [ "${missing-}" ]; then
	DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=900 install -y --no-install-recommends \
		squashfuse squashfs-tools zstd curl >/dev/null
fi
rounds=${1:-5}
work=$(mktemp -d)
export work MICA_HOME=$work/home name=b.example.org
go build -trimpath -ldflags='-s -w' -o "$work/mica" ./cmd/mica
for program in maketree origin zlibs turns; do
	go build -o "$work/$program" bench/$program.go
done

cleanup() {
	for mount in mnt squash; do
		! mountpoint -q "$work/$mount" || umount "$work/$mount" 2>/dev/null || umount -l "$work/$mount"
	done
	for pid in ${near-} ${far-}; do kill "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap cleanup EXIT

echo "$(date +%F), load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, kernel $(uname -r)"
publish() { "$work/mica" repo publish "$@" --name "$name" --keys "$work/keys" 2>/dev/null; }
if [ "$rounds" = million ]; then
	"$work/maketree" -tar 1000000 | "$work/mica" repo publish - --repo "$work/storage" --name "$name" --keys "$work/keys" >/dev/null 2>&1 &
	while kill -0 $! 2>/dev/null; do
		awk '/VmHWM/ {print $2}' /proc/$!/status >"$work/now" 2>/dev/null && [ ! -s "$work/now" ] || cp "$work/now" "$work/peak"
		sleep 0.2
	done
	wait $!
	echo "a million files published, $(($(cat "$work/peak") / 1024)) MiB at most"
	exit
fi

"$work/maketree" "$work/tree" "${2:-20000}" "${3:-200}"
publish "$work/tree" --repo "$work/storage" --tag v1 >"$work/published"
mksquashfs "$work/tree" "$work/image" -comp gzip -quiet -no-progress >/dev/null
mkdir "$work/mnt" "$work/squash"
export near_url=http://127.0.0.1:18873/$name far_url=http://127.0.0.1:18874/$name
"$work/origin" "$work/storage" 127.0.0.1:18873 >/dev/null 2>&1 &
near=$!
"$work/origin" "$work/storage" 127.0.0.1:18874 10ms >/dev/null 2>&1 &
far=$!
grep -E '^(entries|content|catalogs)' "$work/published"

# mount.sh URL [OPTION...]: a new mount with an empty cache; what the one before
# took is noted. off: only that.
cat >"$work/mount.sh" <<'MOUNT'
#!/bin/bash
set -e
if mountpoint -q "$work/mnt"; then
	pid=$(cat "$work/pid")
	awk '/VmHWM/ {print $2}' "/proc/$pid/status" >>"$work/memory"
	umount "$work/mnt"
	for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
fi
if mountpoint -q "$work/squash"; then umount "$work/squash"; fi
[ "$1" != off ] || exit 0
rm -rf "$work/cache"
"$work/mica" repo mount "$@" "$work/mnt" --key "$work/keys/$name.pub" --cache "$work/cache" --quota 0 --foreground >/dev/null 2>&1 &
echo $! >"$work/pid"
for _ in $(seq 300); do mountpoint -q "$work/mnt" && break; sleep 0.1; done
squashfuse "$work/image" "$work/squash"
MOUNT
# cpu.sh COMMAND...: what the process that mounts took meanwhile
cat >"$work/cpu.sh" <<'CPU'
#!/bin/bash
used() { awk '{print ($14 + $15) * 10}' "/proc/$(cat "$work/pid")/stat"; }
before=$(used)
sh -c "$2"
echo "$(($(used) - before))" >>"$work/cpu-$1"
CPU
# far.sh PART: a new far mount. far.sh took PART: notes what was fetched through it
# since, catalogues included, beside what the files take. By then the reader that
# goes one at a time has fetched exactly that, too.
cat >"$work/far.sh" <<'FAR'
#!/bin/bash
set -e
if [ "$1" = took ]; then
	curl -s http://127.0.0.1:18874/taken | awk -v wanted="$(cat "$work/bytes-$2")" '{printf "%.2f\n", $2 / wanted - 1}' >>"$work/fetched-$2"
	exit
fi
"$work/mount.sh" "$far_url" --tag v1
curl -s http://127.0.0.1:18874/taken >/dev/null
FAR
chmod +x "$work"/*.sh
(cd "$work/tree" && find lib single -type f | sort) >"$work/files"
shuf --random-source="$work/image" "$work/files" >"$work/shuffled"
# An eighth of the directories, in a row and with gaps, and the objects of their files.
(cd "$work/tree" && find lib single -mindepth 1 -maxdepth 1 | sort) >"$work/dirs"
awk -F/ '{count[$1]++; line[NR] = $0; of[NR] = $1} END {for (i = 1; i <= NR; i++) if (++seen[of[i]] * 8 <= count[of[i]]) print line[i]}' "$work/dirs" >"$work/row"
awk 'NR % 8 == 1' "$work/dirs" >"$work/gaps"
"$work/mica" repo find "$work/storage/$name" --key "$work/keys/$name.pub" --cache "$work/cache" --type file --output jsonl |
	sed -n 's|.*"path":"/\([^"]*\)".*"size":[1-9].*"hash":"\(..\)\([0-9a-f]*\)".*|\1 data/\2/\3|p' >"$work/objects"
for part in row gaps; do
	awk -v url="$far_url" 'NR == FNR {dir[$1]; next} {split($1, p, "/"); if (p[1] "/" p[2] in dir) print "url = " url "/" $2}' \
		"$work/$part" "$work/objects" >"$work/urls-$part"
	# what these files take on the server, for the bytes fetched beside it
	sed "s|^url = $far_url|$work/storage/$name|" "$work/urls-$part" | xargs stat -c %s | awk '{n += $1} END {print n}' >"$work/bytes-$part"
done
export first=$work/storage

"$work/turns" "$rounds" <<'PLAN'
	publish|mica|exec "$work/mica" repo publish "$work/tree" --repo "$work/new$n" --name $name --keys "$work/keys"
	publish|zlib alone|exec "$work/zlibs" deflate "$work/tree"
	publish|tar, zstd -T0|tar c -C "$work" tree | zstd -q -T0 >"$work/tree.zst"
	-|mica|"$work/maketree" -change 100 "$work/tree"
	publish 100 changed|mica|exec "$work/mica" repo publish "$work/tree" --repo "$work/new$n" --name $name --keys "$work/keys"
	publish 100 changed|find -printf|exec find "$work/tree" -printf '%s %T@ %m %U %G'
	-|mica|exec "$work/mount.sh" $near_url --tag v1
	find, cold|mica|exec "$work/cpu.sh" find 'find "$work/mnt"'
	find, cold|ext4|exec find "$work/tree"
	find, cold|squashfuse|exec find "$work/squash"
	find, warm|mica|exec find "$work/mnt"
	find, warm|ext4|exec find "$work/tree"
	find, warm|squashfuse|exec find "$work/squash"
	find -printf, warm|mica|exec find "$work/mnt" -printf '%s %T@ %m'
	find -printf, warm|ext4|exec find "$work/tree" -printf '%s %T@ %m'
	find -printf, warm|squashfuse|exec find "$work/squash" -printf '%s %T@ %m'
	tar, cold|mica|exec "$work/cpu.sh" tar 'tar c -C "$work/mnt" lib single | wc -c'
	tar, cold|ext4|tar c -C "$work/tree" lib single | wc -c
	tar, cold|squashfuse|tar c -C "$work/squash" lib single | wc -c
	tar, warm|mica|tar c -C "$work/mnt" lib single | wc -c
	tar, warm|ext4|tar c -C "$work/tree" lib single | wc -c
	tar, warm|squashfuse|tar c -C "$work/squash" lib single | wc -c
	big file, cold|mica|exec "$work/cpu.sh" big 'cat "$work/mnt/big" | wc -c'
	big file, cold|zlib alone|exec "$work/zlibs" inflate "$work/storage/$name/data" 500000
	big file, cold|squashfuse|cat "$work/squash/big" | wc -c
	big file, warm|mica|cat "$work/mnt/big" | wc -c
	big file, warm|ext4|cat "$work/tree/big" | wc -c
	-|mica|exec "$work/mount.sh" $near_url --tag v1
	stat storm, cold|mica|cd "$work/mnt" && xargs -a "$work/shuffled" -P 8 -n 500 stat -c %s
	stat storm, cold|ext4|cd "$work/tree" && xargs -a "$work/shuffled" -P 8 -n 500 stat -c %s
	stat storm, cold|squashfuse|cd "$work/squash" && xargs -a "$work/shuffled" -P 8 -n 500 stat -c %s
	8 readers, cold|mica|cd "$work/mnt" && xargs -a "$work/files" -P 8 -n 100 cat
	8 readers, cold|ext4|cd "$work/tree" && xargs -a "$work/files" -P 8 -n 100 cat
	8 readers, cold|squashfuse|cd "$work/squash" && xargs -a "$work/files" -P 8 -n 100 cat
	-|mica|exec "$work/mount.sh" $near_url
	-|mica|tar c -C "$work/mnt" lib single | wc -c
	tar, warm, newest|mica|tar c -C "$work/mnt" lib single | wc -c
	tar, warm, newest|ext4|tar c -C "$work/tree" lib single | wc -c
	-|mica|"$work/far.sh" row
	tar, far|mica|tar c -C "$work/mnt" -T "$work/row" | wc -c
	-|mica|"$work/far.sh" took row
	tar, far|one at a time|exec curl -s -K "$work/urls-row" -o /dev/null
	-|mica|"$work/far.sh" gaps
	tar with gaps, far|mica|tar c -C "$work/mnt" -T "$work/gaps" | wc -c
	-|mica|"$work/far.sh" took gaps
	tar with gaps, far|one at a time|exec curl -s -K "$work/urls-gaps" -o /dev/null
	-|mica|exec "$work/mount.sh" off
PLAN
middle() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
echo
echo "processor time of the mount, median: find $(middle "$work/cpu-find") ms, tar $(middle "$work/cpu-tar") ms, big file $(middle "$work/cpu-big") ms"
echo "bytes fetched by the far tar, times those of its files: $(middle "$work/fetched-row"), with gaps $(middle "$work/fetched-gaps")"
echo "memory of a mount: $(($(sort -n "$work/memory" | tail -n 1) / 1024)) MiB at most"

#!/bin/bash
# What commands about machines cost under libvirt: mica against virt-install and
# virsh, and against vagrant, as whole processes, in turn, in one run. One daemon
# of libvirt's, of its own, does the work for all three.
#
#   bench/peers.sh [ROUNDS [MACHINES]]      needs root; installs the peers
#
# The guest is one boot sector that does nothing: no boot is measured. The
# machines are alike as far as the programs let them: QEMU without KVM, q35, one
# processor, 64 MiB, a CD to start from, an empty qcow2 disk of 64 MiB. mica makes
# and attaches a config drive as well, keys, and a log of the console; the others
# do not. vagrant runs without a box, so that it copies no disk.
#
# vagrant asks libvirt which address a machine has, and the guest asks for none:
# the lease is written by hand, and leads to an SSH server of this computer that
# answers every command at once. The same server is at the end of 'mica ssh'.
set -euo pipefail

cd "$(dirname "$0")/.."
rounds=${1:-11}
count=${2:-200}

if [ "${BENCH_WORK-}" = "" ]; then
	[ "$(id -u)" = 0 ] || { echo "peers.sh: run as root" >&2; exit 7; }
	for program in virt-install vagrant; do
		command -v $program >/dev/null || missing=yes
	done
	if [ "${missing-}" ] || [ ! -d /usr/share/rubygems-integration/all/gems/ ] || ! vagrant plugin list 2>/dev/null | grep -q vagrant-libvirt; then
		DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=900 install -y --no-install-recommends \
			virtinst vagrant vagrant-libvirt >/dev/null
	fi
	BENCH_WORK=$(mktemp -d)
	export BENCH_WORK
	trap 'rm -rf "$BENCH_WORK"' EXIT
	go build -trimpath -ldflags='-s -w' -o "$BENCH_WORK/mica" ./cmd/mica
	go build -o "$BENCH_WORK/sshd" bench/sshd.go
	go build -o "$BENCH_WORK/turns" bench/turns.go
	go run bench/tinyiso.go >"$BENCH_WORK/tiny.iso"
	scripts/libvirtd.sh run "$0" "$rounds" "$count"
	exit
fi

# --- inside libvirt's world ---
work=$BENCH_WORK
export work
export MICA_HOME=$work/home MICA_IMAGE=$work/tiny.iso MICA_CREATE_MEMORY=64 MICA_CREATE_DISK=64M \
	MICA_CREATE_ACCEL=tcg MICA_CREATE_DRIVER=libvirt MICA_LIBVIRT_URI=qemu:///system LIBVIRT_DEFAULT_URI=qemu:///system
export VAGRANT_HOME=$work/vagrant.d VAGRANT_CWD=$work/vagrant VAGRANT_CHECKPOINT_DISABLE=1 VAGRANT_DEFAULT_PROVIDER=libvirt
port=22877
export port
user=$(id -un)
export user

printf '[amiconfig]\nplugins=hostname\n' >"$work/context"
cat >"$work/network.xml" <<-'NETWORK'
	<network>
	  <name>bench</name>
	  <bridge name='vbench' stp='off'/>
	  <ip address='192.168.121.1' netmask='255.255.255.0'>
	    <dhcp><range start='192.168.121.2' end='192.168.121.254'/></dhcp>
	  </ip>
	</network>
NETWORK
virsh --quiet net-define "$work/network.xml" >/dev/null
virsh --quiet net-start bench >/dev/null
echo '[{"ip-address":"192.168.121.1","mac-address":"52:54:00:0a:0b:0c","hostname":"v","expiry-time":4102444800}]' \
	>/var/lib/libvirt/dnsmasq/vbench.status

mkdir -p "$work/vagrant"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
cat >"$work/vagrant/Vagrantfile" <<-VAGRANT
	Vagrant.configure("2") do |config|
	  config.vm.define "v"
	  config.vm.synced_folder ".", "/vagrant", disabled: true
	  config.ssh.username = "$user"
	  config.ssh.port = $port
	  config.ssh.insert_key = false
	  config.ssh.private_key_path = "$work/key"
	  config.vm.provider :libvirt do |l|
	    l.driver = "qemu"
	    l.cpu_mode = "maximum"
	    l.machine_type = "q35"
	    l.memory = 64
	    l.cpus = 1
	    l.suspend_mode = "managedsave"
	    l.graphics_type = "none"
	    l.video_type = "vga"
	    l.storage :file, device: :cdrom, dev: "sda", bus: "sata", path: "$work/tiny.iso"
	    l.storage :file, size: "64M", type: "qcow2"
	    l.boot "cdrom"
	    l.management_network_name = "bench"
	    l.management_network_keep = true
	    l.management_network_address = "192.168.121.0/24"
	    l.management_network_mac = "52:54:00:0a:0b:0c"
	  end
	end
VAGRANT
cat >"$work/virt-install" <<-'CREATE'
	#!/bin/sh
	exec virt-install --quiet --name i --virt-type qemu --machine q35 --cpu mode=maximum --memory 64 --vcpus 1 \
		--osinfo detect=off,require=off --import --disk "path=$work/i.qcow2,size=0.0625,format=qcow2,bus=virtio" \
		--disk "path=$work/tiny.iso,device=cdrom,boot.order=1" --network user,model=virtio --graphics none --video vga \
		--controller usb,model=none --memballoon none --rng /dev/urandom --noautoconsole
CREATE
chmod +x "$work/virt-install"

"$work/sshd" "0.0.0.0:$port" &
sshd=$!
trap 'kill $sshd 2>/dev/null || true' EXIT
# mica takes the port of the SSH server where it would have its forward, in the record only
cat >"$work/redirect" <<-'EDIT'
	#!/usr/bin/python3
	import json, os
	path = os.environ["MICA_HOME"] + "/machines/s/record.json"
	record = json.load(open(path))
	record["instance"]["spec"]["forwards"] = [{"host": int(os.environ["port"]), "guest": 22}]
	json.dump(record, open(path, "w"))
EDIT

mica=$work/mica
echo "$(date +%F), load $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, $rounds rounds"
echo "mica $("$mica" version | head -n 1 | awk '{print $2}'), libvirt $(virsh version --daemon | awk '/library/ {print $NF; exit}')," \
	"virt-install $(virt-install --version), $(vagrant --version), $(vagrant plugin list | head -n 1)"

# The first look at QEMU is libvirt's own, and long.
virsh domcapabilities >/dev/null
"$mica" create s "$work/context" --unverified --no-wait >/dev/null 2>&1
python3 "$work/redirect"

"$work/turns" "$rounds" <<-'PLAN'
	nothing|sh|true
	version|mica|exec "$work/mica" version
	version|virsh|exec virsh --version
	version|virt-install|exec virt-install --version
	version|vagrant|exec vagrant --version
	create and start|mica|exec "$work/mica" create m "$work/context" --unverified --no-wait
	create and start|virt-install|exec "$work/virt-install"
	create and start|vagrant|exec vagrant up --no-provision
	state of one|mica|exec "$work/mica" show m
	state of one|virsh|exec virsh domstate i
	state of one|vagrant|exec vagrant status
	save memory|mica|exec "$work/mica" stop m
	save memory|virsh|exec virsh managedsave i
	save memory|vagrant|exec vagrant suspend
	start from saved|mica|exec "$work/mica" start m
	start from saved|virsh|exec virsh start i
	start from saved|vagrant|exec vagrant resume
	ssh HOST true|ssh|exec ssh -F none -i "$work/key" -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="$work/known" -p "$port" "$user@127.0.0.1" true
	ssh HOST true|mica|exec "$work/mica" ssh -l "$user" s -- true
	ssh HOST true|vagrant|exec vagrant ssh -c true
	destroy|mica|exec "$work/mica" destroy --force m
	destroy|virsh|virsh destroy i && exec virsh undefine i --managed-save --storage vda
	destroy|vagrant|exec vagrant destroy --force
PLAN
"$mica" destroy --force s >/dev/null 2>&1

"$mica" create --count "$count" 'w{nnnn}' "$work/context" --unverified --no-start --parallel 4 >/dev/null 2>&1
echo
echo "with $count machines"
"$work/turns" "$rounds" <<-'PLAN'
	list all|mica|exec "$work/mica" list
	list all|virsh|exec virsh list --all
PLAN
"$mica" destroy --all --yes --parallel 4 >/dev/null 2>&1

package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

const ovfEnv = `<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
 <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
  <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
   <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
   <HostName>azure-vm</HostName><UserName>me</UserName>
   <SSH><PublicKeys><PublicKey><Fingerprint>F</Fingerprint><Path>/home/me</Path><Value>` + testKey + `</Value></PublicKey></PublicKeys></SSH>
   CUSTOM
  </LinuxProvisioningConfigurationSet></wa:ProvisioningSection></Environment>`

func ovf(custom string) string { return strings.Replace(ovfEnv, "CUSTOM", custom, 1) }

// TestMedia has every medium that a context comes on.
func TestMedia(t *testing.T) {
	disc := func(kind, label string) []Device {
		d := iso("sr0", label)
		d.Type = kind
		return []Device{d}
	}
	nova := `{"uuid":"u-1","hostname":"vm1","public_keys":{"b":"` + testKey + `"},"keys":[{"type":"ssh","data":"` + testKey + `"},{"type":"x509","data":"no"}]}`
	novaMeta := Meta{InstanceID: "u-1", Hostname: "vm1", PublicKeys: []string{testKey}}
	for _, tc := range []struct {
		name    string
		devices []Device
		files   map[string]fstest.MapFS
		dmi     DMI
		want    Found
	}{
		{
			"config drive", disc("iso9660", "config-2"),
			drives{"sr0": tree("openstack/latest/user_data", "data", "openstack/latest/meta_data.json", nova)},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Meta: novaMeta, Origin: "/dev/sr0"},
		},
		{
			"config drive, any label, vfat", disc("vfat", "X"),
			drives{"sr0": tree("openstack/latest/user_data", "data")},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Origin: "/dev/sr0"},
		},
		{
			"config drive of libcernvm", disc("iso9660", "CONFIG-2"),
			drives{"sr0": tree("OPENSTACK/LATEST/USER_DATA", "data", "OPENSTACK/LATEST/META_DATA.JSON", nova)},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Meta: novaMeta, Origin: "/dev/sr0"},
		},
		{
			"the labelled one of two",
			[]Device{iso("sr0", "other"), iso("sr1", "config-2")},
			drives{"sr0": tree("openstack/latest/user_data", "other"), "sr1": tree("openstack/latest/user_data", "data")},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Origin: "/dev/sr1"},
		},
		{
			"config drive for ec2", disc("iso9660", "config-2"),
			drives{"sr0": tree("openstack/latest/user_data", "data", "ec2/latest/meta-data.json",
				`{"instance-id":"i-1","local-hostname":"vm2","public-keys":{"0":{"openssh-key":"`+testKey+`"}}}`)},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: "i-1", Hostname: "vm2", PublicKeys: []string{testKey}}, Origin: "/dev/sr0"},
		},
		{
			"config drive, broken metadata", disc("iso9660", "config-2"),
			drives{"sr0": tree("openstack/latest/user_data", "data", "openstack/latest/meta_data.json", "{")},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Origin: "/dev/sr0"},
		},
		{
			"config drive, empty user data", disc("iso9660", "config-2"),
			drives{"sr0": tree("openstack/latest/user_data", "")},
			DMI{},
			Found{Source: "ConfigDrive", Present: true, Origin: "/dev/sr0"},
		},
		{
			"nocloud", disc("iso9660", "cidata"),
			drives{"sr0": tree("user-data", "data", "meta-data", "instance-id: i-7 # mine\nlocal-hostname: \"vm7\"\npublic-keys:\n  - "+testKey+"\n")},
			DMI{},
			Found{Source: "NoCloud", UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: "i-7", Hostname: "vm7", PublicKeys: []string{testKey}}, Origin: "/dev/sr0"},
		},
		{
			"nocloud, FAT, capitals", disc("vfat", "CIDATA"),
			drives{"sr0": tree("USER-DATA", "data", "META-DATA", "instance-id: i-7\n")},
			DMI{},
			Found{Source: "NoCloud", UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: "i-7"}, Origin: "/dev/sr0"},
		},
		{
			"nocloud without meta-data", disc("iso9660", "cidata"),
			drives{"sr0": tree("user-data", "data")},
			DMI{},
			Found{Source: "NoCloud", UserData: []byte("data"), Present: true, Origin: "/dev/sr0"},
		},
		{"user-data without the label", disc("iso9660", "backup"), drives{"sr0": tree("user-data", "data", "meta-data", "")}, DMI{}, Found{}},
		{
			"opennebula", disc("iso9660", "CONTEXT"),
			drives{"sr0": tree("context.sh", "# Context\nVMID='42'\nSET_HOSTNAME=\"one\"\nSSH_PUBLIC_KEY='"+testKey+"'\nEC2_USER_DATA=\""+b64("data")+"\"\nUSER_DATA='no'\n")},
			DMI{},
			Found{Source: "OpenNebula", UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: "one-42", Hostname: "one", PublicKeys: []string{testKey}}, Origin: "/dev/sr0"},
		},
		{
			"opennebula, plain", disc("iso9660", "CONTEXT"),
			drives{"sr0": tree("context.sh", "USER_DATA='two\nlines $(reboot) `id`'\n")},
			DMI{},
			Found{Source: "OpenNebula", UserData: []byte("two\nlines $(reboot) `id`"), Present: true, Origin: "/dev/sr0"},
		},
		{
			"opennebula, encoded", disc("iso9660", "CONTEXT"),
			drives{"sr0": tree("context.sh", "USERDATA="+b64("data")+"\nUSERDATA_ENCODING=base64\n")},
			DMI{},
			Found{Source: "OpenNebula", UserData: []byte("data"), Present: true, Origin: "/dev/sr0"},
		},
		{
			"opennebula, key in a file", disc("iso9660", "CONTEXT"),
			drives{"sr0": tree("context.sh", "ROOT_PUBKEY=root.pub\n", "root.pub", testKey+"\n")},
			DMI{},
			Found{Source: "OpenNebula", Present: true, Meta: Meta{PublicKeys: []string{testKey}}, Origin: "/dev/sr0"},
		},
		{
			"opennebula, garbage", disc("iso9660", "CONTEXT"),
			drives{"sr0": tree("context.sh", "EC2_USER_DATA='%%%'\nrm -rf /\n")},
			DMI{},
			Found{Source: "OpenNebula", Present: true, Origin: "/dev/sr0"},
		},
		{
			"config drive before opennebula", disc("iso9660", "CONTEXT"),
			drives{"sr0": tree("context.sh", "USER_DATA=one", "openstack/latest/user_data", "data")},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Origin: "/dev/sr0"},
		},
		{
			"vsphere", disc("iso9660", "CDROM"),
			drives{"sr0": tree("user-data.txt", "data")},
			DMI{},
			Found{Source: "vSphere", UserData: []byte("data"), Present: true, Origin: "/dev/sr0"},
		},
		{"vsphere, not on FAT", disc("vfat", ""), drives{"sr0": tree("user-data.txt", "data")}, DMI{}, Found{}},
		{
			"azure", disc("udf", ""),
			drives{"sr0": tree("ovf-env.xml", ovf("<CustomData>"+b64("data")+"</CustomData>"), azureTag, "")},
			DMI{ProductUUID: "uuid-1"},
			Found{Source: "Azure", UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: "uuid-1", Hostname: "azure-vm", PublicKeys: []string{testKey}}, Origin: "/dev/sr0"},
		},
		{
			"azure, raw", disc("udf", ""),
			drives{"sr0": tree(azureTag, "", "CustomData.bin", "data")},
			DMI{},
			Found{Source: "Azure", UserData: []byte("data"), Present: true, Origin: "/dev/sr0"},
		},
		{
			"azure, xml before raw", disc("udf", ""),
			drives{"sr0": tree(azureTag, "", "CustomData.bin", "raw", "ovf-env.xml", ovf("<CustomData>"+b64("xml")+"</CustomData>"))},
			DMI{},
			Found{Source: "Azure", UserData: []byte("xml"), Present: true, Meta: Meta{Hostname: "azure-vm", PublicKeys: []string{testKey}}, Origin: "/dev/sr0"},
		},
		{
			"azure, bad xml, raw", disc("udf", ""),
			drives{"sr0": tree(azureTag, "", "CustomData.bin", "raw", "ovf-env.xml", "<Env")},
			DMI{},
			Found{Source: "Azure", UserData: []byte("raw"), Present: true, Origin: "/dev/sr0"},
		},
		{
			"azure without custom data", disc("udf", ""),
			drives{"sr0": tree("ovf-env.xml", ovf(""))},
			DMI{},
			Found{Source: "Azure", Meta: Meta{Hostname: "azure-vm", PublicKeys: []string{testKey}}, Origin: "/dev/sr0"},
		},
		{"OVF of another hypervisor", disc("iso9660", "OVFENV"), drives{"sr0": tree("ovf-env.xml", "<Environment><PropertySection/></Environment>")}, DMI{}, Found{}},
		{
			"floppy with files",
			[]Device{{Name: "fd0", Path: "/dev/fd0", Type: "vfat", Floppy: true}},
			drives{"fd0": tree("user-data.txt", "data")},
			DMI{},
			Found{Source: "Floppy", UserData: []byte("data"), Present: true, Origin: "/dev/fd0"},
		},
		{
			"raw floppy",
			[]Device{{Name: "fd0", Path: "/dev/fd0", Floppy: true}},
			drives{"fd0": tree("raw", "[amiconfig]\nplugins=cernvm\n"+strings.Repeat("\x00", 5000)+"\x01")},
			DMI{},
			Found{Source: "Floppy", UserData: []byte("[amiconfig]\nplugins=cernvm\n"), Present: true, Origin: "/dev/fd0"},
		},
		{"old floppy", []Device{{Name: "fd0", Path: "/dev/fd0", Floppy: true}}, drives{"fd0": tree("raw", "\xeb\x3c\x90MSDOS")}, DMI{}, Found{}},
		{"a disk is not a medium", disc("ext4", "config-2"), drives{"sr0": tree("openstack/latest/user_data", "data")}, DMI{}, Found{}},
		{
			"one bad disc of two",
			[]Device{iso("sr0", "config-2"), iso("sr1", "config-2")},
			drives{"sr1": tree("openstack/latest/user_data", "data")},
			DMI{},
			Found{Source: "ConfigDrive", UserData: []byte("data"), Present: true, Origin: "/dev/sr1"},
		},
		{"too much", disc("iso9660", "config-2"), drives{"sr0": tree("openstack/latest/user_data", strings.Repeat("x", MaxUserData+1))}, DMI{}, Found{}},
		{"a link out of the disc", disc("iso9660", "cidata"), drives{"sr0": {"user-data": &fstest.MapFile{Data: []byte("/etc/shadow"), Mode: fs.ModeSymlink | 0o777}, "meta-data": &fstest.MapFile{Mode: fs.ModeDir}}}, DMI{}, Found{}},
		{
			"smbios", nil, nil,
			DMI{OEMStrings: []string{"other", "cvm_userdata=" + b64("data")[:4], "cvm_userdata=" + b64("data")[4:]}},
			Found{Source: "SMBIOS", UserData: []byte("data"), Present: true, Origin: "SMBIOS type 11"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := FindLocal(t.Context(), Env{Devices: tc.devices, Mounter: drives(tc.files), DMI: tc.dmi})
			if err != nil {
				t.Fatalf("FindLocal = %v", err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Found{}, "Tried"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, attemptsOf(got))
			}
		})
	}
}

// TestDelivered reads what the host side writes.
func TestDelivered(t *testing.T) {
	var disc bytes.Buffer
	meta := delivery.Meta{InstanceID: "i-1", Hostname: "vm1", PublicKeys: []string{testKey}}
	if err := delivery.ConfigDrive(t.Context(), &disc, []byte("[ucernvm-begin]\n"), meta); err != nil {
		t.Fatal(err)
	}
	image, err := iso9660.Open(bytes.NewReader(disc.Bytes()), int64(disc.Len()), iso9660.Auto)
	if err != nil {
		t.Fatal(err)
	}
	got, err := FindLocal(t.Context(), Env{Devices: []Device{iso("sr0", "CONFIG-2")}, Mounter: opened{image}})
	want := Found{Source: "ConfigDrive", UserData: []byte("[ucernvm-begin]\n"), Present: true, Meta: Meta{InstanceID: "i-1", Hostname: "vm1", PublicKeys: []string{testKey}, Values: map[string]string{"ami-launch-index": "0"}}, Origin: "/dev/sr0"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Found{}, "Tried")); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

type opened struct{ fs.FS }

func (o opened) Mount(context.Context, Device) (fs.FS, func() error, error) {
	return o.FS, func() error { return nil }, nil
}
func (o opened) ReadRaw(context.Context, Device, int) ([]byte, error) { return nil, fs.ErrNotExist }

func TestFirmwareConfig(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"user-data": "data", "meta-data": "instance-id: i-1\n"} {
		sub := filepath.Join(dir, "opt/org.cernvm", name)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "raw"), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := FindLocal(t.Context(), Env{FWCfg: dir})
	if err != nil || got.Source != "QEMU" || string(got.UserData) != "data" || got.Meta.InstanceID != "i-1" {
		t.Errorf("FindLocal = %+v, %v", got, err)
	}
	if got, err := FindLocal(t.Context(), Env{FWCfg: t.TempDir()}); err != nil || got.Source != "" {
		t.Errorf("FindLocal without files = %+v, %v", got, err)
	}
}

func TestCommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"quiet cvm_userdata=" + b64("data") + " ro":                       "data",
		"cvm_userdata=" + strings.TrimRight(b64("dat"), "="):              "dat",
		"cvm_userdata=" + b64("first") + " cvm_userdata=" + b64("second"): "second",
		"cvm_userdata=***": "",
		"xcvm_userdata=" + b64("data") + " cvm_userdata=http://example.org": "",
	} {
		got, err := FindLocal(t.Context(), Env{Cmdline: line})
		if err != nil || string(got.UserData) != want || (got.Source == "KernelCommandLine") != (want != "") {
			t.Errorf("%q: %q from %q, %v; want %q", line, got.UserData, got.Source, err, want)
		}
	}
}

type vmware map[string]string

func (v vmware) Get(_ context.Context, key string) ([]byte, bool, error) {
	value, ok := v[key]
	return []byte(value), ok, nil
}

func TestGuestInfo(t *testing.T) {
	for name, tc := range map[string]struct {
		vars vmware
		want string
		ok   bool
	}{
		"plain":       {vmware{"guestinfo.userdata": "data"}, "data", true},
		"base64":      {vmware{"guestinfo.userdata": b64("data"), "guestinfo.userdata.encoding": "base64"}, "data", true},
		"gzip+base64": {vmware{"guestinfo.userdata": b64(zipped("data")), "guestinfo.userdata.encoding": "gzip+base64"}, "data", true},
		"wiped":       {vmware{"guestinfo.userdata": "---"}, "", false},
		"bomb":        {vmware{"guestinfo.userdata": b64(zipped(strings.Repeat("x", 4<<20))), "guestinfo.userdata.encoding": "gz+b64"}, "", false},
		"nothing":     {vmware{}, "", false},
	} {
		got, err := FindLocal(t.Context(), Env{GuestInfo: tc.vars, DMI: DMI{SystemVendor: "VMware, Inc."}})
		if err != nil || string(got.UserData) != tc.want || got.Present != tc.ok {
			t.Errorf("%s: %q, present %v, %v; %s", name, got.UserData, got.Present, err, attemptsOf(got))
		}
		if got, err := FindLocal(t.Context(), Env{GuestInfo: tc.vars}); err != nil || got.Source != "" {
			t.Errorf("%s: asked on another platform: %+v, %v", name, got, err)
		}
	}
}

func TestPlatform(t *testing.T) {
	for want, list := range map[string][]DMI{
		"ec2":        {{SystemVendor: "Amazon EC2"}, {ProductUUID: "EC2E1916-9099-7CAF-FD21-012345ABCDEF"}, {ProductUUID: "45e12aec-dcd1-b213-94ed-012345abcdef"}},
		"openstack":  {{ProductName: "OpenStack Nova"}, {ProductName: "OpenStack Compute", SystemVendor: "RDO"}, {ChassisAssetTag: "HUAWEICLOUD"}},
		"gce":        {{ProductName: "Google Compute Engine"}, {ProductSerial: "GoogleCloud-0123"}},
		"azure":      {{SystemVendor: "Microsoft Corporation", ChassisAssetTag: "7783-7084-3265-9085-8269-3286-77"}},
		"cloudstack": {{ProductName: "CloudStack KVM Hypervisor"}},
		"vmware":     {{SystemVendor: "VMware, Inc."}},
		"":           {{}, {SystemVendor: "QEMU", ProductName: "Standard PC (Q35 + ICH9, 2009)", ProductUUID: "6d2c6a5e-0000-4000-8000-000000000000"}, {SystemVendor: "Microsoft Corporation"}},
	} {
		for _, d := range list {
			if got := d.Platform(); got != want {
				t.Errorf("%+v is %q, want %q", d, got, want)
			}
		}
	}
}

func TestReadDMI(t *testing.T) {
	sys := t.TempDir()
	table := "\x01\x04\x00\x00vendor\x00\x00" + "\x0b\x05\x00\x00\x02first\x00second\x00\x00" + "\x20\x04\x00\x00\x00\x00" + "\x0b\x05\x00\x00\x01third\x00\x00" + "\x7f\x04\x00\x00\x00\x00"
	for name, data := range map[string]string{"class/dmi/id/sys_vendor": "QEMU\n", "class/dmi/id/product_uuid": "ec2\n", "firmware/dmi/tables/DMI": table} {
		file := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := DMI{SystemVendor: "QEMU", ProductUUID: "ec2", OEMStrings: []string{"first", "second", "third"}}
	if diff := cmp.Diff(want, ReadDMI(sys)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPublicContexts: every published context on a raw floppy is known for one.
func TestPublicContexts(t *testing.T) {
	dir := tier.PeerData(t, "contexts")
	files, err := filepath.Glob(filepath.Join(dir, "*.context"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no contexts in %s: %v", dir, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := rawContext(append(bytes.Clone(data), make([]byte, 100)...)); !bytes.Equal(got, data) {
			t.Errorf("%s is not taken for a context", filepath.Base(file))
		}
	}
}

func TestExtra(t *testing.T) {
	boot := func(name string) Device {
		return Device{Name: name, Path: "/dev/" + name, Type: "vfat", Boot: true}
	}
	stick := boot("sdb1")
	stick.Boot = false
	env := Env{
		Devices: []Device{boot("sda1"), stick, boot("sdc1"), boot("sdd1"), boot("sde1")},
		Mounter: drives{
			"sda1": tree("cernvm/extra-user-data", "a=1"),
			"sdb1": tree("cernvm/extra-user-data", "evil=1", "cernvm/pickup.tar.gz", "evil"),
			"sdc1": tree("cernvm/EXTRA-USER-DATA", "b=2\n", "cernvm/pickup.tar.gz", "tar"),
			"sdd1": tree("cernvm/extra-user-data", "\n#!/bin/sh\n"),
		},
	}
	got, err := FindExtra(t.Context(), env)
	want := Extra{UserData: []byte("a=1\nb=2\n"), Pickup: []byte("tar"), Origins: []string{"/dev/sda1", "/dev/sdc1"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestStaticNetwork(t *testing.T) {
	find := func(script string) ([]Interface, error) {
		return StaticNetwork(t.Context(), Env{Devices: []Device{iso("sr0", "CONTEXT")}, Mounter: drives{"sr0": tree("context.sh", script)}})
	}
	got, err := find(`DNS="9.9.9.9 1.1.1.1"
SEARCH_DOMAIN='example.org'
ETH0_MAC='02:00:C0:A8:07:05'
ETH1_MAC='02:00:0a:00:00:02'
ETH1_IP='10.0.0.7'
ETH1_MASK='255.255.0.0'
ETH1_GATEWAY=10.0.0.254
ETH1_DNS='8.8.8.8'
ETH1_IP6='2001:db8::7'
ETH1_GATEWAY6='2001:db8::1'
ETH2_IP='10.9.9.9'
`)
	addr := netip.MustParseAddr
	want := []Interface{
		{MAC: "02:00:c0:a8:07:05", Address: netip.MustParsePrefix("192.168.7.5/24"), Gateway: addr("192.168.7.1"), DNS: []netip.Addr{addr("9.9.9.9"), addr("1.1.1.1")}, Search: []string{"example.org"}},
		{
			MAC: "02:00:0a:00:00:02", Address: netip.MustParsePrefix("10.0.0.7/16"), Gateway: addr("10.0.0.254"), Address6: netip.MustParsePrefix("2001:db8::7/64"), Gateway6: addr("2001:db8::1"),
			DNS: []netip.Addr{addr("8.8.8.8"), addr("9.9.9.9"), addr("1.1.1.1")}, Search: []string{"example.org"},
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"ETH0_MAC=02:00:00:00:00:01\nETH0_IP=10.0.0.300\n", "ETH0_MAC=02:00:00:00:00:01\nETH0_MASK=255.0.255.0\n", "ETH0_MAC=02:00:00:00:00:01\nETH0_GATEWAY=router\n"} {
		if list, err := find(bad); err == nil {
			t.Errorf("%q gives %+v, want an error", bad, list)
		}
	}
	if list, err := find("ETH0_MAC=02:00:0a:00:00:02\nETH0_IP=10.0.0.2\nGATEWAY_IFACE=eth1\n"); err != nil || len(list) != 1 || list[0].Gateway.IsValid() {
		t.Errorf("another interface has the gateway: %+v, %v", list, err)
	}
}

func TestNoCloudMeta(t *testing.T) {
	for text, want := range map[string]Meta{
		"instance-id: i-1\r\nlocal-hostname: vm1\r\n":                        {InstanceID: "i-1", Hostname: "vm1"},
		"{\"instance-id\": \"i-1\", \"public-keys\": [\"" + testKey + "\"]}": {InstanceID: "i-1", PublicKeys: []string{testKey}},
		"public-keys:\n- " + testKey + "\ninstance-id: 'i-1'\n":              {InstanceID: "i-1", PublicKeys: []string{testKey}},
		"public_keys:\n  default: " + testKey + "\n":                         {PublicKeys: []string{testKey}},
		"public-keys: [\"" + testKey + "\"]\n":                               {PublicKeys: []string{testKey}},
		"public-keys: " + testKey + "\n":                                     {PublicKeys: []string{testKey}},
		"# only\nhostname: bad_name\ninstance-id: a b\n":                     {},
		"network:\n  version: 2\n  ethernets:\n    - x\ninstance-id: i-1\n":  {InstanceID: "i-1"},
		"": {},
	} {
		if diff := cmp.Diff(want, noCloudMeta([]byte(text)), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

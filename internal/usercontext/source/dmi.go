package source

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// DMI is what the firmware says about the machine.
type DMI struct {
	SystemVendor, ProductName, ProductVersion, ProductSerial, ProductUUID string
	ChassisAssetTag, ChassisVendor, BoardVendor, BIOSVendor               string
	OEMStrings                                                            []string // SMBIOS type 11
}

// Platforms, as Platform names them.
const (
	platformEC2        = "ec2"
	platformOpenStack  = "openstack"
	platformGCE        = "gce"
	platformAzure      = "azure"
	platformCloudStack = "cloudstack"
	platformVMware     = "vmware"
)

// ReadDMI reads the tables of the running machine below sys, "/sys". What is not
// there stays empty: not every machine has such firmware.
func ReadDMI(sys string) DMI {
	id := func(name string) string {
		data, err := os.ReadFile(filepath.Join(sys, "class/dmi/id", name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(data))
	}
	d := DMI{
		SystemVendor: id("sys_vendor"), ProductName: id("product_name"), ProductVersion: id("product_version"),
		ProductSerial: id("product_serial"), ProductUUID: id("product_uuid"),
		ChassisAssetTag: id("chassis_asset_tag"), ChassisVendor: id("chassis_vendor"),
		BoardVendor: id("board_vendor"), BIOSVendor: id("bios_vendor"),
	}
	if d.ProductUUID == "" { // Xen without SMBIOS
		if data, err := os.ReadFile(filepath.Join(sys, "hypervisor/uuid")); err == nil {
			d.ProductUUID = strings.TrimSpace(string(data))
		}
	}
	if table, err := os.ReadFile(filepath.Join(sys, "firmware/dmi/tables/DMI")); err == nil {
		d.OEMStrings = oemStrings(table)
	}
	return d
}

// Platform names the cloud or hypervisor that the machine runs on, or "" where
// the firmware does not tell. The rules are those of cloud-init: tools/ds-identify.
func (d DMI) Platform() string {
	has := func(text string, words ...string) bool {
		for _, w := range words {
			if text == w {
				return true
			}
		}
		return false
	}
	switch {
	case has(d.ProductName, "OpenStack Nova", "OpenStack Compute"),
		has(d.ChassisAssetTag, "OpenStack Nova", "OpenStack Compute", "OpenTelekomCloud", "SAP CCloud VM", "HUAWEICLOUD", "Samsung Cloud Platform"):
		return platformOpenStack
	case has(d.ProductName, "Google Compute Engine", "Google"), strings.HasPrefix(d.ProductSerial, "GoogleCloud-"):
		return platformGCE
	case has(d.ChassisAssetTag, "7783-7084-3265-9085-8269-3286-77"):
		return platformAzure
	case strings.HasPrefix(d.ProductName, "CloudStack"):
		return platformCloudStack
	case has(d.SystemVendor, "Amazon EC2"), has(d.BIOSVendor, "Amazon EC2"), isEC2UUID(d.ProductUUID), isEC2UUID(d.ProductSerial):
		return platformEC2
	case strings.HasPrefix(d.SystemVendor, "VMware"):
		return platformVMware
	}
	return ""
}

// isEC2UUID knows both byte orders in which firmware writes the first group.
func isEC2UUID(id string) bool {
	id = strings.ToLower(id)
	return len(id) == 36 && (strings.HasPrefix(id, "ec2") || id[6:8] == "ec" && id[4] == '2')
}

// oemStrings finds the strings of type 11 in a table of SMBIOS structures: each
// is four bytes of header, its fields, and strings that end in an empty one
// (DMTF DSP0134, section 6.1).
func oemStrings(table []byte) []string {
	var out []string
	for len(table) >= 4 {
		kind, length := table[0], int(table[1])
		if length < 4 || length > len(table) || kind == 127 {
			return out
		}
		texts, rest, ok := bytes.Cut(table[length:], []byte{0, 0})
		if !ok {
			return out
		}
		if kind == 11 {
			for _, one := range bytes.Split(texts, []byte{0}) {
				if len(one) > 0 {
					out = append(out, string(one))
				}
			}
		}
		table = rest
	}
	return out
}

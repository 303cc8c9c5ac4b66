package delivery

import (
	"encoding/json"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
)

// configDrive carries the user data twice: cloud-init and the boot loader read
// the OpenStack tree, amiconfig the EC2 one.
//
// Compat: libcernvm src/contextiso.cpp, which has the same five files.
var configDrive = Kind{Name: "config-2", Label: "CONFIG-2", Files: func(userData []byte, m Meta) ([]iso9660.File, error) {
	// cloud-init gives the whole drive up over one document that is not JSON.
	if m.NetworkConfig != nil && !json.Valid(m.NetworkConfig) {
		return nil, fail.New(fail.Usage, "the network configuration is not JSON").Hint("a config drive takes network_data.json of OpenStack; cloud-init's own form goes on nocloud")
	}
	if m.VendorData != nil && !json.Valid(m.VendorData) {
		return nil, fail.New(fail.Usage, "the vendor data are not JSON").Hint("put them in double quotes, with \"\\n\" for the ends of lines, or use nocloud")
	}
	files := []iso9660.File{
		iso9660.Bytes("readme", 0o444, []byte("Context of a micro virtual appliance.\nIt is read once, when the machine first starts.\n")),
		iso9660.Bytes("ec2/latest/meta-data.json", 0o444, document(m.ec2())),
		iso9660.Bytes("ec2/latest/user-data", 0o444, userData),
		iso9660.Bytes("openstack/latest/meta_data.json", 0o444, m.OpenStack()),
		iso9660.Bytes("openstack/latest/user_data", 0o444, userData),
	}
	if m.NetworkConfig != nil {
		files = append(files, iso9660.Bytes("openstack/latest/network_data.json", 0o444, m.NetworkConfig))
	}
	if m.VendorData != nil {
		files = append(files, iso9660.Bytes("openstack/latest/vendor_data.json", 0o444, m.VendorData))
	}
	return files, nil
}}

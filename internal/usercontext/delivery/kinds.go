package delivery

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
)

// noCloud is what cloud-init's NoCloud source looks for. meta-data must be there
// even where it says nothing, or the volume is passed over.
var noCloud = Kind{Name: "nocloud", Label: "cidata", Files: func(userData []byte, m Meta) ([]iso9660.File, error) {
	meta := map[string]any{"instance-id": m.InstanceID}
	if m.Hostname != "" {
		meta["local-hostname"] = m.Hostname
	}
	if len(m.PublicKeys) > 0 {
		meta["public-keys"] = m.PublicKeys
	}
	if len(m.Shares) > 0 {
		meta[sharesKey] = m.shareList()
	}
	// JSON is YAML, and needs no quoting rules of its own.
	files := []iso9660.File{
		iso9660.Bytes("meta-data", 0o444, document(meta)),
		iso9660.Bytes("user-data", 0o444, userData),
	}
	if m.NetworkConfig != nil {
		files = append(files, iso9660.Bytes("network-config", 0o444, m.NetworkConfig))
	}
	if m.VendorData != nil {
		files = append(files, iso9660.Bytes("vendor-data", 0o444, m.VendorData))
	}
	return files, nil
}}

// openNebula is a CD with a file of shell assignments.
//
// Compat: cernvm-config usr/bin/cvm2ova writes the same variables, the key as
// root.pub, and an empty prolog.sh.
var openNebula = Kind{Name: "opennebula", Label: "CONTEXT", Files: func(userData []byte, m Meta) ([]iso9660.File, error) {
	if m.NetworkConfig != nil || m.VendorData != nil {
		return nil, fail.New(fail.Usage, "an OpenNebula medium has no place for network configuration or vendor data").Hint("use --layout config-2 or nocloud")
	}
	var b bytes.Buffer
	assign := func(name, value string) { b.WriteString(name + "=" + shellQuote(value) + "\n") }
	encoded := base64.StdEncoding.EncodeToString(userData)
	b.WriteString("# Context variables\n")
	assign("ONE_CONTEXT_PATH", "/var/lib/amiconfig")
	if m.Hostname != "" {
		assign("SET_HOSTNAME", m.Hostname)
	}
	assign("EC2_USER_DATA", encoded)
	assign("USER_DATA", encoded)
	assign("USERDATA_ENCODING", "base64")
	if len(m.Shares) > 0 {
		assign(strings.ToUpper(sharesKey), m.shareList())
	}
	files := []iso9660.File{iso9660.Bytes("prolog.sh", 0o444, nil)}
	if len(m.PublicKeys) > 0 {
		keys := strings.Join(m.PublicKeys, "\n")
		assign("ROOT_PUBKEY", "root.pub")
		assign("SSH_KEY", keys)
		files = append(files, iso9660.Bytes("root.pub", 0o444, []byte(keys+"\n")))
	}
	return append(files, iso9660.Bytes("context.sh", 0o444, b.Bytes())), nil
}}

// shellQuote is s as one word of a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// vSphere is the CD that RHEV and vSphere hand over: one file, no metadata.
var vSphere = Kind{Name: "vsphere", Label: "CDROM", Files: func(userData []byte, m Meta) ([]iso9660.File, error) {
	if m.NetworkConfig != nil || m.VendorData != nil {
		return nil, fail.New(fail.Usage, "a vSphere medium has no place for network configuration or vendor data").Hint("use --layout config-2 or nocloud")
	}
	if len(m.Shares) > 0 {
		return nil, noShares("a vSphere")
	}
	return []iso9660.File{iso9660.Bytes("user-data.txt", 0o444, userData)}, nil
}}

// azure is the provisioning document of Azure, with the decoded user data and
// the tag file beside it that the boot loader knows an Azure CD by.
var azure = Kind{Name: "azure", Label: "AZURE", Files: func(userData []byte, m Meta) ([]iso9660.File, error) {
	if m.NetworkConfig != nil || m.VendorData != nil {
		return nil, fail.New(fail.Usage, "an Azure medium has no place for network configuration or vendor data").Hint("use --layout config-2 or nocloud")
	}
	if len(m.Shares) > 0 {
		return nil, noShares("an Azure")
	}
	text, err := azureDocument(userData, m)
	if err != nil {
		return nil, err
	}
	return []iso9660.File{
		iso9660.Bytes("ovf-env.xml", 0o444, text),
		iso9660.Bytes("CustomData.bin", 0o444, userData),
		iso9660.Bytes(azureTag, 0o444, nil),
	}, nil
}}

const azureTag = "E6DA6616-8EC4-48E0-BE93-58CE6ACE3CFB.tag"

// The types of ovf-env.xml, as far as cloud-init and the Azure agent read it.
type (
	ovfEnvironment struct {
		XMLName      xml.Name        `xml:"Environment"`
		NS           string          `xml:"xmlns,attr"`
		WA           string          `xml:"xmlns:wa,attr"`
		XSI          string          `xml:"xmlns:xsi,attr"`
		Provisioning ovfProvisioning `xml:"wa:ProvisioningSection"`
		Platform     ovfPlatform     `xml:"wa:PlatformSettingsSection"`
	}
	ovfProvisioning struct {
		Version string    `xml:"wa:Version"`
		Set     ovfConfig `xml:"LinuxProvisioningConfigurationSet"`
	}
	ovfConfig struct {
		NS         string   `xml:"xmlns,attr"`
		Type       string   `xml:"ConfigurationSetType"`
		HostName   string   `xml:"HostName"`
		UserName   string   `xml:"UserName"`
		NoPassword bool     `xml:"DisableSshPasswordAuthentication"`
		Keys       []ovfKey `xml:"SSH>PublicKeys>PublicKey,omitempty"`
		CustomData string   `xml:"CustomData,omitempty"`
	}
	ovfKey struct {
		Path  string `xml:"Path"`
		Value string `xml:"Value"`
	}
	ovfPlatform struct {
		Version  string      `xml:"wa:Version"`
		Settings ovfSettings `xml:"PlatformSettings"`
	}
	ovfSettings struct {
		NS    string `xml:"xmlns,attr"`
		Agent bool   `xml:"ProvisionGuestAgent"`
	}
)

func azureDocument(userData []byte, m Meta) ([]byte, error) {
	const windowsAzure = "http://schemas.microsoft.com/windowsazure"
	host := m.Hostname
	if host == "" {
		host = "localhost" // mandatory
	}
	doc := ovfEnvironment{
		NS: "http://schemas.dmtf.org/ovf/environment/1", WA: windowsAzure, XSI: "http://www.w3.org/2001/XMLSchema-instance",
		Provisioning: ovfProvisioning{Version: "1.0", Set: ovfConfig{
			NS: windowsAzure, Type: "LinuxProvisioningConfiguration", HostName: host, UserName: "root", NoPassword: true,
			CustomData: base64.StdEncoding.EncodeToString(userData),
		}},
		Platform: ovfPlatform{Version: "1.0", Settings: ovfSettings{NS: windowsAzure}},
	}
	for _, k := range m.PublicKeys {
		doc.Provisioning.Set.Keys = append(doc.Provisioning.Set.Keys, ovfKey{Path: "/root/.ssh/authorized_keys", Value: k})
	}
	b, err := xml.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), append(b, '\n')...), nil
}

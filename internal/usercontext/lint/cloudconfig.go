package lint

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/micavm/mica/internal/usercontext"
)

// cloudConfigKeys are the top-level keys that cloud-init's modules read.
func cloudConfigKeys() []string {
	return strings.Fields(`allow_public_ssh_keys ansible apk_repos apt apt_pipelining apt_reboot_if_required apt_update apt_upgrade authkey_hash
		autoinstall bootcmd byobu_by_default ca-certs ca_certs chef chpasswd cloud_config_modules cloud_final_modules cloud_init_modules
		create_hostname_file datasource datasource_list debug device_aliases disable_ec2_metadata disable_root disable_root_opts disk_setup drivers fan final_message
		fqdn fs_setup groups growpart grub-dpkg grub_dpkg hostname keyboard landscape launch-index locale locale_configfile lxd manage_etc_hosts manage_resolv_conf
		mcollective merge_how merge_type migrate mounts mount_default_fields network no_ssh_fingerprints ntp output package_reboot_if_required package_update package_upgrade
		packages password phone_home power_state prefer_fqdn_over_hostname preserve_hostname puppet random_seed reporting resize_rootfs resolv_conf rh_subscription rsyslog runcmd
		salt_minion snap spacewalk ssh ssh_authorized_keys ssh_deletekeys ssh_fp_console_blacklist ssh_genkeytypes ssh_import_id ssh_key_console_blacklist ssh_keys
		ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen ssh_svcname swap syslog_fix_perms system_info timezone ubuntu_advantage ubuntu_pro updates user users vendor_data
		vendor_data2 version wireguard write_files yum_repo_dir yum_repos zypper`)
}

// deprecatedKeys are top-level keys with another name today (cloud-init 22.4:
// cloudinit/config/schemas).
func deprecatedKeys() map[string]string {
	return map[string]string{
		"apt_update": "package_update", "apt_upgrade": "package_upgrade", "apt_reboot_if_required": "package_reboot_if_required", "grub-dpkg": "grub_dpkg",
	}
}

// checkCloudConfigs judges every cloud-config in the context.
func (k *checker) checkCloudConfigs() {
	for _, p := range k.context.Parts {
		if p.Kind == usercontext.CloudConfig || p.Kind == usercontext.CloudArchive {
			k.checkCloudConfig(p)
		}
	}
}

var yamlLine = regexp.MustCompile(`line ([0-9]+): `)

func (k *checker) checkCloudConfig(p usercontext.Part) {
	at := func(line int) int {
		if p.Encoding != "" || p.Packed {
			return p.Line
		}
		return p.Line + line - 1
	}
	top, _, _ := bytes.Cut(bytes.TrimLeft(p.Data, "\r\n\t "), []byte("\n"))
	if first := strings.TrimRight(string(top), " \t\r"); p.Kind == usercontext.CloudConfig && first != "#cloud-config" && !bytes.HasPrefix(p.Data, []byte("#!")) {
		k.add("Y001", at(1), 1, "write #cloud-config", "the first line is not exactly #cloud-config")
	}
	for i, l := range strings.Split(string(p.Data), "\n") {
		if indent := l[:len(l)-len(strings.TrimLeft(l, " \t"))]; strings.Contains(indent, "\t") {
			k.add("Y001", at(i+1), 1+strings.IndexByte(indent, '\t'), "indent with blanks", "YAML does not allow tabs in the indentation")
			return
		}
	}
	var root yaml.Node
	err := yaml.Unmarshal(p.Data, &root)
	if err == nil {
		var content any
		err = root.Decode(&content) // finds duplicate keys
	}
	if err != nil {
		line, text := yamlFailure(err)
		k.add("Y001", at(line), 1, "", "not valid YAML: %s", text)
		return
	}
	if len(root.Content) == 0 {
		return // comments only
	}
	top0 := root.Content[0]
	if p.Kind == usercontext.CloudArchive {
		if top0.Kind != yaml.SequenceNode {
			k.add("Y001", at(top0.Line), top0.Column, "", "a cloud-config archive is a list of parts")
		}
		return
	}
	if top0.Kind != yaml.MappingNode {
		k.add("Y001", at(top0.Line), top0.Column, "", "a cloud-config is a map of keys, and this is not")
		return
	}
	known := map[string]bool{}
	for _, key := range cloudConfigKeys() {
		known[key] = true
	}
	for i := 0; i+1 < len(top0.Content); i += 2 {
		switch key := top0.Content[i]; {
		case !known[key.Value]:
			k.add("Y002", at(key.Line), key.Column, meant(nearest(key.Value, cloudConfigKeys())), "no module of cloud-init reads %q", key.Value)
		case deprecatedKeys()[key.Value] != "":
			k.add("Y002", at(key.Line), key.Column, "write "+deprecatedKeys()[key.Value], "cloud-init will drop the key %s", key.Value)
		}
	}
	k.checkCloudPasswords(top0, at)
}

// checkCloudPasswords finds passwords in clear text.
func (k *checker) checkCloudPasswords(n *yaml.Node, at func(int) int) {
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if (key.Value == "password" || key.Value == "plain_text_passwd") && value.Kind == yaml.ScalarNode && value.Value != "" && !strings.HasPrefix(value.Value, "$") && value.Value != "R" && value.Value != "RANDOM" {
			k.add("C001", at(key.Line), key.Column, "write a hash, as hashed_passwd or passwd", "%s is in clear text", key.Value)
		}
	}
	for _, child := range n.Content {
		if child.Kind != yaml.AliasNode {
			k.checkCloudPasswords(child, at)
		}
	}
}

// yamlFailure splits the library's message into line and text.
func yamlFailure(err error) (int, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
		text = strings.Replace(text, m[0], "", 1)
	}
	text, _, _ = strings.Cut(text, "\n")
	return line, text
}

package source

import "context"

// fromConfigDrive reads an OpenStack config drive. The label is a preference
// only.
//
// Compat: cernvm-micro: scripts.d/06context takes any ISO 9660 or FAT volume with
// openstack/latest/user_data; cloud-init insists on the label config-2.
func fromConfigDrive(ctx context.Context, s *search) (Found, error) {
	var only Found
	for _, m := range labelled(s.readMedia(ctx), "config-2", "CONFIG-2") {
		data, present := m.files["openstack/latest/user_data"]
		if !present && m.has("openstack/latest/meta_data.json") {
			data, present = m.files["ec2/latest/user-data"]
		}
		f := Found{UserData: data, Present: present, Origin: m.Path}
		var err error
		if json, ok := m.files["openstack/latest/meta_data.json"]; ok {
			f.Meta, err = openStackMeta(json)
		}
		if json, ok := m.files["ec2/latest/meta-data.json"]; ok && present {
			if more, ec2Err := ec2Meta(json); ec2Err == nil {
				f.Meta = f.Meta.or(more)
			}
		}
		if err != nil {
			s.Log.Warn("metadata of the config drive not used", "device", m.Path, "error", err)
		}
		switch {
		case present:
			return f, nil
		case only.Origin == "" && !f.Meta.empty():
			only = f
		}
	}
	if only.Origin == "" {
		return Found{}, errNothing
	}
	return only, nil
}

// or fills what m lacks from more.
func (m Meta) or(more Meta) Meta {
	if m.InstanceID == "" {
		m.InstanceID = more.InstanceID
	}
	if m.Hostname == "" {
		m.Hostname = more.Hostname
	}
	if len(m.PublicKeys) == 0 {
		m.PublicKeys = more.PublicKeys
	}
	if len(m.Shares) == 0 {
		m.Shares = more.Shares
	}
	return m
}

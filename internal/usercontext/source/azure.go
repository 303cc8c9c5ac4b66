package source

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
)

// fromAzureMedium reads the provisioning disc: ovf-env.xml first, then the raw
// CustomData.bin next to the tag file.
func fromAzureMedium(ctx context.Context, s *search) (Found, error) {
	for _, m := range s.readMedia(ctx) {
		if m.Type != "udf" && m.Type != "iso9660" || !m.has("ovf-env.xml") && !m.has(azureTag) {
			continue
		}
		f := Found{Origin: m.Path}
		if data, ok := m.files["ovf-env.xml"]; ok {
			var err error
			if f, err = azureOVF(data); err != nil {
				s.Log.Warn("ovf-env.xml", "device", m.Path, "error", err)
			}
			f.Origin = m.Path
		}
		if data, ok := m.files["CustomData.bin"]; ok && !f.Present {
			f.UserData, f.Present = data, true
		}
		if !f.Present && f.Meta.empty() && s.platform != platformAzure {
			continue // the OVF environment of another hypervisor
		}
		f.Meta.InstanceID = identifier([]byte(s.DMI.ProductUUID))
		return f, nil
	}
	return Found{}, errNothing
}

// azureOVF reads the LinuxProvisioningConfigurationSet. Names are matched
// without their name spaces, which have changed over the years.
func azureOVF(data []byte) (Found, error) {
	var env struct {
		Section struct {
			Set struct {
				HostName   string  `xml:"HostName"`
				CustomData *string `xml:"CustomData"`
				SSH        struct {
					Keys []struct {
						Value string `xml:"Value"`
					} `xml:"PublicKeys>PublicKey"`
				} `xml:"SSH"`
			} `xml:"LinuxProvisioningConfigurationSet"`
		} `xml:"ProvisioningSection"`
	}
	if err := xml.Unmarshal(data, &env); err != nil {
		return Found{}, fmt.Errorf("reading the provisioning data: %w", err)
	}
	set := env.Section.Set
	f := Found{Meta: Meta{Hostname: set.HostName}}
	for _, k := range set.SSH.Keys {
		f.Meta.PublicKeys = append(f.Meta.PublicKeys, k.Value)
	}
	f.Meta = f.Meta.clean()
	if set.CustomData == nil {
		return f, nil
	}
	var err error
	if f.UserData, err = decodeBase64([]byte(*set.CustomData)); err != nil {
		return f, fmt.Errorf("the custom data %w", err)
	}
	f.Present = true
	return f, nil
}

// fromAzureService asks the instance metadata service.
func fromAzureService(ctx context.Context, s *search) (Found, error) {
	const base = linkLocal + "/metadata/instance"
	header := map[string]string{"Metadata": "true"}
	body, err := s.fetch(ctx, request{url: base + "?api-version=2021-08-01&format=json", header: header})
	if hasStatus(err, 400) { // an older service
		body, err = s.fetch(ctx, request{url: base + "?api-version=2019-06-01&format=json", header: header})
	}
	if err != nil {
		return Found{}, notThere(err)
	}
	var doc struct {
		Compute struct {
			VMID      string `json:"vmId"`
			Name      string `json:"name"`
			OSProfile struct {
				ComputerName string `json:"computerName"`
			} `json:"osProfile"`
			Keys []struct {
				Data string `json:"keyData"`
			} `json:"publicKeys"`
		} `json:"compute"`
	}
	if err := json.Unmarshal(body, &doc); err != nil || doc.Compute.VMID == "" {
		return Found{}, fmt.Errorf("%s: %w", base, errImpostor)
	}
	f := Found{Meta: Meta{InstanceID: doc.Compute.VMID, Hostname: doc.Compute.OSProfile.ComputerName}}
	if hostname(f.Meta.Hostname) == "" {
		f.Meta.Hostname = doc.Compute.Name
	}
	for _, k := range doc.Compute.Keys {
		f.Meta.PublicKeys = append(f.Meta.PublicKeys, k.Data)
	}
	f.Meta = f.Meta.clean()
	f.Origin = base + "/compute/userData?api-version=2021-01-01&format=text"
	text, present, err := s.optional(ctx, request{url: f.Origin, header: header, limit: 2 * MaxUserData})
	if err != nil || !present || len(text) == 0 {
		return f, err
	}
	if f.UserData, err = decodeBase64(text); err != nil {
		return Found{}, fmt.Errorf("the user data %w", err)
	}
	f.Present = true
	return f, nil
}

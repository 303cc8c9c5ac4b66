package source

import (
	"context"
	"fmt"
	"net/url"
	"strings"
)

// fromNoCloud reads a NoCloud seed, which its label alone tells from any other
// volume with a file user-data.
//
// Differs: cloud-init ignores a seed without meta-data in silence; here the user
// data counts, and the log says what is missing.
func fromNoCloud(ctx context.Context, s *search) (Found, error) {
	for _, m := range s.readMedia(ctx) {
		if !strings.EqualFold(m.Label, "cidata") || !m.has("user-data") && !m.has("meta-data") {
			continue
		}
		if !m.has("meta-data") {
			s.Log.Warn("user-data without meta-data", "device", m.Path)
		}
		data, present := m.files["user-data"]
		return Found{UserData: data, Present: present, Meta: noCloudMeta(m.files["meta-data"]), Origin: m.Path}, nil
	}
	return Found{}, errNothing
}

// fromNoCloudURL reads a seed from a web server that the firmware or the kernel
// command line names: ds=nocloud;s=http://host/path/.
func fromNoCloudURL(ctx context.Context, s *search) (Found, error) {
	base := ""
	for _, text := range []string{s.DMI.ProductSerial, s.word("ds")} {
		text = strings.TrimPrefix(text, "ds=")
		if !strings.HasPrefix(text, "nocloud") {
			continue
		}
		for part := range strings.SplitSeq(text, ";") {
			for _, key := range []string{"s=", "seedfrom="} {
				if v, ok := strings.CutPrefix(part, key); ok {
					base = v
				}
			}
		}
	}
	u, err := url.Parse(base)
	if base == "" || err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return Found{}, errNothing
	}
	base = strings.TrimSuffix(base, "/") + "/"
	meta, hasMeta, err := s.optional(ctx, request{url: base + "meta-data"})
	if err != nil {
		return Found{}, fmt.Errorf("asking the NoCloud seed: %w", err)
	}
	data, present, err := s.optional(ctx, request{url: base + "user-data", limit: MaxUserData})
	if err != nil {
		return Found{}, fmt.Errorf("asking the NoCloud seed: %w", err)
	}
	if !hasMeta && !present {
		return Found{}, errNothing
	}
	return Found{UserData: data, Present: present, Meta: noCloudMeta(meta), Origin: base + "user-data"}, nil
}

package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"strings"
)

// fromVSphere reads user-data.txt from a CD.
func fromVSphere(ctx context.Context, s *search) (Found, error) {
	for _, m := range s.readMedia(ctx) {
		if m.Type != "iso9660" {
			continue
		}
		for _, name := range []string{"user-data.txt", "deltacloud-user-data.txt"} {
			if data, ok := m.files[name]; ok {
				return Found{UserData: data, Present: true, Origin: m.Path}, nil
			}
		}
	}
	return Found{}, errNothing
}

// fromGuestInfo reads the guestinfo variables that VMware hands in.
func fromGuestInfo(ctx context.Context, s *search) (Found, error) {
	if s.GuestInfo == nil {
		return Found{}, errNothing
	}
	data, present, err := s.guestInfo(ctx, "guestinfo.userdata")
	if err != nil {
		return Found{}, err
	}
	meta, hasMeta, err := s.guestInfo(ctx, "guestinfo.metadata")
	if err != nil {
		return Found{}, err
	}
	if !present && !hasMeta {
		return Found{}, errNothing
	}
	return Found{UserData: data, Present: present, Meta: noCloudMeta(meta), Origin: "guestinfo.userdata"}, nil
}

func (s *search) guestInfo(ctx context.Context, key string) ([]byte, bool, error) {
	data, found, err := s.GuestInfo.Get(ctx, key)
	if err != nil || !found || len(data) == 0 || string(data) == "---" { // what cloud-init leaves when it wiped a value
		return nil, false, err
	}
	encoding, _, err := s.GuestInfo.Get(ctx, key+".encoding")
	if err != nil {
		return nil, false, err
	}
	kind := strings.ToLower(strings.TrimSpace(string(encoding)))
	switch kind {
	case "base64", "b64", "gzip+base64", "gz+b64":
		if data, err = decodeBase64(data); err != nil {
			return nil, false, fmt.Errorf("the value of %s %w", key, err)
		}
	}
	if strings.HasPrefix(kind, "gz") {
		if data, err = gunzip(data); err != nil {
			return nil, false, fmt.Errorf("the value of %s: %w", key, err)
		}
	}
	if len(data) > MaxUserData {
		return nil, false, fmt.Errorf("the value of %s: %w", key, errTooLarge)
	}
	return data, true, nil
}

func gunzip(data []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(z, MaxUserData+1))
	if err == nil && len(out) > MaxUserData {
		err = errTooLarge
	}
	return out, err
}

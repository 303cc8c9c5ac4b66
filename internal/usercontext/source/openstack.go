package source

import (
	"context"
	"errors"
)

// fromOpenStack asks the service's own paths, then those it imitates EC2 with.
//
// Compat: cernvm-micro: scripts.d/06context asks version 2013-10-17, which older
// services have instead of latest.
func fromOpenStack(ctx context.Context, s *search) (Found, error) {
	for _, version := range []string{"latest", "2013-10-17"} {
		base := linkLocal + "/openstack/" + version
		body, there, err := s.optional(ctx, request{url: base + "/meta_data.json"})
		if err != nil {
			return Found{}, notThere(err)
		}
		if !there {
			continue
		}
		f := Found{Origin: base + "/user_data"}
		if f.Meta, err = openStackMeta(body); err != nil {
			return Found{}, errors.Join(errImpostor, err)
		}
		f.UserData, f.Present, err = s.optional(ctx, request{url: f.Origin, limit: MaxUserData})
		return f, err
	}
	return (&ec2Client{s: s, host: linkLocal}).tree(ctx, linkLocal+"/latest", "ami-id")
}

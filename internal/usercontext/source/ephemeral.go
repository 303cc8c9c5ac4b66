package source

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// EphemeralDevices lists the disks that EC2 says are instance store, by the names
// its metadata has for them ("sdb"). It asks only on that platform; elsewhere, and
// where none are listed, the list is empty.
func EphemeralDevices(ctx context.Context, env Env) ([]string, error) {
	s := newSearch(env)
	if s.HTTP == nil || s.platform != platformEC2 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, budgetUnknown)
	defer cancel()
	c := &ec2Client{s: s, host: linkLocal}
	if err := c.newToken(ctx); err != nil {
		return nil, err
	}
	const base = linkLocal + ec2Version + "/meta-data/block-device-mapping/"
	list, err := c.get(ctx, base, 0)
	if err = notThere(err); errors.Is(err, errNothing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(list)) {
		entry := identifier([]byte(line))
		if !strings.HasPrefix(entry, "ephemeral") || strings.Contains(entry, "/") || len(names) > maxKeys {
			continue
		}
		body, err := c.get(ctx, base+entry, 0)
		if err != nil {
			return nil, err
		}
		if name := strings.TrimPrefix(identifier(body), "/dev/"); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Where EC2 has its metadata service.
const (
	ec2IPv6 = "http://[fd00:ec2::254]"

	// ec2Version is one that OpenStack's imitation of the service does not have,
	// which tells the two apart.
	//
	// Compat: cernvm-micro: scripts.d/06context.
	ec2Version = "/2016-04-19"
)

// fromEC2 asks with a session token (IMDSv2) where the service gives one, and
// without where it knows of none, unless imds=v2 on the kernel command line
// forbids it.
func fromEC2(ctx context.Context, s *search) (Found, error) {
	f, err := s.ec2(ctx, linkLocal)
	if err != nil && !errors.Is(err, errNothing) && ctx.Err() == nil && s.platform == platformEC2 {
		var st *status
		if !errors.As(err, &st) { // no answer at all: a machine with IPv6 only
			if f6, err6 := s.ec2(ctx, ec2IPv6); err6 == nil {
				return f6, nil
			}
		}
	}
	return f, err
}

func (s *search) ec2(ctx context.Context, host string) (Found, error) {
	c := &ec2Client{s: s, host: host}
	if err := c.newToken(ctx); err != nil {
		return Found{}, notThere(err)
	}
	return c.tree(ctx, host+ec2Version, "instance-id")
}

// ec2Client reads a tree of EC2's kind. With a token it renews it once when it
// has expired.
type ec2Client struct {
	s     *search
	host  string
	token string
}

func (c *ec2Client) newToken(ctx context.Context) error {
	body, err := c.s.fetch(ctx, request{
		method: http.MethodPut, url: c.host + "/latest/api/token",
		header: map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": "300"},
	})
	switch {
	case err == nil:
		if c.token = identifier(body); c.token == "" {
			return fmt.Errorf("%s: %w", c.host, errImpostor)
		}
		return nil
	case hasStatus(err, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented):
		if c.s.word("imds") == "v2" {
			return fmt.Errorf("imds=v2 is asked for, but there are no tokens: %v", err) //nolint:errorlint // a refusal here is not "nothing"
		}
		return nil
	}
	return err
}

func (c *ec2Client) get(ctx context.Context, url string, limit int) ([]byte, error) {
	r := request{url: url, limit: limit}
	if c.token != "" {
		r.header = map[string]string{"X-aws-ec2-metadata-token": c.token}
	}
	body, err := c.s.fetch(ctx, r)
	if c.token != "" && hasStatus(err, http.StatusUnauthorized) {
		if err := c.newToken(ctx); err != nil {
			return nil, err
		}
		r.header = map[string]string{"X-aws-ec2-metadata-token": c.token}
		body, err = c.s.fetch(ctx, r)
	}
	return body, err
}

// tree reads user data and metadata below base. The marker is a value that
// proves that the service is there, also if it has no user data.
func (c *ec2Client) tree(ctx context.Context, base, marker string) (Found, error) {
	body, err := c.get(ctx, base+"/meta-data/"+marker, 0)
	if err != nil {
		return Found{}, notThere(err)
	}
	id := identifier(body)
	if id == "" {
		return Found{}, fmt.Errorf("%s: %w", base, errImpostor)
	}
	f := Found{Origin: base + "/user-data"}
	if f.Meta.InstanceID = id; marker != "instance-id" {
		if body, err := c.get(ctx, base+"/meta-data/instance-id", 0); err == nil {
			f.Meta.InstanceID = identifier(body)
		}
	}
	f.UserData, err = c.get(ctx, f.Origin, MaxUserData)
	switch {
	case err == nil:
		f.Present = true
	case !hasStatus(err, http.StatusNotFound):
		return Found{}, err
	}
	for _, name := range []string{"local-hostname", "hostname"} {
		if body, err := c.get(ctx, base+"/meta-data/"+name, 0); err == nil && hostname(string(body)) != "" {
			f.Meta.Hostname = string(body)
			break
		}
	}
	f.Meta.PublicKeys = c.keys(ctx, base)
	f.Meta.Values = c.values(ctx, base+"/meta-data/")
	f.Meta = f.Meta.clean()
	return f, nil
}

// keys reads public-keys/, whose lines are "0=name", and the key of each.
func (c *ec2Client) keys(ctx context.Context, base string) []string {
	list, err := c.get(ctx, base+"/meta-data/public-keys/", 0)
	if err != nil {
		return nil
	}
	var keys []string
	for line := range strings.Lines(string(list)) {
		number, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || len(keys) >= maxKeys {
			continue
		}
		if key, err := c.get(ctx, fmt.Sprintf("%s/meta-data/public-keys/%d/openssh-key", base, n), 0); err == nil {
			keys = append(keys, string(key))
		}
	}
	return keys
}

// values reads what plugins ask for. What is not there is left out.
func (c *ec2Client) values(ctx context.Context, base string) map[string]string {
	names := valueNames()
	if list, err := c.get(ctx, base+blockDevices, 0); err == nil {
		for line := range strings.Lines(string(list)) {
			if name := blockDevices + strings.TrimSpace(line); isValueName(name) && len(names) < maxValues {
				names = append(names, name)
			}
		}
	}
	values := map[string]string{}
	for _, name := range names {
		if body, err := c.get(ctx, base+name, 0); err == nil {
			values[name] = string(body)
		}
	}
	return values
}

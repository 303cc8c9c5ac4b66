package source

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// linkLocal is where most clouds have their metadata service.
const linkLocal = "http://169.254.169.254"

// fromGCE asks Google's metadata server, by its address: its name would have to
// be resolved by somebody.
//
// Differs: the reply must carry Google's header, so that no other service at
// the address is taken for it.
func fromGCE(ctx context.Context, s *search) (Found, error) {
	const base = linkLocal + "/computeMetadata/v1/"
	get := func(path string, limit int) request {
		return request{
			url: base + path, host: "metadata.google.internal", limit: limit,
			header: map[string]string{"Metadata-Flavor": "Google"},
			check: func(h http.Header) error {
				if h.Get("Metadata-Flavor") != "Google" {
					return errImpostor
				}
				return nil
			},
		}
	}
	id, err := s.fetch(ctx, get("instance/id", 0))
	if err != nil {
		return Found{}, notThere(err)
	}
	f := Found{Meta: Meta{InstanceID: string(id)}, Origin: base + "instance/attributes/user-data"}
	if name, there, err := s.optional(ctx, get("instance/hostname", 0)); err == nil && there {
		f.Meta.Hostname = string(name)
	}
	// All attributes of an instance may have 512 KiB together.
	attributes, err := s.attributes(ctx, get("instance/attributes/?recursive=true", 2*MaxUserData))
	if err != nil {
		return Found{}, err
	}
	f.Meta.PublicKeys = gceKeys(attributes["ssh-keys"])
	if !strings.EqualFold(attributes["block-project-ssh-keys"], "true") {
		if project, err := s.attributes(ctx, get("project/attributes/?recursive=true", 2*MaxUserData)); err == nil {
			f.Meta.PublicKeys = append(f.Meta.PublicKeys, gceKeys(project["ssh-keys"])...)
		}
	}
	f.Meta = f.Meta.clean()
	if text, ok := attributes["user-data"]; ok {
		f.UserData, f.Present = []byte(text), true
		if strings.EqualFold(attributes["user-data-encoding"], "base64") {
			if f.UserData, err = decodeBase64(f.UserData); err != nil {
				return Found{}, fmt.Errorf("the attribute user-data %w", err)
			}
		}
	} else if text, ok := attributes["cvm-user-data"]; ok { // where amiconfig looks
		if f.UserData, err = decodeBase64([]byte(text)); err != nil {
			return Found{}, fmt.Errorf("the attribute cvm-user-data %w", err)
		}
		f.Present = true
	}
	if len(f.UserData) > MaxUserData {
		return Found{}, fmt.Errorf("the attribute user-data: %w", errTooLarge)
	}
	return f, nil
}

func (s *search) attributes(ctx context.Context, r request) (map[string]string, error) {
	body, there, err := s.optional(ctx, r)
	if err != nil || !there {
		return nil, err
	}
	var raw map[string]any
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, fmt.Errorf("%s: %w", r.url, err)
	}
	out := map[string]string{}
	for k, v := range raw {
		if text, ok := v.(string); ok {
			out[k] = text
		}
	}
	return out, nil
}

// gceKeys takes the keys out of lines "user:type blob comment".
func gceKeys(text string) []string {
	var keys []string
	for line := range strings.Lines(text) {
		if user, key, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && !strings.Contains(user, " ") {
			keys = append(keys, key)
		}
	}
	return keys
}

// notThere turns a refusal into "nothing": a service that is not this one says
// no to its paths. Everything else stays an error.
func notThere(err error) error {
	if hasStatus(err, http.StatusNotFound, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusBadRequest, http.StatusNotImplemented) {
		return errNothing
	}
	return err
}

package source

import (
	"context"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

// fromOpenNebula reads the assignments of a context.sh. They are never run.
//
// Compat: a context.sh without user data, or with some that cannot be decoded,
// still counts as found (cernvm-micro: scripts.d/06context).
// Differs: the original gave the file to the shell.
func fromOpenNebula(ctx context.Context, s *search) (Found, error) {
	for _, m := range labelled(s.readMedia(ctx), "CONTEXT") {
		script, ok := m.files["context.sh"]
		if !ok {
			continue
		}
		f, err := openNebula(script, m.rooted)
		if err != nil {
			s.Log.Warn("context.sh", "device", m.Path, "error", err)
		}
		f.Origin = m.Path
		return f, nil
	}
	return Found{}, errNothing
}

// assignments is a context.sh; of names given twice the last counts.
type assignments map[string]string

func readAssignments(script []byte) assignments {
	vars := assignments{}
	for _, a := range usercontext.ParseAssignments(script) {
		vars[a.Name] = a.Value
	}
	return vars
}

func (v assignments) first(names ...string) (string, bool) {
	for _, name := range names {
		if value := v[name]; value != "" {
			return value, true
		}
	}
	return "", false
}

func openNebula(script, keyFile []byte) (Found, error) {
	vars := readAssignments(script)
	f := Found{Present: true}
	var err error
	if text, ok := vars.first("EC2_USER_DATA"); ok {
		if f.UserData, err = decodeBase64([]byte(text)); err != nil {
			err = fmt.Errorf("the value of EC2_USER_DATA %w", err)
		}
	} else if text, ok := vars.first("USER_DATA", "USERDATA"); ok {
		f.UserData = []byte(text)
		encoding, _ := vars.first("USER_DATA_ENCODING", "USERDATA_ENCODING")
		if strings.EqualFold(encoding, "base64") {
			if f.UserData, err = decodeBase64(f.UserData); err != nil {
				err = fmt.Errorf("the value of USER_DATA %w", err)
			}
		}
	}
	if len(f.UserData) > MaxUserData {
		f.UserData, err = nil, fmt.Errorf("the value of USER_DATA: %w", errTooLarge)
	}
	for _, name := range []string{"SSH_PUBLIC_KEY", "SSH_KEY", "PUBLIC_KEY"} {
		f.Meta.PublicKeys = append(f.Meta.PublicKeys, vars[name])
	}
	f.Meta.PublicKeys = append(f.Meta.PublicKeys, string(keyFile))
	// Compat: the candidates of the original are followed by addresses, which are
	// no names.
	f.Meta.Hostname, _ = vars.first("SET_HOSTNAME", "HOSTNAME")
	f.Meta.Shares = readShares(vars[strings.ToUpper(SharesKey)])
	if id := vars["VMID"]; id != "" {
		f.Meta.InstanceID = "one-" + id
	}
	f.Meta = f.Meta.clean()
	return f, err
}

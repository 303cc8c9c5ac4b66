package amiconfig

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"path"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// The agent's files in the system.
const (
	stateDir     = "/var/lib/mica"
	appliedFile  = stateDir + "/applied.json"
	logDir       = "/var/log/mica"
	amiDir       = "/var/lib/amiconfig"
	userDone     = amiDir + "/user.done"
	hepixDone    = amiDir + "/hepix.done"
	metaRoot     = amiDir + "/2007-12-15"
	userDataCopy = metaRoot + "/user-data"
	onlineRoot   = "/var/lib/amiconfig-online/2007-12-15"
	onlineCopy   = onlineRoot + "/user-data"
	onlineConf   = "/etc/cernvm/online.conf"
)

// applied is what is remembered of the run for this machine.
type applied struct {
	InstanceID string   `json:"instance_id"`
	Context    string   `json:"context_sha256"`
	Users      []string `json:"users,omitempty"`
}

func readApplied(root *guest.Root) (applied, bool) {
	var a applied
	data, err := root.ReadFile(appliedFile)
	if err != nil || json.Unmarshal(data, &a) != nil {
		return applied{}, false
	}
	return a, true
}

func (a applied) write(root *guest.Root) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return root.WriteState(appliedFile, append(data, '\n'))
}

// due reports whether the once-per-machine part is to run.
//
// Compat: the marker alone decides where nothing else is remembered, so a machine
// that the original set up is not set up again (hepix/commands/amiconfig.sh).
func due(root *guest.Root, instanceID string) bool {
	if !root.Exists(userDone) {
		return true
	}
	before, ok := readApplied(root)
	return ok && before.InstanceID != instanceID
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// writeMetadata leaves the context where scripts written for the original look
// for it: a tree as the metadata service of EC2 shows it.
func writeMetadata(root *guest.Root, dir string, in Input) error {
	files := map[string]string{
		"user-data":                string(in.joined()),
		"meta-data/instance-id":    in.InstanceID,
		"meta-data/local-hostname": in.Hostname,
	}
	if len(in.PublicKeys) > 0 {
		files["meta-data/public-keys/0/openssh-key"] = in.PublicKeys[0] + "\n"
	}
	for name, text := range in.Values {
		if fs.ValidPath(name) {
			files["meta-data/"+name] = text
		}
	}
	for name, text := range files {
		if text == "" {
			continue
		}
		if err := root.WriteState(path.Join(dir, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

package source

import (
	"encoding/json"
	"regexp"
)

// Share is a folder of the host that the platform offers to the machine.
type Share struct {
	Name     string `json:"name"`          // the machine sees it as /mnt/shared/<Name>
	Type     string `json:"type"`          // the file system that it is mounted with: one of the Share types
	Tag      string `json:"tag,omitempty"` // what the device calls it; empty is Name
	ReadOnly bool   `json:"ro,omitempty"`
}

// The types of a Share.
const (
	Share9P       = "9p"
	ShareVirtioFS = "virtiofs"
	ShareVBoxSF   = "vboxsf"
)

// SharesKey names the list of shares in metadata: a JSON array of Share in a
// string. OpenStack has it among the properties that whoever makes a server can
// set, cloud-init's NoCloud beside the instance id, OpenNebula in capitals.
const SharesKey = "mica_shares"

const (
	maxShares     = 64
	maxShareNames = 64 << 10 // bytes of the list
)

var shareName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._=+@-]{0,63}$`)

// readShares reads the value of SharesKey. What is no list gives none.
func readShares(text string) []Share {
	if text == "" || len(text) > maxShareNames {
		return nil
	}
	var list []Share
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	return CleanShares(list)
}

// CleanShares keeps the shares that can be mounted. Their names become those of
// folders and of units, their tags words of mount options.
func CleanShares(list []Share) []Share {
	var clean []Share
	seen := map[string]bool{}
	for _, s := range list {
		if s.Tag == s.Name {
			s.Tag = ""
		}
		known := s.Type == Share9P || s.Type == ShareVirtioFS || s.Type == ShareVBoxSF
		if !known || seen[s.Name] || len(clean) == maxShares || !shareName.MatchString(s.Name) || s.Tag != "" && !shareName.MatchString(s.Tag) {
			continue
		}
		seen[s.Name] = true
		clean = append(clean, s)
	}
	return clean
}

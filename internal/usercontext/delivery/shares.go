package delivery

import (
	"encoding/json"
	"regexp"
	"slices"

	"github.com/micavm/mica/internal/fail"
)

// Share is a folder of the host that the machine is to mount at
// /mnt/shared/<Name>. That the hypervisor offers it is another matter.
type Share struct {
	Name     string `json:"name"`
	Type     string `json:"type"`          // the file system of the guest: 9p, virtiofs or vboxsf
	Tag      string `json:"tag,omitempty"` // what the hypervisor calls it; empty is Name
	ReadOnly bool   `json:"ro,omitempty"`
}

// sharesKey is where the guest looks for the list; package source reads it.
const sharesKey = "mica_shares"

const maxShares = 64

var shareName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._=+@-]{0,63}$`)

// checkShares refuses what the guest would pass over.
func checkShares(shares []Share) error {
	if len(shares) > maxShares {
		return fail.New(fail.Usage, "%d shared folders are too many", len(shares)).Hint("share at most %d, or a folder that has them in it", maxShares)
	}
	for i, s := range shares {
		switch {
		case !shareName.MatchString(s.Name) || s.Tag != "" && !shareName.MatchString(s.Tag):
			return fail.New(fail.Usage, "%q is no name for a shared folder", s.Name).
				Hint("use letters, digits, '-', '_', '.', '=', '+' and '@', at most 64, a letter or digit first")
		case !slices.Contains([]string{"9p", "virtiofs", "vboxsf"}, s.Type):
			return fail.New(fail.Usage, "shared folder %q has the unknown type %q", s.Name, s.Type)
		case slices.ContainsFunc(shares[:i], func(o Share) bool { return o.Name == s.Name }):
			return fail.New(fail.Usage, "two shared folders are named %q", s.Name)
		}
	}
	return nil
}

// shareList is the value of sharesKey: JSON in a string, since metadata of
// OpenStack and OpenNebula hold nothing but strings.
func (m Meta) shareList() string {
	text, err := json.Marshal(m.Shares)
	if err != nil {
		panic(err) //nolint:forbidigo // strings and booleans always encode
	}
	return string(text)
}

func noShares(kind string) error {
	return fail.New(fail.Usage, "%s medium has no place for the list of shared folders", kind).Hint("use the layout config-2, nocloud or opennebula")
}

package client

import "github.com/micavm/mica/cvmfs/catalog"

// Owners say whom files are shown to belong to, and who may read them. The zero
// value shows what the repository has. The names of the original's parameters
// stand behind the fields.
type Owners struct {
	UIDs, GIDs    IDMap
	Claim         *Owner // everything belongs to this one, whatever the maps say (CVMFS_CLAIM_OWNERSHIP)
	WorldReadable bool   // everybody may read every file and enter every directory (CVMFS_WORLD_READABLE)
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// IDMap replaces numbers of users or groups (CVMFS_UID_MAP, CVMFS_GID_MAP).
type IDMap struct {
	IDs  map[uint32]uint32
	Rest *uint32 // for all others; nil leaves them
}

func (m IDMap) of(id uint32) uint32 {
	if to, found := m.IDs[id]; found {
		return to
	}
	if m.Rest != nil {
		return *m.Rest
	}
	return id
}

// apply changes an entry to what is shown of it.
func (o *Owners) apply(e *catalog.Entry) {
	if o.Claim != nil {
		e.UID, e.GID = o.Claim.UID, o.Claim.GID
	} else {
		e.UID, e.GID = o.UIDs.of(e.UID), o.GIDs.of(e.GID)
	}
	switch {
	case !o.WorldReadable || e.IsSymlink():
	case e.IsDir():
		e.Mode |= 0o555
	default:
		e.Mode |= 0o444
	}
}

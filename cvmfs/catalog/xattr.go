package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/micavm/mica/cvmfs"
)

// Limits of extended attributes: all three counts are one byte each.
const (
	MaxXattrs     = 255
	MaxXattrKey   = 255
	MaxXattrValue = 255
)

const xattrVersion = 1

// EncodeXattrs returns the blob of a set of extended attributes, keys in byte
// order; an empty set gives nil, as no blob is empty. It fails with an error
// wrapping cvmfs.ErrMalformed if the set exceeds the limits.
//
// Differs: the original lets a value of 256 bytes through, whose length byte
// then wraps to zero (cvmfs: cvmfs/xattr.cc).
func EncodeXattrs(set map[string][]byte) ([]byte, error) {
	if len(set) == 0 {
		return nil, nil
	}
	if len(set) > MaxXattrs {
		return nil, fmt.Errorf("%d extended attributes: %w", len(set), cvmfs.ErrMalformed)
	}
	blob := []byte{xattrVersion, byte(len(set))}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		value := set[key]
		if key == "" || len(key) > MaxXattrKey || strings.Contains(key, "\x00") || len(value) > MaxXattrValue {
			return nil, fmt.Errorf("extended attribute %.300q of %d bytes: %w", key, len(value), cvmfs.ErrMalformed)
		}
		blob = append(blob, byte(len(key)), byte(len(value)))
		blob = append(blob, key...)
		blob = append(blob, value...)
	}
	return blob, nil
}

// DecodeXattrs is the inverse of EncodeXattrs. Bytes after the last attribute
// are ignored, as the original does; of a key that comes twice the last counts.
func DecodeXattrs(blob []byte) (map[string][]byte, error) {
	if len(blob) == 0 {
		return nil, nil
	}
	if len(blob) < 2 || blob[0] != xattrVersion {
		return nil, fmt.Errorf("extended attributes of version %d: %w", blob[0], cvmfs.ErrMalformed)
	}
	set := make(map[string][]byte, blob[1])
	rest := blob[2:]
	for i := range blob[1] {
		if len(rest) < 2 {
			return nil, fmt.Errorf("extended attribute %d is cut off: %w", i, cvmfs.ErrMalformed)
		}
		k, v := int(rest[0]), int(rest[1])
		rest = rest[2:]
		if k == 0 || len(rest) < k+v || slices.Contains(rest[:k], 0) {
			return nil, fmt.Errorf("extended attribute %d: %w", i, cvmfs.ErrMalformed)
		}
		set[string(rest[:k])] = slices.Clone(rest[k : k+v])
		rest = rest[k+v:]
	}
	return set, nil
}

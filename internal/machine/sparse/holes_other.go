//go:build !linux

package sparse

import "os"

func clone(_, _ *os.File) bool { return false }

// nextData takes everything for data: pieces of zeros are left out all the same.
func nextData(_ *os.File, at, size int64) (begin, end int64, err error) { return at, size, nil }

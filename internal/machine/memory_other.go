//go:build !linux

package machine

// memoryFree is not known here.
func memoryFree() (int64, bool) { return 0, false }

// memoryTotal is not known here.
func memoryTotal() (int64, bool) { return 0, false }

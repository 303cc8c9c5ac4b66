package machine

import (
	"bytes"
	"os"
	"strconv"
)

// memoryFree is how many bytes programs can still have without swapping
// (MemAvailable of proc(5)).
func memoryFree() (int64, bool) { return memoryInfo("MemAvailable:") }

// memoryTotal is how many bytes this computer has.
func memoryTotal() (int64, bool) { return memoryInfo("MemTotal:") }

func memoryInfo(key string) (int64, bool) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(data) {
		rest, ok := bytes.CutPrefix(line, []byte(key))
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte(" kB"))), 10, 64)
		return kib << 10, err == nil
	}
	return 0, false
}

package launch

import (
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/micavm/mica/internal/fail"
)

// settings are the values of a configuration or a record by their key.
type settings map[string]string

// Keys of configurations and records. Those of a record have a group before a
// slash; mica/ is this package's own.
const (
	keyName, keyUUID, keyVBoxID   = "name", "uuid", "vboxid"
	keyCPUs, keyMemory, keyDisk   = "cpus", "memory", "disk"
	keyAPIPort, keyVersion        = "apiPort", "cernvmVersion"
	keyCap, keyFlags, keyVRAM     = "executionCap", "flags", "vram"
	keyShared, keyLaunchHome      = "sharedFolder", "launchHomeFolder"
	keyDiskURL, keyDiskSum        = "diskURL", "diskChecksum"
	keyDiskPath, keyISO           = "diskPath", "isoPath"
	keyOVA, keyOVAPath            = "ovaImport", "ovaPath"
	keyFlavor, keyUserData        = "cernvmFlavor", "userData"
	keyDriver, keyServer          = "driver", "imageServer"
	keyInitialized                = "initialized"
	localBase, localPort          = "local/baseFolder", "local/apiPort"
	localHost, localISO           = "local/apiHost", "local/bootISO"
	localDisk, localContext       = "local/bootDisk", "local/vmapi_contents"
	localShared, localInitialized = "local/sharedFolderAdded", "local/initialized"
	machineDisk                   = "machine/SATA (0, 0)"
	micaDriver, micaPhase         = "mica/driver", "mica/phase"
	micaHandle, micaStale         = "mica/handle", "mica/stale"
	micaFormat, micaDigest        = "mica/imageFormat", "mica/imageSHA256"
	micaSize, micaImage           = "mica/imageSize", "mica/image"
	micaVerified                  = "mica/imageVerified"
)

// blanks is what the original trims.
const blanks = " \t\n\v\f\r"

// maxSettings bounds a configuration file.
const maxSettings = 16 << 20

// parseSettings reads key=value lines. A line counts as a comment if its first
// byte is '#'; lines without '=', without a key or without a value say nothing;
// one pair of quotes around a value goes; of two lines the last counts.
//
// Compat: libcernvm: src/LocalConfig.cpp.
func parseSettings(data []byte) settings {
	values := settings{}
	for line := range strings.SplitSeq(string(data), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key, value = strings.Trim(key, blanks), strings.Trim(value, blanks)
		if n := len(value); n > 1 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
			value = value[1 : n-1]
		}
		if ok && key != "" && value != "" {
			values[key] = value
		}
	}
	return values
}

// readSettings reads a configuration file.
//
// Differs: a folder is an error; the original reads it as an empty configuration.
func readSettings(path string) (settings, error) {
	data, err := readFile(path, maxSettings)
	if err != nil {
		return nil, err
	}
	return parseSettings(data), nil
}

// readFile reads a regular file, or a pipe, of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, err
}

// fill adds the values of more whose keys are not there yet.
func (s settings) fill(more settings) {
	for key, value := range more {
		if s[key] == "" {
			s[key] = value
		}
	}
}

func (s settings) keys() []string {
	keys := make([]string, 0, len(s))
	for key := range s {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

// dropInternal removes the keys that only a record may have.
//
// Differs: the original takes them from a configuration, which overwrites the new
// record or drives another program's machine.
func (s settings) dropInternal(tell func(format string, args ...any), from string) {
	for _, key := range s.keys() {
		group, _, grouped := strings.Cut(key, "/")
		switch {
		case key == keyUUID, key == keyVBoxID, key == keyInitialized, key == "secret",
			grouped && (group == "local" || group == "machine" || group == "mica" || group == "properties" || group == "user-data"):
			tell("note: %s: key %q is not for configurations, ignored", from, key)
			delete(s, key)
		}
	}
}

// number reads an integer within limits.
//
// Differs: the original takes the digits a value begins with and passes the rest
// on unseen.
func (s settings) number(key string, low, high int64) (int64, error) {
	var n int64
	text := s[key]
	if text == "" || len(text) > maxDigits || strings.Trim(text, "0123456789") != "" {
		return 0, fail.New(fail.Usage, "Invalid value of %s: %q is no whole number", key, text)
	}
	for _, digit := range text {
		n = n*10 + int64(digit-'0')
	}
	if n < low || n > high {
		return 0, fail.New(fail.Usage, "Invalid value of %s: %d is not between %d and %d", key, n, low, high)
	}
	return n, nil
}

package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/usercontext"
)

// isImage reports whether data is an ISO 9660 image.
func isImage(data []byte) bool {
	const magic = 16*iso9660.SectorSize + 1
	return len(data) > magic+5 && string(data[magic:magic+5]) == "CD001"
}

// onMedium are the files in which the kinds of context media have the context, in
// the order in which the boot loader looks (cernvm-micro: scripts.d/06context).
func onMedium() []string {
	return []string{"openstack/latest/user_data", "context.sh", "user-data.txt", "CustomData.bin", "ec2/latest/user-data", "user-data", "deltacloud-user-data.txt"}
}

// fromImage takes the context out of an image made for a machine.
func fromImage(name string, data []byte) ([]byte, string, error) {
	image, err := iso9660.Open(bytes.NewReader(data), int64(len(data)), iso9660.Auto)
	if err != nil {
		return nil, "", fmt.Errorf("reading image %s: %w", name, err)
	}
	for _, file := range onMedium() {
		for _, spelling := range []string{file, strings.ToUpper(file)} {
			content, err := readLimited(image, spelling)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, "", fmt.Errorf("reading image %s: %w", name, err)
			}
			return content, file, nil
		}
	}
	return nil, "", fail.New(fail.NotFound, "image %s has no context on it", name).
		Hint("a context is in one of %s", strings.Join(onMedium(), ", "))
}

func readLimited(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	const limit = 2 * usercontext.MaxSize
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && len(data) > limit {
		err = usercontext.ErrTooLarge
	}
	return data, err
}

package password

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"github.com/micavm/mica/internal/atomicfile"
)

// alphabet has no characters that look alike or move on a foreign keyboard
// layout.
const alphabet = "abcdefghijkmnpqrstuvwx23456789"

// Generate makes up a password of 14 characters, about 68 bits.
func Generate(random io.Reader) (string, error) {
	if random == nil {
		random = rand.Reader
	}
	const limit = 256 / len(alphabet) * len(alphabet)
	out := make([]byte, 0, 14)
	b := make([]byte, 1)
	for len(out) < 14 {
		if _, err := io.ReadFull(random, b); err != nil {
			return "", fmt.Errorf("making up a password: %w", err)
		}
		if int(b[0]) < limit { // no bias towards the first letters
			out = append(out, alphabet[int(b[0])%len(alphabet)])
		}
	}
	return string(out), nil
}

// Hash returns the SHA-512 crypt of a password.
func Hash(password string) (string, error) {
	h, err := shacrypt.New(shacrypt.WithSHA512(), shacrypt.WithIterations(5000))
	if err != nil {
		return "", fmt.Errorf("hashing the password: %w", err)
	}
	digest, err := h.Hash(password)
	if err != nil {
		return "", fmt.Errorf("hashing the password: %w", err)
	}
	return digest.Encode(), nil
}

// SetRoot sets the hash as root's password in the tree, in etc/shadow, or in
// etc/passwd where a system has no shadow file.
func SetRoot(tree, hash string, now time.Time) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return fmt.Errorf("resetting root's password: %w", err)
	}
	defer root.Close() //nolint:errcheck // read only
	for _, part := range []struct {
		name string
		edit func(string) (string, error)
	}{
		{"etc/shadow", func(text string) (string, error) { return Shadow(text, hash, now) }},
		{"etc/passwd", func(text string) (string, error) { return Passwd(text, hash) }},
	} {
		fi, err := root.Lstat(part.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("resetting root's password: %w", err)
		}
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("resetting root's password: /%s is not a plain file", part.name)
		}
		data, err := root.ReadFile(part.name)
		if err != nil {
			return fmt.Errorf("resetting root's password: %w", err)
		}
		text, err := part.edit(string(data))
		if err != nil {
			return fmt.Errorf("resetting root's password in /%s: %w", part.name, err)
		}
		if err := atomicfile.Write(filepath.Join(tree, part.name), []byte(text), fi.Mode().Perm()); err != nil {
			return err
		}
		return keepOwner(filepath.Join(tree, part.name), fi)
	}
	return fmt.Errorf("resetting root's password: %s has neither etc/shadow nor etc/passwd", tree)
}

// Shadow returns the text of a shadow file with a new hash for root, the date
// of the change set to today, and no limits on age.
func Shadow(text, hash string, now time.Time) (string, error) {
	return edit(text, func(f []string) []string {
		for len(f) < 9 {
			f = append(f, "")
		}
		f[1] = hash
		f[2] = fmt.Sprint(now.Unix() / (24 * 60 * 60))
		f[3], f[4], f[6], f[7] = "0", "99999", "", ""
		return f
	}, "root:"+hash+fmt.Sprintf(":%d:0:99999:7:::", now.Unix()/(24*60*60)))
}

// Passwd returns the text of a passwd file with a new hash for root.
func Passwd(text, hash string) (string, error) {
	return edit(text, func(f []string) []string {
		if len(f) > 1 {
			f[1] = hash
		}
		return f
	}, "")
}

// edit changes root's line. A file without one gets the line missing, if there
// is a form for it.
func edit(text string, change func([]string) []string, missing string) (string, error) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "root:") {
			lines[i] = strings.Join(change(strings.Split(line, ":")), ":")
			return strings.Join(lines, "\n"), nil
		}
	}
	if missing == "" {
		return "", errors.New("no line for root")
	}
	return missing + "\n" + text, nil
}

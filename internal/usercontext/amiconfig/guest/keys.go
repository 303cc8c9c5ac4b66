package guest

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"
)

// AuthorizedKey is one line of an authorized_keys file, taken apart as far as is
// needed to compare it.
type AuthorizedKey struct {
	Line string // as written, trimmed
	Blob string // the key itself, base64
}

// ParseAuthorizedKey reads one public key in OpenSSH form, with or without
// options before it and a comment behind it.
func ParseAuthorizedKey(line string) (AuthorizedKey, error) {
	line = strings.TrimSpace(line)
	if strings.ContainsAny(line, "\n\r\x00") {
		return AuthorizedKey{}, errors.New("more than one line")
	}
	fields := quotedFields(line)
	for i, f := range fields {
		if i > 1 || i+1 >= len(fields) {
			break
		}
		blob, err := base64.StdEncoding.DecodeString(fields[i+1])
		if err != nil || len(blob) < 4 {
			continue
		}
		n := binary.BigEndian.Uint32(blob)
		if uint64(n) > uint64(len(blob)-4) || string(blob[4:4+n]) != f {
			continue
		}
		return AuthorizedKey{Line: line, Blob: fields[i+1]}, nil
	}
	return AuthorizedKey{}, errors.New("not a public key in OpenSSH form")
}

// quotedFields splits at blanks outside double quotes: options may hold blanks.
func quotedFields(line string) []string {
	var fields []string
	var current strings.Builder
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted && i+1 < len(line):
			current.WriteString(line[i : i+2])
			i++
		case (c == ' ' || c == '\t') && !quoted:
			if current.Len() > 0 {
				fields = append(fields, current.String())
				current.Reset()
			}
		default:
			if c == '"' {
				quoted = !quoted
			}
			current.WriteByte(c)
		}
	}
	if current.Len() > 0 {
		fields = append(fields, current.String())
	}
	return fields
}

// Authorize lets the holders of the public keys log in as the user. Keys that are
// there already, whatever their comment, are not added again. Texts that are no
// keys are errors; the others are added all the same.
func (r *Root) Authorize(acc Account, keys []string) error {
	var errs []error
	var good []AuthorizedKey
	for _, text := range keys {
		for _, line := range Lines([]byte(text)) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			key, err := ParseAuthorizedKey(line)
			if err != nil {
				errs = append(errs, fmt.Errorf("public key %.20q for %q: %w", line, acc.Name, err))
				continue
			}
			good = append(good, key)
		}
	}
	if len(good) == 0 {
		return errors.Join(errs...)
	}
	// The home directory is the user's, the agent is root: a link there must not
	// lead the keys elsewhere.
	dir := path.Join(acc.Home, ".ssh")
	if at, err := r.resolve(dir, false); err == nil {
		if info, err := r.dir.Lstat(at); err == nil && !info.IsDir() {
			return fmt.Errorf("public keys for %q: %s is not a directory", acc.Name, clean(dir))
		}
	}
	errs = append(errs, r.MkdirAll(acc.Home, Attr{Mode: 0o700}.Owner(acc.UID, acc.GID)))
	errs = append(errs, r.MkdirAll(dir, Attr{Mode: 0o700}.Owner(acc.UID, acc.GID)))
	errs = append(errs, r.Edit(path.Join(dir, "authorized_keys"), Attr{Mode: 0o600, NoFollow: true}.Owner(acc.UID, acc.GID), func(lines []string) []string {
		have := map[string]bool{}
		for _, line := range lines {
			if key, err := ParseAuthorizedKey(line); err == nil {
				have[key.Blob] = true
			}
		}
		for _, key := range good {
			if !have[key.Blob] {
				have[key.Blob] = true
				lines = append(lines, key.Line)
			}
		}
		return lines
	}))
	return errors.Join(errs...)
}

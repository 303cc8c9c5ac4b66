package cvmfs

import (
	"bytes"
	"crypto/rsa"
	"fmt"
	"math"
	"strconv"
	"time"
)

// ManifestFile and WhitelistFile are the names of the signed files at the root
// of a repository.
const (
	ManifestFile  = ".cvmfspublished"
	WhitelistFile = ".cvmfswhitelist"
	ReflogFile    = ".cvmfsreflog"
)

// Manifest is one published state of a repository.
type Manifest struct {
	RootHash           Hash          // C: the root catalogue
	RootSize           int64         // B: its size in bytes, inflated
	TTL                time.Duration // D: whole seconds
	Revision           uint64        // S
	GarbageCollectable bool          // G
	AltPath            bool          // A: root objects also under .cvmfsalt-…
	Name               string        // N: fully qualified repository name
	Certificate        Hash          // X
	History            Hash          // H: the tags; zero if there are none
	Metainfo           Hash          // M
	Reflog             Hash          // Y
	Published          time.Time     // T: whole seconds UTC; zero if not recorded
}

// rootPathHash is the value of R: the root path is always "".
const rootPathHash = "d41d8cd98f00b204e9800998ecf8427e"

// ParseManifest reads a manifest and checks its form and its hash line, not its
// signature: use [Trust.Verify] for anything that matters. Errors wrap
// ErrMalformed.
func ParseManifest(data []byte) (*Manifest, error) {
	s, err := splitSigned(data)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := parseManifestText(s.text)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

func parseManifestText(text []byte) (*Manifest, error) {
	m := &Manifest{}
	var seen [256]bool
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 {
			return nil, fmt.Errorf("empty line: %w", ErrMalformed)
		}
		seen[line[0]] = true
		if err := m.set(line[0], string(line[1:])); err != nil {
			return nil, fmt.Errorf("field %q: %w", line[:1], err)
		}
	}
	for _, letter := range []byte("CRDS") {
		if !seen[letter] {
			return nil, fmt.Errorf("field %q is missing: %w", string(letter), ErrMalformed)
		}
	}
	if m.RootHash.Algorithm == MD5 {
		return nil, fmt.Errorf("field \"C\": md5 names no content: %w", ErrMalformed)
	}
	return m, nil
}

// set takes one field. A letter that comes twice counts the last time, an
// unknown one not at all: the format grows that way.
func (m *Manifest) set(letter byte, value string) (err error) {
	switch letter {
	case 'C':
		m.RootHash, err = ParseHash(value)
	case 'B':
		m.RootSize, err = number(value)
	case 'R':
		if value != rootPathHash {
			err = fmt.Errorf("root path hash %q is not that of the empty path: %w", clip(value), ErrMalformed)
		}
	case 'D':
		var seconds int64
		if seconds, err = number(value); err == nil && seconds > math.MaxInt32 {
			err = fmt.Errorf("lifetime of %d seconds: %w", seconds, ErrMalformed)
		}
		m.TTL = time.Duration(seconds) * time.Second
	case 'S':
		if m.Revision, err = strconv.ParseUint(value, 10, 64); err != nil || !digits(value) {
			err = fmt.Errorf("number %q: %w", clip(value), ErrMalformed)
		}
	case 'G':
		m.GarbageCollectable, err = yesNo(value)
	case 'A':
		m.AltPath, err = yesNo(value)
	case 'N':
		m.Name = value
		err = CheckName(value)
	case 'X':
		m.Certificate, err = contentHash(value)
	case 'H':
		m.History, err = contentHash(value)
	case 'M':
		m.Metainfo, err = contentHash(value)
	case 'Y':
		m.Reflog, err = contentHash(value)
	case 'T':
		var seconds int64
		if seconds, err = number(value); err == nil && seconds > maxTime {
			err = fmt.Errorf("time %d: %w", seconds, ErrMalformed)
		}
		m.Published = time.Unix(seconds, 0).UTC()
	}
	return err
}

// maxTime is the last second of the year 9999.
const maxTime = 253402300799

func contentHash(text string) (Hash, error) {
	h, err := ParseHash(text)
	if err == nil && h.Algorithm == MD5 {
		err = fmt.Errorf("md5 names no content: %w", ErrMalformed)
	}
	return h, err
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// number reads decimal digits and nothing else.
func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !digits(s) {
		return 0, fmt.Errorf("number %q: %w", clip(s), ErrMalformed)
	}
	return n, nil
}

func yesNo(s string) (bool, error) {
	switch s {
	case "yes":
		return true, nil
	case "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no: %w", clip(s), ErrMalformed)
}

// text returns the fields in the order the original writes them.
func (m *Manifest) text() []byte {
	var b bytes.Buffer
	line := func(letter byte, value string) {
		b.WriteByte(letter)
		b.WriteString(value)
		b.WriteByte('\n')
	}
	optional := func(letter byte, h Hash) {
		if !h.IsZero() {
			line(letter, h.String())
		}
	}
	word := map[bool]string{true: "yes", false: "no"}
	line('C', m.RootHash.String())
	line('B', strconv.FormatInt(m.RootSize, 10))
	line('R', rootPathHash)
	line('D', strconv.FormatInt(int64(m.TTL/time.Second), 10))
	line('S', strconv.FormatUint(m.Revision, 10))
	line('G', word[m.GarbageCollectable])
	line('A', word[m.AltPath])
	line('N', m.Name)
	optional('X', m.Certificate)
	optional('H', m.History)
	if !m.Published.IsZero() {
		line('T', strconv.FormatInt(m.Published.Unix(), 10))
	}
	optional('M', m.Metainfo)
	optional('Y', m.Reflog)
	return b.Bytes()
}

// Sign returns the manifest as it is published, signed with the key of the
// certificate it names. A manifest that a reader would refuse is not signed.
func (m *Manifest) Sign(key *rsa.PrivateKey) ([]byte, error) {
	text := m.text()
	switch parsed, err := parseManifestText(text); {
	case err != nil:
		return nil, fmt.Errorf("signing manifest: %w", err)
	case parsed.Certificate.IsZero():
		return nil, fmt.Errorf("signing manifest: no certificate: %w", ErrMalformed)
	}
	data, err := SignText(text, m.RootHash.Algorithm, key)
	if err != nil {
		return nil, fmt.Errorf("signing manifest: %w", err)
	}
	return data, nil
}

// CheckName tells whether name can be that of a repository: letters, digits and
// "-_.", at most 60 of them, not starting with a dot. The error wraps
// ErrMalformed.
func CheckName(name string) error {
	if name == "" || len(name) > 60 || name[0] == '.' {
		return fmt.Errorf("repository name %q: %w", clip(name), ErrMalformed)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("repository name %q: %w", name, ErrMalformed)
		}
	}
	return nil
}

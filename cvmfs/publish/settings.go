package publish

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/internal/atomicfile"
)

// Settings are how a repository is published, kept beside its keys in the file
// NAME.conf. They are written in the words of the original's server.conf, of
// which they are a part.
type Settings struct {
	Algorithm   cvmfs.Algorithm // 0 if not set
	Compression cvmfs.Compression
	Chunks      ChunkSizes // zero if not set
	NoChunks    bool
	MaxEntries  int // 0 if not set
	NoAutoTag   bool
	TagAge      Age
	TTL         time.Duration // 0 if not set
	NoXattrs    bool
	External    bool // all files are external
}

// serverConf is a server.conf of the original, the last value of each variable.
type serverConf map[string]string

// maxConf bounds a configuration file.
const maxConf = 1 << 20

// parseServerConf reads assignments. Anything else a shell would do is an error,
// as its outcome is not known here.
func parseServerConf(file string, data []byte) (serverConf, error) {
	if len(data) > maxConf {
		return nil, fmt.Errorf("%s: %d bytes: %w", file, len(data), cvmfs.ErrMalformed)
	}
	conf := make(serverConf)
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxConf+1)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		for _, word := range []string{"export ", "readonly "} {
			line = strings.TrimLeft(strings.TrimPrefix(line, word), " \t")
		}
		key, value, ok := strings.Cut(line, "=")
		if ok && isVariable(key) {
			value, ok = unquote(value)
		}
		if !ok || !isVariable(key) {
			return nil, fmt.Errorf("%s line %d: %.80q is no plain assignment: %w", file, number, line, cvmfs.ErrMalformed)
		}
		conf[key] = value
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return conf, nil
}

func isVariable(key string) bool {
	valid := func(c rune) bool {
		return c == '_' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
	}
	return key != "" && (key[0] < '0' || key[0] > '9') && strings.IndexFunc(key, func(c rune) bool { return !valid(c) }) < 0
}

// unquote takes the value of an assignment out of its quotes and drops a comment
// after it. What a shell would expand is refused.
func unquote(text string) (string, bool) {
	rest := ""
	switch {
	case strings.HasPrefix(text, `"`), strings.HasPrefix(text, "'"):
		quote := text[:1]
		value, after, closed := strings.Cut(text[1:], quote)
		if !closed || quote == `"` && strings.ContainsAny(value, "$`\\") {
			return "", false
		}
		text, rest = value, after
	default:
		end := strings.IndexAny(text, " \t#")
		if end >= 0 {
			text, rest = text[:end], text[end:]
		}
		if strings.ContainsAny(text, "$`\\\"';&|<>(){}*?[]~") {
			return "", false
		}
	}
	rest = strings.TrimSpace(rest)
	return text, rest == "" || rest[0] == '#'
}

// on reads a boolean as the original does; a variable that is not set is
// otherwise.
func (c serverConf) on(key string, otherwise bool) (bool, error) {
	switch value := c[key]; strings.ToLower(value) {
	case "":
		return otherwise, nil
	case "yes", "on", "1", "true":
		return true, nil
	case "no", "off", "0", "false":
		return false, nil
	default:
		return false, fmt.Errorf("%s=%q: want true or false: %w", key, value, cvmfs.ErrMalformed)
	}
}

func (c serverConf) number(key string) (int64, error) {
	if c[key] == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(c[key], 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s=%q: want a number: %w", key, c[key], cvmfs.ErrMalformed)
	}
	return n, nil
}

// age reads a span of time that lies in the past. Without "ago" it would be one
// in the future, before which everything is.
func (c serverConf) age(key string) (Age, error) {
	a, err := ParseAge(c[key])
	if err == nil && c[key] != "" && !strings.HasSuffix(strings.ToLower(c[key]), " ago") {
		err = fmt.Errorf("%.80q does not end in \"ago\": %w", c[key], cvmfs.ErrMalformed)
	}
	if err != nil {
		return Age{}, fmt.Errorf("%s: %w", key, err)
	}
	return a, nil
}

// settings takes what a publication goes by.
func (c serverConf) settings() (s Settings, err error) {
	if text := c["CVMFS_HASH_ALGORITHM"]; text != "" {
		if s.Algorithm, err = cvmfs.ParseAlgorithm(text); err != nil {
			return s, fmt.Errorf("CVMFS_HASH_ALGORITHM: %w", err)
		}
	}
	switch text := c["CVMFS_COMPRESSION_ALGORITHM"]; text {
	case "", "default", "zlib":
	case "none":
		s.Compression = cvmfs.Plain
	default:
		return s, fmt.Errorf("CVMFS_COMPRESSION_ALGORITHM=%q: want zlib or none: %w", text, cvmfs.ErrMalformed)
	}
	numbers := make(map[string]int64)
	for _, key := range []string{"CVMFS_MIN_CHUNK_SIZE", "CVMFS_AVG_CHUNK_SIZE", "CVMFS_MAX_CHUNK_SIZE", "CVMFS_AUTOCATALOGS_MAX_WEIGHT", "CVMFS_REPOSITORY_TTL"} {
		if numbers[key], err = c.number(key); err != nil {
			return s, err
		}
	}
	s.Chunks = ChunkSizes{numbers["CVMFS_MIN_CHUNK_SIZE"], numbers["CVMFS_AVG_CHUNK_SIZE"], numbers["CVMFS_MAX_CHUNK_SIZE"]}
	if s.Chunks != (ChunkSizes{}) {
		if err := s.Chunks.check(); err != nil {
			return s, err
		}
	}
	if s.TagAge, err = c.age("CVMFS_AUTO_TAG_TIMESPAN"); err != nil {
		return s, err
	}
	s.TTL = time.Duration(numbers["CVMFS_REPOSITORY_TTL"]) * time.Second
	on := make(map[string]bool)
	for key, otherwise := range map[string]bool{"CVMFS_USE_FILE_CHUNKING": true, "CVMFS_AUTO_TAG": true, "CVMFS_AUTOCATALOGS": false, "CVMFS_INCLUDE_XATTRS": false, "CVMFS_EXTERNAL_DATA": false} {
		if on[key], err = c.on(key, otherwise); err != nil {
			return s, err
		}
	}
	s.NoChunks, s.NoAutoTag, s.NoXattrs = !on["CVMFS_USE_FILE_CHUNKING"], !on["CVMFS_AUTO_TAG"], !on["CVMFS_INCLUDE_XATTRS"]
	s.External = on["CVMFS_EXTERNAL_DATA"]
	s.MaxEntries = -1
	if on["CVMFS_AUTOCATALOGS"] {
		s.MaxEntries = 100000 // the original's default
		if n := numbers["CVMFS_AUTOCATALOGS_MAX_WEIGHT"]; n > 0 {
			s.MaxEntries = int(min(n, 1<<30))
		}
	}
	return s, nil
}

// known are the variables settings come from, and so those that are kept.
func known() []string {
	return []string{
		"CVMFS_HASH_ALGORITHM", "CVMFS_COMPRESSION_ALGORITHM", "CVMFS_MIN_CHUNK_SIZE", "CVMFS_AVG_CHUNK_SIZE", "CVMFS_MAX_CHUNK_SIZE",
		"CVMFS_USE_FILE_CHUNKING", "CVMFS_AUTO_TAG", "CVMFS_AUTO_TAG_TIMESPAN", "CVMFS_AUTOCATALOGS", "CVMFS_AUTOCATALOGS_MAX_WEIGHT", "CVMFS_INCLUDE_XATTRS", "CVMFS_REPOSITORY_TTL",
		"CVMFS_EXTERNAL_DATA",
	}
}

// write keeps the variables that settings come from.
func (c serverConf) write(file string) error {
	var b strings.Builder
	b.WriteString("# How this repository is published, as in a server.conf.\n")
	for _, key := range slices.Sorted(slices.Values(known())) {
		if value := c[key]; value != "" {
			fmt.Fprintf(&b, "%s='%s'\n", key, value)
		}
	}
	return atomicfile.Write(file, []byte(b.String()), 0o644)
}

// LoadSettings reads the settings of a repository; found is false if it has none,
// which is how repositories begin.
func LoadSettings(keys, name string) (s Settings, found bool, err error) {
	file := keyFile(keys, name, "conf")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("reading settings of %q: %w", name, err)
	}
	conf, err := parseServerConf(file, data)
	if err == nil {
		s, err = conf.settings()
	}
	if err != nil {
		return s, false, fmt.Errorf("reading settings of %q: %w", name, err)
	}
	return s, true, nil
}

// Apply makes settings the defaults of a publication: what its options say
// already wins.
func (s Settings) Apply(o *Options) {
	if o.Algorithm == cvmfs.MD5 {
		o.Algorithm = s.Algorithm
	}
	if o.Chunks == (ChunkSizes{}) {
		o.Chunks = s.Chunks
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = s.MaxEntries
	}
	if o.TTL == 0 {
		o.TTL = s.TTL
	}
	if o.TagAge == (Age{}) {
		o.TagAge = s.TagAge
	}
	if s.NoXattrs && o.Xattrs.Allow == nil && o.Xattrs.Deny == nil {
		o.Xattrs.Deny = []string{"*"}
	}
	if s.External && o.External == nil {
		o.External = []string{"/"}
	}
	o.Compression = max(o.Compression, s.Compression)
	o.NoChunks = o.NoChunks || s.NoChunks
	o.NoGenericTag = o.NoGenericTag || s.NoAutoTag
}

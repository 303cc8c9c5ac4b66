package config

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/micavm/mica/cvmfs"
)

// IDMap replaces numbers of users or groups by others.
type IDMap struct {
	IDs  map[uint32]uint32
	Rest *uint32 // for all others; nil leaves them
}

// ReadIDMap reads lines of two numbers, what is replaced and by what; "*" first
// stands for all that no other line names. Errors wrap ErrValue or say why the
// file cannot be read.
//
// Compat: a line of another form is an error (cvmfs: cvmfs/uid_map.h).
func ReadIDMap(file string) (IDMap, error) {
	m := IDMap{IDs: map[uint32]uint32{}}
	data, err := (&reader{Config: &Config{}}).load(file)
	if data == nil && err == nil {
		err = fmt.Errorf("%s: %w", file, fs.ErrNotExist)
	}
	if err != nil {
		return m, err
	}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		from, fromErr := strconv.ParseUint(fields[0], 10, 32)
		var to uint64
		toErr := strconv.ErrSyntax
		if len(fields) == 2 {
			to, toErr = strconv.ParseUint(fields[1], 10, 32)
		}
		switch {
		case toErr == nil && fields[0] == "*":
			rest := uint32(to)
			m.Rest = &rest
		case toErr == nil && fromErr == nil:
			m.IDs[uint32(from)] = uint32(to)
		default:
			return m, fmt.Errorf("%s:%d: %.100q is not two numbers, or * and one: %w", file, number, strings.TrimSpace(line), ErrValue)
		}
	}
	return m, nil
}

func (p *parser) idMap(name string) (m IDMap) {
	file := p.text(name)
	if file == "" {
		return m
	}
	m, err := ReadIDMap(file)
	if err != nil {
		p.bad(name, "is no map: %v", err)
	}
	return m
}

// Blocked is what a computer's blacklist says about one repository.
type Blocked struct {
	Fingerprints []cvmfs.Hash // of certificates that nobody is to trust, of any repository
	MinRevision  uint64       // older ones are not to be shown
}

// blacklistFile is the file below the directory of the configuration.
const blacklistFile = "blacklist"

// Blacklist reads the computer's list of certificates and revisions that are
// not to be trusted: the file blacklist in the directory, or that which
// CVMFS_BLACKLIST names, and that of the configuration repository. Lines are
// fingerprints as in a whitelist, or "<NAME N", which stands for the revisions of
// NAME before N.
//
// Compat: places and form of the blacklist (cvmfs: cvmfs/signature.cc,
// cvmfs/mountpoint.cc).
func (c *Config) Blacklist(dir string) (b Blocked, err error) {
	r := &reader{Config: c}
	files := []string{filepath.Join(dir, blacklistFile)}
	if v := strings.TrimSpace(c.values["CVMFS_BLACKLIST"].Value); v != "" {
		files[0] = v
	}
	if shared := r.repository(); shared != "" {
		files = append(files, filepath.Join(shared, blacklistFile))
	}
	for _, file := range files {
		data, err := r.load(file)
		if err != nil {
			return b, err
		}
		number := 0
		for line := range strings.Lines(string(data)) {
			number++
			if err := b.line(c.Name, line); err != nil {
				return b, fmt.Errorf("%s:%d: %w", file, number, err)
			}
		}
	}
	return b, nil
}

func (b *Blocked) line(name, line string) error {
	line, _, _ = strings.Cut(line, "#")
	line = strings.TrimSpace(line)
	if rest, isRevision := strings.CutPrefix(line, "<"); isRevision {
		fields := strings.Fields(rest)
		if len(fields) != 2 {
			return fmt.Errorf("%.100q is not <NAME REVISION: %w", line, ErrValue)
		}
		n, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return fmt.Errorf("%.100q is not <NAME REVISION: %w", line, ErrValue)
		}
		if fields[0] == name {
			b.MinRevision = max(b.MinRevision, n)
		}
		return nil
	}
	if line == "" {
		return nil
	}
	line, _, _ = strings.Cut(line, " ")
	line, _, _ = strings.Cut(line, "\t")
	h, err := cvmfs.ParseFingerprint(line)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrValue, err)
	}
	b.Fingerprints = append(b.Fingerprints, h)
	return nil
}

// notFollowed are parameters of the original that somebody sets for a reason,
// and that mean nothing here.
var notFollowed = map[string]string{
	"CVMFS_ALIEN_CACHE":            "the cache is Mica's own",
	"CVMFS_AUTHZ_HELPER":           "repositories that only some may read are not supported",
	"CVMFS_CACHE_PRIMARY":          "the cache is on the disk, with memory for when it is full",
	"CVMFS_CATALOG_WATERMARK":      "32 catalogues are open at a time",
	"CVMFS_CPU_AFFINITY":           "set it with taskset",
	"CVMFS_DEBUGLOG":               "use --verbose",
	"CVMFS_DNS_ROAMING":            "the system's name servers are read when they change",
	"CVMFS_ENFORCE_ACLS":           "access control lists are not enforced",
	"CVMFS_HTTP_TRACING":           "no such headers are sent",
	"CVMFS_NFS_SOURCE":             "inodes are stable, but NFS has not been tried",
	"CVMFS_SERVER_CACHE_MODE":      "it is for cvmfs_server",
	"CVMFS_STREAMING_CACHE":        "files are cached",
	"CVMFS_TELEMETRY_SEND":         "nothing is sent",
	"CVMFS_TRACEFILE":              "'mica repo mount --record' tells what is read",
	"CVMFS_USE_SSL_SYSTEM_CA":      "the system's certificate authorities are used in any case",
	"CVMFS_XATTR_PRIVILEGED_GIDS":  "attributes are there for everybody",
	"CVMFS_XATTR_PROTECTED_XATTRS": "attributes are there for everybody",
	"X509_CERT_BUNDLE":             "the system's certificate authorities are used: set SSL_CERT_FILE",
	"X509_CERT_DIR":                "the system's certificate authorities are used: set SSL_CERT_DIR",
}

// NotFollowed says which parameters the files set that mean nothing to this
// client, with the place and what there is instead. Those that are set to no, or
// to nothing, are left out.
func (c *Config) NotFollowed() []string {
	var out []string
	for name, why := range notFollowed {
		v, set := c.values[name]
		on, err := boolean(v)
		if set && (on || err != nil) {
			out = append(out, fmt.Sprintf("%s: %s is not followed: %s", v.Origin, name, why))
		}
	}
	slices.Sort(out)
	return out
}

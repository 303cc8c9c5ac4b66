package config

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// Repository is what the parameters mean for a client.
type Repository struct {
	Name    string
	Servers []string // in order of preference, templates filled in
	Keys    []Key

	Proxies         string // CVMFS_HTTP_PROXY; empty if nothing sets it
	FallbackProxies string
	PACURLs         []string
	GeoOrder        bool
	GeoName         string
	MaxServers      int
	FollowRedirects bool
	ShardProxies    bool
	Indefinite      bool // CVMFS_FAILOVER_INDEFINITELY
	SendInfo        bool
	External        External

	Timeout, TimeoutDirect          time.Duration
	Backoff, BackoffMax             time.Duration
	ProxyResetAfter, HostResetAfter time.Duration // 0 means never
	DNSTimeout                      time.Duration
	Retries, DNSRetries             int
	LowSpeed                        int
	AddressesPerProxy               int
	IPv4Only, PreferIPv6            bool
	Nameserver                      string

	CacheDir string // where an original client keeps its objects; empty if nothing says so
	Quota    int64  // bytes, 0 for no limit
	Tag      string
	Date     time.Time
	RootHash cvmfs.Hash

	ClaimOwnership, WorldReadable bool
	UIDs, GIDs                    IDMap

	// Of a mount.
	Suid, Frozen          bool          // Frozen is CVMFS_AUTO_UPDATE=no
	MaxTTL, KernelTimeout time.Duration // 0 means as usual
	Timed                 bool          // the time of requests is taken (CVMFS_INSTRUMENT_FUSE)
	Files                 uint64        // that may be open at the same time; 0 means as usual
	Unchecked             bool          // modes and owners are shown, and not enforced
	MagicListed           Listing       // where listing attributes names those that no repository stores
}

// Listing says where something is listed.
type Listing string

// The values of CVMFS_MAGIC_XATTRS_VISIBILITY. ListedAsUsual is none of them: the
// configuration does not say.
const (
	ListedAsUsual    Listing = ""
	ListedNever      Listing = "never"
	ListedOnRoot     Listing = "rootonly"
	ListedEverywhere Listing = "always"
)

// External is where the content of external files is.
type External struct {
	Servers                  []string
	Proxies, FallbackProxies string
	MaxServers               int
	Timeout, TimeoutDirect   time.Duration // 0 means as for the repository
}

// Key is a public master key.
type Key struct {
	File        string // known:... for one of the table
	Public      *rsa.PublicKey
	Fingerprint string // SHA-256 of its SubjectPublicKeyInfo, in hexadecimal digits
}

// Repository finds out what the parameters mean. ErrUnknown says that there is
// no server, ErrValue that a parameter is not understood.
func (c *Config) Repository() (Repository, error) {
	r := Repository{Name: c.Name}
	p := parser{c: c}
	r.Servers = p.servers("CVMFS_SERVER_URL")
	if p.err == nil && len(r.Servers) == 0 {
		return r, fmt.Errorf("repository %q: %w", c.Name, ErrUnknown)
	}
	r.Proxies, r.FallbackProxies = p.text("CVMFS_HTTP_PROXY"), p.text("CVMFS_FALLBACK_PROXY")
	r.PACURLs = p.list("CVMFS_PAC_URLS", ";")
	r.GeoOrder, r.GeoName = p.bool("CVMFS_USE_GEOAPI"), p.text("CVMFS_PROXY_TEMPLATE")
	r.MaxServers = p.number("CVMFS_MAX_SERVERS")
	r.FollowRedirects = p.bool("CVMFS_FOLLOW_REDIRECTS")
	r.ShardProxies, r.Indefinite = p.bool("CVMFS_PROXY_SHARD"), p.bool("CVMFS_FAILOVER_INDEFINITELY")
	r.SendInfo = p.bool("CVMFS_SEND_INFO_HEADER")
	r.External = External{
		Servers: p.servers("CVMFS_EXTERNAL_URL"), Proxies: p.text("CVMFS_EXTERNAL_HTTP_PROXY"), FallbackProxies: p.text("CVMFS_EXTERNAL_FALLBACK_PROXY"),
		Timeout: p.seconds("CVMFS_EXTERNAL_TIMEOUT"), TimeoutDirect: p.seconds("CVMFS_EXTERNAL_TIMEOUT_DIRECT"), MaxServers: p.number("CVMFS_EXTERNAL_MAX_SERVERS"),
	}
	r.Timeout, r.TimeoutDirect = p.seconds("CVMFS_TIMEOUT"), p.seconds("CVMFS_TIMEOUT_DIRECT")
	r.Backoff, r.BackoffMax = p.seconds("CVMFS_BACKOFF_INIT"), p.seconds("CVMFS_BACKOFF_MAX")
	r.ProxyResetAfter, r.HostResetAfter = p.seconds("CVMFS_PROXY_RESET_AFTER"), p.seconds("CVMFS_HOST_RESET_AFTER")
	r.DNSTimeout, r.DNSRetries = p.seconds("CVMFS_DNS_TIMEOUT"), p.number("CVMFS_DNS_RETRIES")
	r.Retries, r.LowSpeed = p.number("CVMFS_MAX_RETRIES"), p.number("CVMFS_LOW_SPEED_LIMIT")
	r.AddressesPerProxy = p.number("CVMFS_MAX_IPADDR_PER_PROXY")
	r.IPv4Only = p.text("CVMFS_IPV4_ONLY") != ""
	switch p.text("CVMFS_IPFAMILY_PREFER") {
	case "", "4":
	case "6":
		r.PreferIPv6 = true
	default:
		p.bad("CVMFS_IPFAMILY_PREFER", "is neither 4 nor 6")
	}
	r.Nameserver = p.text("CVMFS_DNS_SERVER")
	r.CacheDir = p.cacheDir()
	if mb, err := strconv.ParseInt(p.text("CVMFS_QUOTA_LIMIT"), 10, 64); err != nil || mb < -1 || mb > 1<<40 {
		p.bad("CVMFS_QUOTA_LIMIT", "is no number of megabytes")
	} else if mb > 0 {
		r.Quota = mb << 20
	}
	r.ClaimOwnership, r.WorldReadable = p.bool("CVMFS_CLAIM_OWNERSHIP"), p.bool("CVMFS_WORLD_READABLE")
	r.UIDs, r.GIDs = p.idMap("CVMFS_UID_MAP"), p.idMap("CVMFS_GID_MAP")
	r.Suid, r.Frozen = p.bool("CVMFS_SUID"), p.text("CVMFS_AUTO_UPDATE") != "" && !p.bool("CVMFS_AUTO_UPDATE")
	r.MaxTTL, r.KernelTimeout = time.Duration(p.number("CVMFS_MAX_TTL"))*time.Minute, p.seconds("CVMFS_KCACHE_TIMEOUT")
	r.Timed = p.bool("CVMFS_INSTRUMENT_FUSE")
	r.Files = uint64(p.number("CVMFS_NFILES")) //nolint:gosec // never negative
	r.Unchecked = p.text("CVMFS_CHECK_PERMISSIONS") != "" && !p.bool("CVMFS_CHECK_PERMISSIONS")
	r.MagicListed = p.listing()
	r.Tag = p.text("CVMFS_REPOSITORY_TAG")
	if text := p.text("CVMFS_REPOSITORY_DATE"); text != "" {
		var err error
		if r.Date, err = time.Parse(time.RFC3339, text); err != nil {
			p.bad("CVMFS_REPOSITORY_DATE", "is %.100q, not a date such as 2026-01-31T12:00:00Z", text)
		}
	}
	if text := p.text("CVMFS_ROOT_HASH"); text != "" {
		h, err := cvmfs.ParseHash(text)
		if err != nil {
			p.bad("CVMFS_ROOT_HASH", "is no hash")
		}
		r.RootHash = h
	}
	if p.err != nil {
		return r, p.err
	}
	var err error
	r.Keys, err = c.keys()
	return r, err
}

// parser reads values and keeps the first mistake.
type parser struct {
	c   *Config
	err error
}

func (p *parser) bad(name, format string, args ...any) {
	if p.err == nil {
		v := p.c.values[name]
		p.err = fmt.Errorf("%s: %s %s: %w", v.Origin, name, fmt.Sprintf(format, args...), ErrValue)
	}
}

func (p *parser) text(name string) string {
	return p.c.Expand(strings.TrimSpace(p.c.values[name].Value))
}

func (p *parser) servers(name string) (list []string) {
	for _, s := range p.list(name, ";,") {
		s = strings.TrimRight(p.c.Expand(s), "/")
		if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file" {
			p.bad(name, "has %q, which is no URL of a server", s)
		}
		list = append(list, s)
	}
	return list
}

func (p *parser) list(name, separators string) []string {
	var out []string
	for item := range strings.FieldsFuncSeq(p.c.values[name].Value, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

func (p *parser) bool(name string) bool {
	on, err := boolean(p.c.values[name])
	if err != nil {
		p.bad(name, "is neither yes nor no")
	}
	return on
}

func (p *parser) number(name string) int {
	text := p.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<30 {
		p.bad(name, "is %.100q, not a number", text)
	}
	return n
}

func (p *parser) seconds(name string) time.Duration {
	return time.Duration(p.number(name)) * time.Second
}

// listing reads the parameter of today and the one of old, which it overrides.
func (p *parser) listing() Listing {
	const today, old = "CVMFS_MAGIC_XATTRS_VISIBILITY", "CVMFS_HIDE_MAGIC_XATTRS"
	where := ListedAsUsual
	switch hidden := p.bool(old); {
	case hidden:
		where = ListedNever
	case p.text(old) != "":
		where = ListedEverywhere
	}
	if text := p.text(today); text != "" {
		where = Listing(strings.ToLower(text))
	}
	switch where {
	case ListedAsUsual, ListedNever, ListedOnRoot, ListedEverywhere:
	default:
		p.bad(today, "is neither never, rootonly nor always")
	}
	return where
}

func boolean(v Value) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(v.Value)) {
	case "yes", "on", "1", "true":
		return true, nil
	case "", "no", "off", "0", "false":
		return false, nil
	}
	return false, ErrValue
}

func (p *parser) cacheDir() string {
	dir, base := p.text("CVMFS_CACHE_DIR"), p.text("CVMFS_CACHE_BASE")
	switch {
	case dir != "" && base != "":
		p.bad("CVMFS_CACHE_DIR", "is set besides CVMFS_CACHE_BASE")
		return ""
	case dir != "" || base == "":
		return dir
	case p.bool("CVMFS_SHARED_CACHE"):
		return filepath.Join(base, "shared")
	}
	return filepath.Join(base, p.c.Name)
}

// keys reads the public keys: the files of CVMFS_PUBLIC_KEY, or else those of
// CVMFS_KEYS_DIR. Compat: CVMFS_PUBLIC_KEY comes first, although a comment in
// the original's default.conf has it the other way round.
func (c *Config) keys() ([]Key, error) {
	var files []string
	if list := strings.TrimSpace(c.values["CVMFS_PUBLIC_KEY"].Value); list != "" {
		for f := range strings.SplitSeq(list, ":") {
			if f = strings.TrimSpace(f); f != "" {
				files = append(files, c.Expand(f))
			}
		}
	} else if dir := c.Expand(strings.TrimSpace(c.values["CVMFS_KEYS_DIR"].Value)); dir != "" {
		var entries []fs.DirEntry
		var err error
		inside, table := strings.CutPrefix(dir, knownPrefix)
		if table {
			entries, err = known.ReadDir(path.Join("known", inside))
		} else {
			entries, err = os.ReadDir(dir)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("public keys: %w", err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".pub") {
				files = append(files, strings.TrimSuffix(dir, "/")+"/"+e.Name())
			}
		}
	}
	var out []Key
	r := &reader{Config: c}
	for _, f := range files {
		data, err := r.load(f)
		if err != nil {
			return nil, fmt.Errorf("public keys: %w", err)
		}
		if data == nil {
			return nil, fmt.Errorf("public key %s: %w", f, fs.ErrNotExist)
		}
		list, err := cvmfs.ParsePublicKeys(data)
		if err != nil {
			return nil, fmt.Errorf("public key %s: %w", f, err)
		}
		for _, k := range list {
			der, err := x509.MarshalPKIXPublicKey(k)
			if err != nil {
				return nil, fmt.Errorf("public key %s: %w", f, err)
			}
			sum := sha256.Sum256(der)
			out = append(out, Key{File: f, Public: k, Fingerprint: hex.EncodeToString(sum[:])})
		}
	}
	return out, nil
}

package usercontext

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// BootKeys are the keys of the boot loader's block with their types. The zero
// value of a field means that the context does not say.
type BootKeys struct {
	ResizeRootfs  *bool         // false: scratch partition of at most 20 GiB
	UseBootHD     *bool         // true: scratch space on the boot disk
	HTTPProxy     string        // CVMFS_HTTP_PROXY syntax
	PACURLs       string        // list of URLs, ";" between
	Servers       []string      // host names; overrides the content delivery network
	CDN           []string      // host names; nil when not given or NONE
	NoCDN         bool          // cvmfs_cdn=NONE was written
	Branch        string        // repository name
	Tag           string        // snapshot name
	Path          string        // directory in the repository that becomes the root
	WaitOnSquid   time.Duration // 0 = do not wait for a proxy
	Inject        []byte        // tar.gz to unpack at the root of the OS once
	UseGlideinWMS bool          // read the pilot's options; true unless switched off
	ClusterPin    string
	ServiceURL    string // of the cluster pairing
	ClusterMaster bool
	SwapSize      string // size as fallocate takes it, or auto
}

// BootKey is one key of the block.
type BootKey struct {
	Name string
	Kind string // bool, proxy, list, name, path, seconds, tar, url, text
	Text string // what it does, for the reference
	// Ignored says why Mica does nothing with a key that an original CernVM reads.
	Ignored string
	Dead    string // why nothing reads it; "" for a live key
	Use     string // the key that was meant, for a dead one
}

// BootKeyTable lists every key the boot loader knows, and those that are often
// written although nothing reads them.
func BootKeyTable() []BootKey {
	return []BootKey{
		{Name: "cernvm_inject", Kind: "tar", Text: "base64 of a tar.gz that is unpacked once at the root of the operating system"},
		{Name: "cernvm_path", Kind: "path", Text: "directory of the repository that becomes the root, such as cvm4"},
		{Name: "cvm_cluster_master", Kind: "bool", Text: "this machine is the head of its cluster"},
		{Name: "cvm_cluster_pin", Kind: "text", Text: "pin under which the machines of a cluster find each other"},
		{Name: "cvm_service_url", Kind: "url", Text: "where cluster pins are kept; the service that CernVM ran is gone, so name your own"},
		{Name: "cvmfs_branch", Kind: "name", Text: "repository that holds the operating system"},
		{Name: "cvmfs_cdn", Kind: "list", Text: "host names of a content delivery network, or NONE; takes precedence over cvmfs_server"},
		{Name: "cvmfs_http_proxy", Kind: "proxy", Text: "proxies for all downloads, in the syntax of CVMFS_HTTP_PROXY; also for the repositories mounted later"},
		{Name: "cvmfs_pac_urls", Kind: "text", Text: "where proxy auto-configuration is looked for, \";\" between", Ignored: "proxies are named in cvmfs_http_proxy"},
		{Name: "cvmfs_server", Kind: "list", Text: "host names of the servers that hold the repository"},
		{Name: "cvmfs_tag", Kind: "name", Text: "named snapshot of the repository; ignored once the disk has one"},
		{Name: "cvmfs_wait_on_squid", Kind: "seconds", Text: "wait until a proxy answers, trying each for so many seconds"},
		{Name: "resize_rootfs", Kind: "bool", Text: "off limits the scratch partition to 20 GiB; anything else uses the whole disk"},
		{Name: "swap_size", Kind: "text", Text: "size of a swap file on the scratch partition, or auto"},
		{Name: "use_boothd", Kind: "bool", Text: "on puts the scratch partition on the boot disk"},
		{Name: "useglideinwms", Kind: "bool", Text: "off ignores the options of a glideinWMS pilot", Ignored: "the options of a pilot are read wherever they are"},
		{Name: "cvmfs_path", Kind: "path", Dead: "no boot loader ever read it", Use: "cernvm_path"},
		{Name: "cvmfs_proxy", Kind: "proxy", Dead: "this is the kernel command line's name", Use: "cvmfs_http_proxy"},
		{Name: "cvmfs_repos", Kind: "name", Dead: "this is the kernel command line's name", Use: "cvmfs_branch"},
	}
}

// BootKeys gives the block's keys their types, with a Problem for each value that
// does not fit. A key with a bad value counts as not given.
func (b Block) BootKeys() (BootKeys, []Problem) {
	r := keyReader{block: b}
	k := BootKeys{
		ResizeRootfs:  r.boolean("resize_rootfs"),
		UseBootHD:     r.boolean("use_boothd"),
		HTTPProxy:     b.Keys["cvmfs_http_proxy"],
		PACURLs:       b.Keys["cvmfs_pac_urls"],
		Servers:       r.list("cvmfs_server"),
		Branch:        b.Keys["cvmfs_branch"],
		Tag:           b.Keys["cvmfs_tag"],
		Path:          strings.Trim(b.Keys["cernvm_path"], "/"),
		WaitOnSquid:   r.seconds("cvmfs_wait_on_squid"),
		Inject:        r.inject("cernvm_inject"),
		UseGlideinWMS: true,
		ClusterPin:    b.Keys["cvm_cluster_pin"],
		ServiceURL:    b.Keys["cvm_service_url"],
		SwapSize:      b.Keys["swap_size"],
	}
	if v := r.boolean("useglideinwms"); v != nil {
		k.UseGlideinWMS = *v
	}
	if v := r.boolean("cvm_cluster_master"); v != nil {
		k.ClusterMaster = *v
	}
	if strings.EqualFold(b.Keys["cvmfs_cdn"], "none") {
		k.NoCDN = true
	} else {
		k.CDN = r.list("cvmfs_cdn")
	}
	return k, r.problems
}

type keyReader struct {
	block    Block
	problems []Problem
}

func (r *keyReader) bad(rule, key, text, remedy string) {
	p := Problem{Rule: rule, Severity: Error, Text: text, Remedy: remedy}
	for _, s := range r.block.Settings {
		if s.Key == key {
			p.Line, p.Column = s.Line, s.ValueColumn
		}
	}
	r.problems = append(r.problems, p)
}

func (r *keyReader) boolean(key string) *bool {
	v, ok := r.block.Keys[key]
	if !ok {
		return nil
	}
	yes := false
	switch booleanWord(v) {
	case "1":
		yes = true
	case "0":
	default:
		r.bad("U005", key, fmt.Sprintf("%s wants on or off, not %q", key, v), "write on or off")
		return nil
	}
	return &yes
}

func (r *keyReader) list(key string) []string {
	var items []string
	for item := range strings.SplitSeq(r.block.Keys[key], ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func (r *keyReader) seconds(key string) time.Duration {
	v, ok := r.block.Keys[key]
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > 3600 {
		r.bad("U005", key, fmt.Sprintf("%s wants a number of seconds up to 3600, not %q", key, v), "")
		return 0
	}
	return time.Duration(n) * time.Second
}

func (r *keyReader) inject(key string) []byte {
	v, ok := r.block.Keys[key]
	if !ok || v == "" {
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(v)
	switch {
	case err != nil:
		r.bad("U006", key, key+" is not base64", "use base64 without line breaks")
		return nil
	case !bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		r.bad("U006", key, key+" is not a gzip-compressed tar file", "make it with tar -cz")
		return nil
	}
	return data
}

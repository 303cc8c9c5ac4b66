package mount

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/client"
)

const (
	pageSize     = 40000    // Compat: cvmfs/magic_xattr.h
	maxAttribute = 64 << 10 // what the kernel lets through (linux/limits.h)
	chunkHeader  = "hash,offset,size\n"
)

// magicValue computes an attribute by its name, or a page of it. ok is false if
// there is none.
//
// Compat: NAME~N is page N of a long value, NAME@N the same with a heading, and
// NAME~? the number of pages (cvmfs: cvmfs/magic_xattr.cc). Differs: the name
// alone is the whole value as long as the kernel lets it through, and a page ends
// before the limit instead of behind it.
func (f *fileSystem) magicValue(ctx ctx, name, path string, e catalog.Entry) (value string, ok bool, err error) {
	page := ""
	a, ok := magicAttributes[name]
	i := strings.LastIndexAny(name, "~@")
	if !ok && i >= 0 {
		page = name[i:]
		a, ok = magicAttributes[name[:i]]
	}
	if !ok || !a.applies(f, e) {
		return "", false, nil
	}
	value, err = a.value(f, ctx, path, e)
	if err != nil {
		return "", false, err
	}
	if page == "" && len(value) <= maxAttribute {
		return value, true, nil
	}
	list := pages(value)
	switch page {
	case "":
		return list[0], true, nil
	case "~?", "@?":
		return fmt.Sprintf("num_pages, %d", len(list)), true, nil
	}
	n, err := strconv.ParseUint(page[1:], 10, 31)
	if err != nil || n >= uint64(len(list)) {
		return "", false, nil
	}
	if page[0] == '~' {
		return list[n], true, nil
	}
	return fmt.Sprintf("# page %d of %d; %s~N is page N, from 0 on\n", n, len(list), name[:i]) + list[n], true, nil
}

// pages divides a long value between lines. A list of chunks has its heading on
// each page.
func pages(value string) []string {
	heading := ""
	if strings.HasPrefix(value, chunkHeader) {
		heading, value = chunkHeader, value[len(chunkHeader):]
	}
	var list []string
	page := heading
	for line := range strings.Lines(value) {
		if len(page)+len(line) > pageSize && len(page) > len(heading) {
			list = append(list, page)
			page = heading
		}
		page += line
	}
	return append(list, page)
}

// magicOptions are those of Options that the magic attributes need.
type magicOptions struct {
	visible   Visibility
	logBuffer *LogBuffer
}

// Visibility says where listing the attributes of something names the magic ones.
// Whoever asks for one by its name gets it in any case.
type Visibility int

// Differs: the original lists its magic attributes on the mount's root by default
// (cvmfs: cvmfs/magic_xattr.cc), and a copy-up of overlayfs would then write them to
// the disk; here they are listed only where CVMFS_MAGIC_XATTRS_VISIBILITY or
// CVMFS_HIDE_MAGIC_XATTRS ask for it.
const (
	Hidden     Visibility = iota
	RootOnly              // on the root of the mount
	Everywhere            // on everything
)

// magicNames are the magic attributes that a listing names.
func (f *fileSystem) magicNames(path string, e catalog.Entry) (names []string) {
	if f.visible == Hidden || f.visible == RootOnly && path != "" {
		return nil
	}
	for name, a := range magicAttributes {
		if a.applies(f, e) {
			names = append(names, name)
		}
	}
	return names
}

// externalHost is the server of external files, "" if there is none.
func externalHost(f *fileSystem) string {
	servers, active := f.r.ExternalLink().Servers()
	if len(servers) == 0 {
		return ""
	}
	return client.Masked(servers[active])
}

// proxyList has one proxy a line.
func proxyList(l client.Link) string {
	groups, _, _ := l.Proxies()
	var b strings.Builder
	for _, p := range slices.Concat(groups...) {
		b.WriteString(p + "\n")
	}
	return client.Masked(b.String())
}

func publicKeys(f *fileSystem, _ ctx, _ string, _ catalog.Entry) (string, error) {
	var b strings.Builder
	for _, k := range f.r.Keys() {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return "", err
		}
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	return b.String(), nil
}

// counterList adds what a catalogue counts itself to what those below it do.
// Compat: cvmfs/catalog_counters_impl.h, GetCsvMap.
func counterList(counters map[string]int64) string {
	total := map[string]int64{}
	for name, n := range counters {
		_, kind, _ := strings.Cut(name, "_")
		total[kind] += n
	}
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(total)) {
		fmt.Fprintf(&b, "%s,%d\n", kind, total[kind])
	}
	return b.String()
}

// hitRate is the share of objects that were in the cache, in per cent.
func hitRate(s client.Stats) string {
	all := s.CacheHits + s.Objects + s.Sliced
	if all == 0 {
		return "n/a"
	}
	return strconv.FormatFloat(100*(1-float64(s.Objects)/float64(all)), 'f', 3, 64)
}

// speed is in kibibytes a second of downloading.
func speed(s client.Stats) string {
	ms := s.Transfer.Milliseconds()
	if ms == 0 {
		return "n/a"
	}
	return decimal(s.Bytes / 1024 * 1000 / ms)
}

func maxFiles() string {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return ""
	}
	return decimal(limit.Cur)
}

func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

func decimal[N int | int64 | uint64](n N) string {
	if n >= 0 {
		return strconv.FormatUint(uint64(n), 10)
	}
	return strconv.FormatInt(int64(n), 10)
}

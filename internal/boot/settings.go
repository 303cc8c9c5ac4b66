package boot

import (
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/micavm/mica/internal/boot/cmdline"
	"github.com/micavm/mica/internal/usercontext"
)

// Settings say which repository a machine boots from and how it is reached.
type Settings struct {
	Repository string
	Servers    []string // base URLs
	Proxies    string   // grammar of CVMFS_HTTP_PROXY
	Tag        string
	RootHash   string // pinned on an earlier boot
	Path       string // folder of the repository that is the operating system, without slashes at its ends
	Wait       time.Duration
	Fresh      bool // no snapshot is pinned yet
}

// Defaults of the original, for a command line that says nothing.
//
// Differs: the proxy default is DIRECT. The original's "auto;DIRECT" asks four
// well-known names for a JavaScript program; this boot code runs none.
const (
	defaultRepository = "cernvm-devel.cern.ch"
	defaultServer     = "hepvm.cern.ch"
	defaultProxy      = "DIRECT"
)

// Pin is the snapshot that a machine stays on (UROOT/aux/cvmfs_snapshot), and
// the tag that an update or a rollback asks for (aux/cvmfs_force_tag).
type Pin struct {
	RootHash string
	Tag      string
	Force    string
}

// resolve combines the command line, the context and the pinned snapshot, each
// stronger than the one before. The notes say what was set aside.
//
// Compat: cernvm-micro: scripts.d/14cvmfs, with its rule that a proxy or a server
// given by the context switches the content delivery network off.
func resolve(cmd cmdline.Line, keys usercontext.BootKeys, pin Pin) (Settings, []string, error) {
	var notes []string
	set := Settings{Repository: defaultRepository, Proxies: defaultProxy}
	servers, cdn := []string{defaultServer}, []string(nil)
	url := ""
	word := func(key string, into *string) {
		if value, ok := cmd.Get(key); ok && value != "" {
			*into = value
		}
	}
	word("cvmfs_repos", &set.Repository)
	word("cvmfs_proxy", &set.Proxies)
	word("cvmfs_repository_tag", &set.Tag)
	word("cernvm_path", &set.Path)
	word("cvmfs_url", &url)
	if value, ok := cmd.Get("cvmfs_server"); ok && value != "" {
		servers = list(value)
	}
	if value, ok := cmd.Get("cvmfs_cdn"); ok && value != "" {
		cdn = list(value)
	}

	if keys.HTTPProxy != "" {
		set.Proxies, cdn = keys.HTTPProxy, nil
	}
	if len(keys.Servers) > 0 {
		servers, cdn, url = keys.Servers, nil, ""
	}
	if keys.NoCDN {
		cdn = nil
	}
	if len(keys.CDN) > 0 {
		cdn = keys.CDN
	}
	if keys.Branch != "" {
		set.Repository = keys.Branch
	}
	if keys.Tag != "" {
		set.Tag = keys.Tag
	}
	if keys.Path != "" {
		set.Path = keys.Path
	}
	set.Wait = keys.WaitOnSquid

	if err := checkRepository(set.Repository); err != nil {
		return Settings{}, notes, err
	}
	set.Path = strings.Trim(path.Clean("/"+set.Path), "/")
	if strings.ContainsAny(set.Path, ":,\\\"\n") {
		return Settings{}, notes, fmt.Errorf("folder %q of the repository cannot be the lower side of an overlay", set.Path)
	}
	switch {
	case url != "":
		set.Servers = strings.FieldsFunc(url, func(r rune) bool { return r == ';' || r == ',' })
		for i, u := range set.Servers {
			set.Servers[i] = strings.ReplaceAll(u, "@fqrn@", set.Repository)
		}
	case len(cdn) > 0 && !strings.EqualFold(cdn[0], "none"):
		set.Servers = urls(cdn, set.Repository)
	default:
		set.Servers = urls(servers, set.Repository)
	}
	proxies, dropped := withoutAuto(set.Proxies)
	set.Proxies = proxies
	if dropped {
		notes = append(notes, `proxy "auto" is not looked up at boot; the other proxies are used`)
	}

	switch {
	case pin.Force != "":
		set.Fresh, set.Tag = true, pin.Force
	case pin.RootHash != "":
		if set.Tag != "" && pin.Tag != set.Tag {
			notes = append(notes, fmt.Sprintf("tag %q is set aside: the disk is pinned to a snapshot of %q", set.Tag, pin.Tag))
		}
		set.RootHash, set.Tag = pin.RootHash, pin.Tag
	default:
		set.Fresh = true
	}
	return set, notes, nil
}

// list splits host names at commas and semicolons.
//
// Differs: the original split at commas only, although its own lists mixed both.
func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' || r == ' ' })
}

// urls makes base URLs of host names, which may carry a port, or a scheme of
// their own.
func urls(hosts []string, repository string) []string {
	var out []string
	for _, host := range hosts {
		for _, h := range list(host) {
			if strings.Contains(h, "://") {
				if !strings.Contains(strings.SplitN(h, "://", 2)[1], "/") {
					h += "/cvmfs/" + repository
				}
				out = append(out, strings.ReplaceAll(h, "@fqrn@", repository))
				continue
			}
			out = append(out, "http://"+h+"/cvmfs/"+repository)
		}
	}
	return out
}

// withoutAuto removes the element "auto" from a proxy list.
func withoutAuto(proxies string) (string, bool) {
	dropped := false
	var groups []string
	for _, group := range strings.Split(proxies, ";") {
		var members []string
		for _, p := range strings.Split(group, "|") {
			if p = strings.TrimSpace(p); strings.EqualFold(p, "auto") {
				dropped = true
			} else if p != "" {
				members = append(members, p)
			}
		}
		if len(members) > 0 {
			groups = append(groups, strings.Join(members, "|"))
		}
	}
	if len(groups) == 0 {
		return defaultProxy, dropped
	}
	return strings.Join(groups, ";"), dropped
}

// checkRepository refuses names that would become odd paths: the name is part of
// file names on UROOT and in the image.
func checkRepository(name string) error {
	if name == "" || len(name) > 128 || name[0] == '.' || name[0] == '-' {
		return fmt.Errorf("repository name %q is not one", name)
	}
	for _, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return fmt.Errorf("repository name %q has the character %q", name, c)
		}
	}
	return nil
}

// readPin reads the pinned snapshot. Missing files are an empty pin.
//
// Compat: the hash is the first line, the tag the last.
func readPin(aux string) (Pin, error) {
	var p Pin
	data, err := os.ReadFile(path.Join(aux, "cvmfs_snapshot"))
	if err == nil {
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		p.RootHash = strings.TrimSpace(lines[0])
		if len(lines) > 1 {
			p.Tag = strings.TrimSpace(lines[len(lines)-1])
		}
	} else if !os.IsNotExist(err) {
		return p, fmt.Errorf("reading the pinned snapshot: %w", err)
	}
	data, err = os.ReadFile(path.Join(aux, "cvmfs_force_tag"))
	if err == nil {
		p.Force = strings.TrimSpace(string(data))
	} else if !os.IsNotExist(err) {
		return p, fmt.Errorf("reading the tag to boot: %w", err)
	}
	return p, nil
}

// quota is how much of UROOT the cache may take: a quarter, but at least the
// original's 2000 MB; half of a small disk.
//
// Differs: the original stopped at 2000 MB, too little for a desktop.
func quota(size int64) int64 {
	const mb = 1000 * 1000
	if size <= 4000*mb {
		return size / 2
	}
	return max(2000*mb, size/4)
}

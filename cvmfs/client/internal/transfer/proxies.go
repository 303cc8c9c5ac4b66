package transfer

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Direct is the item of a proxy list that means no proxy.
const Direct = "DIRECT"

// auto is the group of a proxy list that has to be discovered.
const auto = "auto"

// proxy is one way to a server; a nil URL is the direct one.
type proxy struct {
	name   string    // as given, where url has an address
	url    *url.URL  // never changed
	burned time.Time // when it failed; zero while it is good
}

func (p *proxy) String() string {
	if p.url == nil {
		return Direct
	}
	return p.url.String()
}

// parseProxies reads the grammar of CVMFS_HTTP_PROXY: groups divided by ';' in
// the order of fail-over, items of a group divided by '|'. A group is either
// auto alone, or has URLs of proxies and Direct.
//
// Differs: blanks around items are dropped; the original refuses them.
func parseProxies(list string) ([][]string, error) {
	var groups [][]string
	for group := range strings.SplitSeq(list, ";") {
		group = strings.TrimSpace(group)
		if group == auto {
			groups = append(groups, []string{auto})
			continue
		}
		var items []string
		for item := range strings.SplitSeq(group, "|") {
			item = strings.TrimSpace(item)
			switch {
			case item == "":
				continue
			case item == auto:
				return nil, fmt.Errorf("proxy list %q: auto must be a group of its own", Masked(list))
			case item == Direct:
			case !strings.Contains(item, "://"):
				item = "http://" + item
			}
			if item != Direct {
				u, err := url.Parse(item)
				if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
					return nil, fmt.Errorf("proxy list %q: %q is not a proxy", Masked(list), Masked(item))
				}
			}
			items = append(items, item)
		}
		if len(items) > 0 {
			groups = append(groups, items)
		}
	}
	return groups, nil
}

// without returns the groups less the items that are drop, and less the groups
// that then are empty.
func without(groups [][]string, drop string) [][]string {
	var out [][]string
	for _, g := range groups {
		g = slices.DeleteFunc(slices.Clone(g), func(item string) bool { return item == drop })
		if len(g) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// chain makes the list of groups that a configuration asks for. Those from index
// fallback on are the proxies to fall back to. Groups auto stay where a script
// may still be asked for them.
//
// Differs: an empty list is the same as DIRECT; the original refuses it.
func chain(cfg Config) (groups [][]string, fallback int, err error) {
	regular, spare, err := readLists(cfg)
	if err != nil {
		return nil, 0, err
	}
	if len(regular)+len(spare) == 0 && strings.TrimSpace(cfg.Proxies) != "" {
		cfg.Log.Warn("no usable proxy in the list, going direct", "proxies", Masked(cfg.Proxies))
	}
	groups, fallback = join(regular, spare)
	return groups, fallback, nil
}

// readLists reads the two lists of proxies of a configuration.
func readLists(cfg Config) (regular, spare [][]string, err error) {
	given, err := parseProxies(cfg.Proxies)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range given {
		switch {
		case g[0] != auto:
			regular = append(regular, g)
		case cfg.Environment != "":
			found, err := parseProxies(cfg.Environment)
			if err != nil {
				return nil, nil, fmt.Errorf("http_proxy: %w", err)
			}
			regular = append(regular, without(found, auto)...)
		case cfg.EvaluatePAC != nil && len(cfg.PACURLs) > 0:
			regular = append(regular, g)
		default:
			cfg.Log.Warn("no proxy discovered for auto", "remedy", "set http_proxy or name the proxies")
		}
	}
	if spare, err = parseProxies(cfg.FallbackProxies); err != nil {
		return nil, nil, err
	}
	return regular, without(without(spare, auto), Direct), nil
}

// join puts the groups to fall back to behind the others. Compat: whoever has
// some never goes direct (cvmfs: DownloadManager::SetProxyChain).
func join(groups, spare [][]string) (all [][]string, fallback int) {
	if len(spare) > 0 {
		groups = without(groups, Direct)
	}
	if len(groups)+len(spare) == 0 {
		groups = [][]string{{Direct}}
	}
	return append(slices.Clip(groups), spare...), len(groups)
}

func parseProxy(item string) (*proxy, error) {
	if item == Direct {
		return &proxy{}, nil
	}
	u, err := url.Parse(item)
	if err != nil {
		return nil, fmt.Errorf("proxy %q: %w", Masked(item), cause(err))
	}
	return &proxy{name: u.Hostname(), url: u}, nil
}

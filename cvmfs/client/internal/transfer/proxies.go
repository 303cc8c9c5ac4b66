package transfer

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"
)

// Direct is the item of a proxy list that means no proxy.
const Direct = "DIRECT"

// proxy is one way to a server; a nil URL is the direct one.
type proxy struct {
	url    *url.URL
	burned time.Time // when it failed; zero while it is good
}

func (p *proxy) String() string {
	if p.url == nil {
		return Direct
	}
	return p.url.String()
}

// ParseProxies reads the grammar of CVMFS_HTTP_PROXY: groups divided by ';' in
// the order of fail-over, items of a group divided by '|'. environment is the
// value of http_proxy, which stands in for a group "auto".
//
// Differs: blanks around items are dropped, and an empty list is the same as
// DIRECT; the original refuses both.
func ParseProxies(list, environment string, log *slog.Logger) ([][]string, error) {
	var groups [][]string
	for group := range strings.SplitSeq(list, ";") {
		group = strings.TrimSpace(group)
		if group == "auto" {
			if environment == "" {
				log.Warn("no proxy discovered for auto", "remedy", "set http_proxy or name the proxies")
				continue
			}
			found, err := ParseProxies(strings.ReplaceAll(environment, "auto", ""), "", log)
			if err != nil {
				return nil, fmt.Errorf("http_proxy: %w", err)
			}
			groups = append(groups, found...)
			continue
		}
		var items []string
		for item := range strings.SplitSeq(group, "|") {
			item = strings.TrimSpace(item)
			switch {
			case item == "":
				continue
			case item == "auto":
				return nil, fmt.Errorf("proxy list %q: auto must be a group of its own", list)
			case item == Direct:
			case !strings.Contains(item, "://"):
				item = "http://" + item
			}
			if item != Direct {
				u, err := url.Parse(item)
				if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
					return nil, fmt.Errorf("proxy list %q: %q is not a proxy", list, item)
				}
			}
			items = append(items, item)
		}
		if len(items) > 0 {
			groups = append(groups, items)
		}
	}
	if len(groups) == 0 {
		if strings.TrimSpace(list) != "" {
			log.Warn("no usable proxy in the list, going direct", "proxies", list)
		}
		groups = [][]string{{Direct}}
	}
	return groups, nil
}

// makeProxies turns parsed groups into state, each group in random order so that
// clients spread over its members.
func makeProxies(groups [][]string, shuffle func(n int, swap func(i, j int))) ([][]*proxy, error) {
	if shuffle == nil {
		shuffle = rand.Shuffle
	}
	out := make([][]*proxy, 0, len(groups))
	for _, items := range groups {
		var group []*proxy
		for _, item := range items {
			p := &proxy{}
			if item != Direct {
				u, err := url.Parse(item)
				if err != nil {
					return nil, fmt.Errorf("proxy %q: %w", item, err)
				}
				p.url = u
			}
			group = append(group, p)
		}
		shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		out = append(out, group)
	}
	return out, nil
}

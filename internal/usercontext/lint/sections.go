package lint

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

// plugin returns the plugin of that name.
func (k *checker) plugin(name string) (plugins.Plugin, bool) {
	for _, p := range k.plugins {
		if p.Name == name {
			return p, true
		}
	}
	return plugins.Plugin{}, false
}

func (k *checker) pluginNames() []string {
	var names []string
	for _, p := range k.plugins {
		names = append(names, p.Name)
	}
	return names
}

// renamed are names people write for something that has another one.
func renamed() map[string]string {
	return map[string]string{"ldap": "amildap", "disablesshpasswordauth": "disablesshpasswdauth", "vaf": "vaf-setup", "elastiq": "elastiq-setup", "sshkeys": "rootsshkeys"}
}

// enabled returns the plugins that the context has run.
func (k *checker) enabled() map[string]bool {
	on := map[string]bool{}
	for _, name := range usercontext.EnabledPlugins(k.sections) {
		on[name] = true
	}
	return on
}

// checkPlugins judges the section [amiconfig].
func (k *checker) checkPlugins() {
	options, _ := k.sections.Section("amiconfig")
	for _, o := range options {
		switch o.Key {
		case "plugins", "disabled_plugins", "disabed_plugins":
			if o.Key == "disabed_plugins" {
				k.add("I004", o.Line, 1, "write disabled_plugins", "disabed_plugins is a misprint of the original's documentation")
			}
			if strings.Contains(o.Value, ",") {
				k.add("I003", o.Line, o.ValueColumn, "write blanks between the names", "the list in %s has commas: an original CernVM takes it for one name, and runs nothing", o.Key)
			}
			for _, name := range usercontext.PluginNames(o.Value) {
				k.checkPluginName(o, name)
			}
		default:
			k.add("I004", o.Line, 1, meant(nearest(o.Key, []string{"plugins", "disabled_plugins"})), "section [amiconfig] has no option %s", o.Key)
		}
	}
}

func (k *checker) checkPluginName(o usercontext.Option, name string) {
	if _, ok := k.plugin(name); ok {
		return
	}
	column := o.ValueColumn + max(0, strings.Index(strings.ToLower(o.RawValue), name))
	switch {
	case slices.Contains(usercontext.ObsoletePlugins(), name):
		k.addAs(warning, "I003", o.Line, column, "remove it", "the plugin %s belongs to older images and does nothing", name)
	case renamed()[name] != "":
		k.add("I003", o.Line, column, "write "+renamed()[name], "there is no plugin %s", name)
	default:
		k.add("I003", o.Line, column, meant(nearest(name, k.pluginNames())), "there is no plugin %q", name)
	}
}

// checkSections judges headers and options of every other section.
func (k *checker) checkSections() {
	on := k.enabled()
	seen := map[string]int{}
	for _, h := range k.sections.Headers {
		if strings.HasPrefix(h.Name, "ucernvm-") {
			continue
		}
		if first := seen[h.Name]; first != 0 {
			k.add("I006", h.Line, 1, "put the options into the first one", "section [%s] is there already, in line %d; where both have an option, this one counts", h.Name, first)
			continue
		}
		seen[h.Name] = h.Line
		k.checkHeader(h, on)
	}
	for _, p := range k.plugins {
		_, has := k.sections.Section(p.Name)
		required := slices.ContainsFunc(p.Keys, func(key plugins.Key) bool { return key.Required })
		if on[p.Name] && !has && required {
			line := 0
			for _, o := range k.sections.Options {
				if o.Section == "amiconfig" && o.Key == "plugins" {
					line = o.Line
				}
			}
			k.add("I002", line, 1, "", "the plugin %s is enabled, but there is no section [%s]", p.Name, p.Name)
		}
	}
	last := map[string]usercontext.Option{}
	for _, o := range k.sections.Options {
		if strings.HasPrefix(o.Section, "ucernvm-") {
			continue
		}
		id := o.Section + "\x00" + o.Key
		if before, twice := last[id]; twice {
			k.add("I006", o.Line, 1, "remove one of them", "%s is there already, in line %d; this one counts", o.Key, before.Line)
		}
		last[id] = o
		k.checkOption(o)
	}
}

func (k *checker) checkHeader(h usercontext.Header, on map[string]bool) {
	name := strings.ToLower(strings.TrimSpace(h.Name))
	_, known := k.plugin(h.Name)
	switch {
	case h.Name == "amiconfig":
	case known && on[h.Name]:
	case known:
		k.add("I002", h.Line, 1, "add it to plugins= in [amiconfig]", "the plugin %s is not enabled, so this section has no effect", h.Name)
	case renamed()[name] != "":
		k.add("I001", h.Line, 1, "write ["+renamed()[name]+"]", "nothing reads a section [%s]", h.Name)
	case slices.Contains(usercontext.ObsoletePlugins(), h.Name):
		k.add("I002", h.Line, 1, "remove it", "section [%s] belongs to older images and has no effect", h.Name)
	case h.Name == "DEFAULT":
		k.add("I002", h.Line, 1, "write the options where they belong", "options of [DEFAULT] are not inherited")
	default:
		if near := nearest(name, append(k.pluginNames(), "amiconfig", "ucernvm-begin", "ucernvm-end")); near != "" {
			k.add("I001", h.Line, 1, "write ["+near+"]", "nothing reads a section [%s]", h.Name)
		} else if name != "end" {
			k.add("I002", h.Line, 1, "", "nothing reads a section [%s]", h.Name)
		}
	}
}

// checkOption judges one option line.
func (k *checker) checkOption(o usercontext.Option) {
	raw := strings.TrimRight(o.RawValue, " \t\r")
	p, known := k.plugin(o.Section)
	key, found := lookup(p, o.Key)
	secret := key.Secret
	switch {
	case raw != o.Value && raw != `""`:
		k.add("I007", o.Line, o.ValueColumn, "remove the blank before \";\"", "the value of %s ends before \";\"", o.Key)
	case strings.Contains(raw, " #") && !secret:
		k.add("I007", o.Line, o.ValueColumn+strings.Index(raw, " #")+1, "put the comment on a line of its own", "\"#\" does not start a comment here, it is part of the value of %s", o.Key)
	case strings.Contains(raw, "%("):
		k.add("I007", o.Line, o.ValueColumn, "", "\"%%(\" in %s stays as it is: nothing is filled in", o.Key)
	}
	if !known || len(p.Keys) == 0 && p.Does == "" {
		return
	}
	if !found {
		k.unknownOption(p, o)
		return
	}
	if key.NoEffect {
		k.add("I009", o.Line, 1, "remove it", "%s has no effect: %s", o.Key, key.Meaning)
	}
	if o.Value == "" {
		if key.Required {
			k.add("I008", o.Line, o.ValueColumn, "", "%s is empty, and [%s] does nothing without it", o.Key, o.Section)
		}
		return
	}
	if why := mismatch(key, o.Value); why != "" && o.Key != "eos-server" { // which has a rule of its own
		k.add("I008", o.Line, o.ValueColumn, "", "%s %s", o.Key, why)
	}
	if key.Kind == plugins.List {
		k.checkList(o)
	}
	if secret && key.Kind != plugins.Users && o.Key != "contextualization_key" {
		k.add("C001", o.Line, o.ValueColumn, "hand it over by another way than the context", "%s is in clear text", o.Key)
	}
}

// lookup finds a key of a plugin; keys whose name ends in * stand for many.
func lookup(p plugins.Plugin, name string) (plugins.Key, bool) {
	for _, key := range p.Keys {
		if prefix, many := strings.CutSuffix(key.Name, "*"); strings.EqualFold(key.Name, name) || many && strings.HasPrefix(name, strings.ToLower(prefix)) {
			return key, true
		}
	}
	return plugins.Key{}, false
}

func (k *checker) unknownOption(p plugins.Plugin, o usercontext.Option) {
	aliases := map[string]string{"nss.password": "passwd", "cernvm.user": "users", "cernvm.organization": "organisations", "cernvm.organizations": "organisations", "cernvm.password": "users"}
	if to := aliases[p.Name+"."+o.Key]; to != "" {
		k.add("I004", o.Line, 1, "write "+to, "section [%s] has no option %s", p.Name, o.Key)
		return
	}
	var names []string
	for _, key := range p.Keys {
		names = append(names, strings.TrimSuffix(strings.ToLower(key.Name), "*"))
	}
	if near := nearest(o.Key, names); near != "" {
		k.add("I004", o.Line, 1, meant(near), "section [%s] has no option %s", p.Name, o.Key)
		return
	}
	for _, key := range usercontext.BootKeyTable() {
		if key.Name == o.Key {
			k.add("I004", o.Line, 1, "move it between "+usercontext.BlockBegin+" and "+usercontext.BlockEnd, "%s is a key of the boot loader", o.Key)
			return
		}
	}
	k.add("I004", o.Line, 1, "", "section [%s] has no option %s", p.Name, o.Key)
}

// mismatch says why a value is not of the key's kind. It shows the value unless
// it is secret.
func mismatch(key plugins.Key, value string) string {
	wants := func(what string) string {
		if key.Secret {
			return "wants " + what
		}
		return fmt.Sprintf("wants %s, not %q", what, value)
	}
	plain := strings.Trim(value, `"'`)
	switch key.Kind {
	case plugins.Bool:
		if !slices.Contains([]string{"on", "off", "yes", "no", "true", "false", "1", "0"}, strings.ToLower(plain)) {
			return wants("on or off")
		}
	case plugins.Integer:
		if _, err := strconv.ParseInt(plain, 10, 64); err != nil {
			return wants("a whole number")
		}
	case plugins.Port:
		if n, err := strconv.Atoi(plain); err != nil || n < 1 || n > 65535 {
			return wants("a port from 1 to 65535")
		}
	case plugins.Host:
		if !hostName(plain) {
			return wants("a host name")
		}
	case plugins.URL:
		if u, err := url.Parse(plain); err != nil || u.Scheme == "" || u.Host == "" {
			return wants("a URL")
		}
	case plugins.Path:
		if !strings.HasPrefix(plain, "/") {
			return wants("a path that starts with /")
		}
	case plugins.Base64:
		if _, err := base64.StdEncoding.DecodeString(plain); err != nil {
			return "wants base64"
		}
	case plugins.Resolution:
		if !resolution.MatchString(plain) {
			return wants("a resolution such as 1280x800")
		}
	case plugins.Size:
		if !size.MatchString(plain) && plain != "auto" && plain != "off" {
			return wants("a size such as 2G")
		}
	case plugins.Text, plugins.List, plugins.ProxyList, plugins.Users, plugins.Assignment:
	}
	return ""
}

var (
	hostLabel  = regexp.MustCompile(`^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
	resolution = regexp.MustCompile(`^[1-9][0-9]{2,4}x[1-9][0-9]{2,4}$`)
	size       = regexp.MustCompile(`^[0-9]+(?:[KMGT](?:i?B)?)?$`)
	// joined finds a top-level domain that runs into the next name.
	joined = regexp.MustCompile(`\.(?:gov|edu|com|org|net)(?:cvmfs|cernvm|squid|proxy|cache|www|http)`)
)

func hostName(name string) bool {
	if len(name) > 253 || name == "" {
		return false
	}
	if strings.HasPrefix(name, "[") || strings.Count(name, ":") > 1 {
		return true // an IPv6 address
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if !hostLabel.MatchString(label) {
			return false
		}
	}
	return true
}

// checkList judges a list with commas: empty entries, and two names that grew
// together where a comma was forgotten.
func (k *checker) checkList(o usercontext.Option) {
	items := strings.Split(strings.Trim(o.Value, `"`), ",")
	for i, item := range items {
		switch item = strings.TrimSpace(item); {
		case item == "" && i < len(items)-1:
			k.addAs(warning, "I008", o.Line, o.ValueColumn, "remove the extra comma", "%s has an empty entry", o.Key)
		case joined.MatchString(item):
			at := joined.FindStringIndex(item)
			k.addAs(warning, "I008", o.Line, o.ValueColumn+strings.Index(o.RawValue, item)+at[0], "write a comma between them", "%s: %q looks like two names without a comma", o.Key, item)
		}
	}
}

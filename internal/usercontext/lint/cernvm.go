package lint

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

var (
	userName       = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	variableName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	repositoryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)
	sha512Hash     = regexp.MustCompile(`^\$6\$(?:rounds=[0-9]+\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{86}$`)
	cryptHash      = regexp.MustCompile(`^\$([0-9a-z]{1,3})\$(?:[^$:,]*\$)*[./A-Za-z0-9]+$`)
)

// checkCernVM judges the options of [cernvm] whose values have a shape of their
// own.
func (k *checker) checkCernVM() {
	options, _ := k.sections.Section("cernvm")
	value := map[string]string{}
	for _, o := range options {
		value[o.Key] = o.Value
	}
	for _, o := range options {
		switch o.Key {
		case "users":
			k.checkUsers(o)
		case "environment":
			k.checkEnvironment(o)
		case "repositories":
			k.checkRepositories(o)
		case "extra_repositories":
			k.checkExtraRepositories(o)
		case "proxy":
			k.checkProxy(o)
		case "eos-server":
			if strings.Contains(o.Value, "://") {
				k.add("C006", o.Line, o.ValueColumn, "write the host name alone", "eos-server has a scheme, which is added to it once more")
			}
			if value["eos-x509-cert"] == "" && value["x509-cert"] == "" && value["x509-cert-file"] == "" {
				k.add("C006", o.Line, o.ValueColumn, "add eos-x509-cert, or remove eos-server", "eos-server without a certificate: the plugin stops there, and the desktop does not start")
			}
		case "contextualization_command":
			user, command, ok := strings.Cut(o.Value, ":")
			if !ok || command == "" || !regexp.MustCompile(`^[a-z]+$`).MatchString(user) {
				k.add("C008", o.Line, o.ValueColumn, "write user:command, with a user in letters only", "contextualization_command is not user:command")
			}
		case "contextualization_key":
			if strings.Contains(o.Value, ":") {
				k.add("C008", o.Line, o.ValueColumn, "", "contextualization_key carries the secret of an online context in clear text")
			} else {
				k.addAs(note, "C008", o.Line, o.ValueColumn, "", "contextualization_key fetches another context, which replaces this one")
			}
		case "desktop_icons":
			k.checkIcons(o)
		case "edition":
			if o.Value != "Desktop" && strings.EqualFold(o.Value, "desktop") {
				k.add("I008", o.Line, o.ValueColumn, "write Desktop", "edition is compared exactly; only Desktop starts the desktop")
			}
		case "swap_size":
			if strings.EqualFold(o.Value, "off") {
				k.add("I009", o.Line, o.ValueColumn, "remove it", "swap_size=off is documented, but fails on an original CernVM")
			}
		}
	}
}

func (k *checker) checkUsers(o usercontext.Option) {
	if o.Value == "" {
		k.add("C003", o.Line, o.ValueColumn, "remove the line, or write user:group:password", "users is empty, which stops the plugin")
		return
	}
	seen := map[string]bool{}
	column := o.ValueColumn
	for entry := range strings.SplitSeq(o.Value, ",") {
		at := column
		column += len(entry) + 1
		name, rest, _ := strings.Cut(entry, ":")
		group, password, three := strings.Cut(rest, ":")
		if !three || strings.Contains(password, ":") {
			// The entry may be a password, or the rest of one: it is not shown.
			k.add("C003", o.Line, at, "write user:group:password; neither \":\" nor \",\" can be in a password", "an entry of users does not have three fields, which stops the plugin")
			continue
		}
		if !userName.MatchString(name) {
			k.add("C003", o.Line, at, "use lower-case letters, digits, \"_\" and \"-\"", "%q is not a user name", name)
		}
		if group == "" {
			k.addAs(warning, "C003", o.Line, at, "name a group, usually that of the user", "user %s has no group", name)
		} else if !userName.MatchString(group) {
			k.add("C003", o.Line, at+len(name)+1, "use lower-case letters, digits, \"_\" and \"-\"", "%q is not a group name", group)
		}
		if seen[name] {
			k.add("C003", o.Line, at, "", "user %s is there twice", name)
		}
		seen[name] = true
		k.checkPassword(o.Line, at+len(name)+len(group)+2, name, password)
	}
}

func (k *checker) checkPassword(line, column int, user, password string) {
	switch {
	case password == "":
		k.addAs(warning, "C003", line, column, "", "user %s has no password: an original CernVM makes up one that nobody gets to know", user)
	case password == "!" || password == "*":
		k.addAs(warning, "C002", line, column, "", "user %s is locked on Mica; on an original CernVM %q is the password", user, password)
	case sha512Hash.MatchString(password):
	case strings.HasPrefix(password, "$6$"):
		k.add("C002", line, column, "make it with: openssl passwd -6", "the password hash of user %s is malformed, so nobody can log in with it", user)
	case cryptHash.MatchString(password):
		k.add("C002", line, column, "make a hash with: openssl passwd -6", "the password hash of user %s is of a kind that an original CernVM takes for the password itself", user)
	default:
		k.add("C001", line, column, "write a hash, made with: openssl passwd -6", "the password of user %s is in clear text", user)
	}
}

func (k *checker) checkEnvironment(o usercontext.Option) {
	var names []string
	column := o.ValueColumn
	for entry := range strings.SplitSeq(o.Value, ",") {
		at := column
		column += len(entry) + 1
		name, value, found := strings.Cut(strings.TrimSpace(entry), "=")
		switch {
		case !found:
			k.add("C004", o.Line, at, "write NAME=value", "an entry of environment has no \"=\"; no user is created after it")
			continue
		case !variableName.MatchString(name):
			k.add("C004", o.Line, at, "use letters, digits and \"_\"", "%q is not a variable's name", name)
		case strings.Contains(value, "="):
			k.add("C004", o.Line, at, "set it in a script instead", "the value of %s has another \"=\"; no user is created after it", name)
		}
		for _, other := range names[:min(len(names), 64)] {
			if strings.HasPrefix(other, name) || strings.HasPrefix(name, other) {
				k.addAs(warning, "C004", o.Line, at, "put the shorter name first, or set one of them in a script", "%s and %s start alike: an original CernVM keeps only one of them", other, name)
			}
		}
		names = append(names, name)
	}
}

func (k *checker) checkRepositories(o usercontext.Option) {
	seen := map[string]bool{}
	column := o.ValueColumn
	for entry := range strings.SplitSeq(o.Value, ",") {
		at := column
		column += len(entry) + 1
		name := strings.TrimSpace(entry)
		if name == "" {
			continue // the list's own rule
		}
		if !repositoryName.MatchString(name) {
			k.add("C005", o.Line, at, "use letters, digits, \"-\" and \".\"", "%q is not a repository's name", name)
		}
		if !strings.Contains(name, ".") {
			name += ".cern.ch"
		}
		if seen[name] {
			k.add("C005", o.Line, at, "remove one of them", "repository %s is there twice", name)
		}
		seen[name] = true
	}
}

func (k *checker) checkExtraRepositories(o usercontext.Option) {
	for entry := range strings.SplitSeq(o.Value, ",") {
		fields := strings.Split(entry, "|")
		if len(fields) != 3 {
			k.add("C005", o.Line, o.ValueColumn, "write name|server|base64 of the public key", "an entry of extra_repositories does not have three fields, and is skipped")
			continue
		}
		key, err := base64.StdEncoding.DecodeString(fields[2])
		switch {
		case !repositoryName.MatchString(fields[0]):
			k.add("C005", o.Line, o.ValueColumn, "", "%q is not a repository's name", fields[0])
		case err != nil:
			k.add("C005", o.Line, o.ValueColumn, "", "the key of %s is not base64, so the entry is skipped", fields[0])
		case !bytes.Contains(key, []byte("PUBLIC KEY")):
			k.add("C005", o.Line, o.ValueColumn, "", "the key of %s is not a public key in PEM form", fields[0])
		}
	}
}

func (k *checker) checkProxy(o usercontext.Option) {
	quoted := len(o.Value) > 1 && o.Value[0] == '"' && o.Value[len(o.Value)-1] == '"'
	plain := strings.Trim(o.Value, `"`)
	switch {
	case plain == "":
		return
	case !proxyList(plain):
		k.add("C007", o.Line, o.ValueColumn, "write like http://a:3128|http://b:3128;DIRECT", "proxy is not a proxy list")
	case strings.ContainsAny(plain, ";|") && !quoted:
		k.add("C007", o.Line, o.ValueColumn, "put the value in double quotes", "an original CernVM loses the proxies behind the first \";\" or \"|\"")
	}
	if k.block.Keys["cvmfs_http_proxy"] == "" {
		k.add("C010", o.Line, o.ValueColumn, "set cvmfs_http_proxy in the boot loader's block to the same value", "an original CernVM forgets this proxy at its second boot")
	}
}

// proxyList reports whether v has the syntax of CVMFS_HTTP_PROXY.
func proxyList(v string) bool {
	for group := range strings.SplitSeq(v, ";") {
		for proxy := range strings.SplitSeq(group, "|") {
			proxy = strings.TrimSpace(proxy)
			if proxy == "" || proxy == "DIRECT" || proxy == "auto" {
				continue
			}
			_, rest, scheme := strings.Cut(proxy, "://")
			if !scheme {
				rest = proxy
			}
			host := rest
			if i := strings.LastIndexByte(rest, '@'); i >= 0 {
				host = rest[i+1:]
			}
			host, port, hasPort := strings.Cut(strings.TrimSuffix(host, "/"), ":")
			if !hostName(host) || hasPort && !regexp.MustCompile(`^[0-9]{1,5}$`).MatchString(port) {
				return false
			}
		}
	}
	return true
}

func (k *checker) checkIcons(o usercontext.Option) {
	for icon := range strings.SplitSeq(o.Value, "%") {
		name, encoded, found := strings.Cut(icon, ",")
		name = strings.ReplaceAll(name, "~", " ")
		if !found || name == "" {
			k.add("C009", o.Line, o.ValueColumn, "write Name,base64, and % between icons", "an entry of desktop_icons is not Name,base64")
			continue
		}
		data, err := base64.StdEncoding.DecodeString(encoded)
		switch {
		case strings.Contains(name, "/"):
			k.add("C009", o.Line, o.ValueColumn, "", "the icon's name %q has a slash in it", name)
		case err != nil:
			k.add("C009", o.Line, o.ValueColumn, "", "the icon %q is not base64", name)
		case !slices.ContainsFunc(strings.Split(string(data), "\n"), func(l string) bool { return strings.TrimSpace(l) == "[Desktop Entry]" }):
			k.add("C009", o.Line, o.ValueColumn, "", "the icon %q has no line [Desktop Entry]", name)
		}
	}
}

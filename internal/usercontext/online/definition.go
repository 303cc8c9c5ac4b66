package online

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

// ErrNotDefinition says that a text is no exported definition.
var ErrNotDefinition = errors.New("not a definition exported from CernVM Online")

// Rendered is a definition as a context.
type Rendered struct {
	Name     string
	Context  []byte
	RootKey  string   // public key for root, "" = none
	Warnings []string // what could not be carried over
}

// IsDefinition reports whether data looks like an exported definition.
func IsDefinition(data []byte) bool {
	data = bytes.TrimSpace(data)
	return bytes.HasPrefix(data, []byte("{")) && bytes.Contains(data, []byte(`"general"`))
}

// object is a JSON object whose values come in several spellings: numbers and
// booleans as strings, and the other way round.
type object map[string]any

func (o object) text(key string) string {
	switch v := o[key].(type) {
	case string:
		return strings.TrimSpace(v)
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "1"
		}
	}
	return ""
}

func (o object) on(key string) bool {
	return slices.Contains([]string{"1", "on", "yes", "true"}, strings.ToLower(o.text(key)))
}

func (o object) object(key string) object {
	v, _ := o[key].(map[string]any)
	return v
}

func (o object) keys() []string {
	keys := make([]string, 0, len(o))
	for k := range o {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		if errX == nil && errY == nil {
			return x - y
		}
		return strings.Compare(a, b)
	})
	return keys
}

// Render turns an exported definition into a context. hash turns a password into
// its crypt hash, so that the context has none in clear text.
//
// Differs: cernvm-online: src/cvmo writes the script so that its last line and
// the exit grow together when the text does not end in a line end; here they do
// not. Values are not escaped for a shell: Mica's own writer quotes them.
func Render(data []byte, hash func(string) (string, error)) (Rendered, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var top object
	if err := d.Decode(&top); err != nil {
		return Rendered{}, fmt.Errorf("%w: %w", ErrNotDefinition, err)
	}
	enabled := top.object("enabled")
	if v := top.object("values"); v != nil {
		top = v
	}
	general := top.object("general")
	if general == nil {
		return Rendered{}, ErrNotDefinition
	}
	r := &renderer{top: top, general: general, enabled: enabled, hash: hash}
	r.out.Name = top.text("name")
	r.out.RootKey = top.text("root_ssh_key")
	if err := r.render(); err != nil {
		return Rendered{}, err
	}
	r.out.Context = []byte(r.text.String())
	return r.out, nil
}

type renderer struct {
	top, general, enabled object
	hash                  func(string) (string, error)
	text                  strings.Builder
	out                   Rendered
}

func (r *renderer) warn(format string, args ...any) {
	r.out.Warnings = append(r.out.Warnings, fmt.Sprintf(format, args...))
}

// set writes an option whose value is not empty. A line end in a value would be
// another option.
func (r *renderer) set(key, value string) {
	if value == "" {
		return
	}
	if strings.ContainsAny(value, "\r\n") {
		r.warn("%s has a line end in its value and is left out", key)
		return
	}
	r.text.WriteString(key + "=" + value + "\n")
}

func (r *renderer) render() error {
	g := r.general
	if script := strings.ReplaceAll(g.text("startup_script"), "\r", ""); script != "" {
		r.text.WriteString("#!/bin/sh\n. /etc/cernvm/site.conf\n" + script + "\nexit\n\n")
	}
	names := []string{"cernvm"}
	groups := map[string]object{}
	for _, name := range usercontext.Plugins() {
		field := strings.ReplaceAll(name, "-", "_")
		group := r.top.object(field)
		if group == nil || name == "cernvm" {
			continue
		}
		if _, told := r.enabled[field]; told && !r.enabled.on(field) {
			continue
		}
		names = append(names, name)
		groups[name] = group
	}
	r.text.WriteString("[amiconfig]\nplugins=" + strings.Join(names, " ") + "\n\n[cernvm]\n")
	if err := r.cernvm(); err != nil {
		return err
	}
	for _, name := range names[1:] {
		r.text.WriteString("\n[" + name + "]\n")
		r.group(name, groups[name])
	}
	if g.text("cvm_wa_password") != "" {
		r.warn("the password of the web administration is left out: no current image has it")
	}
	r.block()
	return nil
}

func (r *renderer) cernvm() error {
	g := r.general
	services := g.text("services")
	if custom := g.text("custom_services"); custom != "" {
		services = strings.Trim(services+","+custom, ",")
	}
	r.set("organisations", g.text("organisation"))
	r.set("repositories", g.text("repositories"))
	r.set("shell", g.text("shell"))
	r.set("services", services)
	if command := g.text("context_cmd"); command != "" {
		r.set("contextualization_command", g.text("context_cmd_user")+":"+command)
	}
	var users []string
	accounts := g.object("users")
	for _, n := range accounts.keys() {
		u := accounts.object(n)
		if u == nil || u.text("name") == "" {
			continue
		}
		password := u.text("password")
		if password != "" && !strings.HasPrefix(password, "$6$") {
			hashed, err := r.hash(password)
			if err != nil {
				return fmt.Errorf("user %q: %w", u.text("name"), err)
			}
			password = hashed
		}
		group := u.text("group")
		if group == "" {
			group = u.text("name")
		}
		users = append(users, u.text("name")+":"+group+":"+password)
	}
	r.set("users", strings.Join(users, ","))
	var variables []string
	environment := g.object("environment")
	for _, name := range environment.keys() {
		value := environment.text(name)
		if strings.ContainsAny(value, "=,") {
			r.warn("the variable %s has \"=\" or \",\" in its value and is left out; set it in the script", name)
			continue
		}
		variables = append(variables, name+"="+value)
	}
	r.set("environment", strings.Join(variables, ","))
	r.set("edition", g.text("cvm_edition"))
	r.set("keyboard", g.text("cvm_keyboard_layout"))
	if g.on("cvm_startx") {
		r.set("startxdm", "on")
	}
	r.set("eos-server", strings.TrimPrefix(g.text("eos_server"), "root://"))
	r.set("x509-user", g.text("x509_user"))
	r.set("x509-cert", g.text("x509_cert"))
	var extra []string
	repositories := g.object("extra_repositories")
	for _, name := range repositories.keys() {
		o := repositories.object(name)
		key := o.text("pubkey")
		if strings.Contains(key, "-----BEGIN") {
			key = base64.StdEncoding.EncodeToString([]byte(key + "\n"))
		}
		extra = append(extra, name+"|"+o.text("server")+"|"+key)
	}
	r.set("extra_repositories", strings.Join(extra, ","))
	if proxy := r.proxy(); proxy != "" {
		r.set("proxy", `"`+proxy+`"`)
	}
	return nil
}

// proxy puts the parts of the proxy form together.
func (r *renderer) proxy() string {
	g := r.general
	switch mode := g.text("http_proxy_mode"); mode {
	case "":
		return ""
	case "auto":
		return "auto"
	case "direct":
		return "DIRECT"
	default:
		host := g.text("http_proxy")
		if host == "" {
			return ""
		}
		credentials := ""
		if g.on("http_usecredentials") {
			credentials = g.text("http_username") + ":" + g.text("http_password") + "@"
		}
		proxy := strings.TrimSuffix(mode, "://") + "://" + credentials + host
		if port := g.text("http_proxy_port"); port != "" {
			proxy += ":" + port
		}
		if g.on("http_fallback") {
			proxy += ";DIRECT"
		}
		return proxy
	}
}

// block writes the boot loader's block, which older kinds of CernVM do not have.
func (r *renderer) block() {
	g := r.general
	if v := g.text("cvm_version"); v != "" && !strings.EqualFold(v, "uCernVM") {
		return
	}
	var lines []string
	add := func(key, value string) {
		if value != "" && !strings.ContainsAny(value, "\r\n") {
			lines = append(lines, key+"="+value)
		}
	}
	add("cvmfs_branch", g.text("cvmfs_branch"))
	if tag := g.text("cvmfs_tag"); tag != "trunk" {
		add("cvmfs_tag", tag)
	}
	if proxy := r.proxy(); proxy != "" {
		add("cvmfs_http_proxy", `"`+proxy+`"`)
	}
	if g.on("resize_rootfs") {
		add("resize_rootfs", "on")
	}
	if len(lines) > 0 {
		r.text.WriteString("\n" + usercontext.BlockBegin + "\n" + strings.Join(lines, "\n") + "\n" + usercontext.BlockEnd + "\n")
	}
}

// group writes the section of a plugin. The form's fields have underscores where
// some options have dashes.
func (r *renderer) group(name string, group object) {
	p, _ := plugins.ByName(name)
	for _, field := range group.keys() {
		key := field
		dashed := strings.ReplaceAll(field, "_", "-")
		for _, k := range p.Keys {
			if strings.EqualFold(k.Name, dashed) {
				key = dashed
			}
		}
		r.set(key, group.text(field))
	}
}

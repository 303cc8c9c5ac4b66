package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Plugin is one part of amiconfig.
type Plugin struct {
	Name string // in lower case; its section has the same name
	Does string // one line
	Keys []Key  // of its section, in the order in which they are applied

	// Always enables the plugin in every context. Required makes the whole fail
	// when the plugin does.
	Always, Required bool

	// Apply runs once per machine.
	Apply func(ctx context.Context, c *Call) error
	// EveryBoot, where set, runs at each boot, after Apply at the first one.
	EveryBoot func(ctx context.Context, c *Call) error
	// Last, where set, runs at each boot when all plugins and the script are done.
	Last func(ctx context.Context, c *Call) error
}

// Kind says what the value of an option looks like.
type Kind string

// The kinds of values.
const (
	Text       Kind = "text"
	Bool       Kind = "bool" // on, off, yes, no, true, false, 1, 0
	Integer    Kind = "integer"
	Port       Kind = "port"
	Host       Kind = "host"
	URL        Kind = "url"
	Path       Kind = "path"
	List       Kind = "list" // separated by commas
	Base64     Kind = "base64"
	ProxyList  Kind = "proxies"     // a proxy list of CernVM-FS
	Users      Kind = "users"       // user:group:password, separated by commas
	Assignment Kind = "assignments" // NAME=value, separated by commas
	Resolution Kind = "resolution"  // 1280x800
	Size       Kind = "size"        // bytes, or with K, M, G behind
)

// Key is one option of a plugin's section. A Name ending in "*" stands for every
// key that starts so.
type Key struct {
	Name     string
	Kind     Kind
	Meaning  string // one line
	Default  string // as text; "" = none
	Required bool   // the plugin does nothing without it
	Secret   bool   // never shown
	NoEffect bool   // accepted, but nothing comes of it
}

// Call is what one run of a plugin has to work with.
type Call struct {
	Root    *guest.Root
	Section Section
	Meta    Meta
	Warn    func(format string, args ...any) // "it worked, but"; never nil
}

// Meta is what the platform told about the machine.
type Meta struct {
	InstanceID string
	Hostname   string
	PublicKeys []string
}

// Section is the options of one plugin.
type Section struct {
	Name    string
	Present bool
	Options []Option
}

// Option is one option as written.
type Option struct {
	Key   string // lower case
	Value string
}

// Lookup returns an option. Compat: an empty value counts as there.
func (s Section) Lookup(key string) (string, bool) {
	for _, o := range s.Options {
		if o.Key == key {
			return o.Value, true
		}
	}
	return "", false
}

// Get returns an option, or the fallback where it is missing or empty.
func (s Section) Get(key, fallback string) string {
	if v, ok := s.Lookup(key); ok && v != "" {
		return v
	}
	return fallback
}

// Missing returns an error that names the keys without a value.
func (s Section) Missing(keys ...string) error {
	var missing []string
	for _, key := range keys {
		if v, _ := s.Lookup(key); v == "" {
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("section [%s] lacks %s", s.Name, strings.Join(missing, ", "))
}

// problems gathers what went wrong in one run.
type problems struct{ errs []error }

func (p *problems) add(err error) bool {
	if err != nil {
		p.errs = append(p.errs, err)
	}
	return err == nil
}

func (p *problems) addf(format string, args ...any) { p.add(fmt.Errorf(format, args...)) }

func (p *problems) err() error { return errors.Join(p.errs...) }

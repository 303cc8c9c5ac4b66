package convert

import (
	"io"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
)

// Account is a user of a new context.
type Account struct {
	Name, Group string // an empty group is one of the user's name
	Password    string // hashed before it is written; empty makes the machine make one up
	Hash        string // instead of a password
}

// Spec says what a new context is to do. The zero value of a field leaves it out.
type Spec struct {
	Hostname      string
	Users         []Account
	Repositories  []string
	Organisations []string
	Services      []string
	Environment   []string // NAME=value
	Proxy         string   // CVMFS_HTTP_PROXY syntax; for the boot loader and for the repositories
	Desktop       bool
	Branch, Tag   string // repository and snapshot of the operating system
	Path          string // directory of the repository that becomes the root
	Script        string // text of a script; gets a #! line and an exit if it has none
	Before        bool   // run the script before the plugins
}

// New writes a context that does what s says.
func New(s Spec, random io.Reader) ([]byte, error) {
	w := &writer{}
	w.script(s)
	plugins := []string{}
	if s.Hostname != "" {
		plugins = append(plugins, "hostname")
	}
	plugins = append(plugins, "rootsshkeys")
	cernvm := len(s.Users)+len(s.Repositories)+len(s.Organisations)+len(s.Services)+len(s.Environment) > 0 || s.Proxy != "" || s.Desktop
	if cernvm {
		plugins = append(plugins, "cernvm")
	}
	w.section("amiconfig")
	w.option("plugins", strings.Join(plugins, " "))
	if s.Hostname != "" {
		w.section("hostname")
		w.option("hostname", s.Hostname)
	}
	if cernvm {
		if err := w.cernvm(s, random); err != nil {
			return nil, err
		}
	}
	w.block(s)
	if w.err != nil {
		return nil, w.err
	}
	return []byte(w.text.String()), nil
}

type writer struct {
	text strings.Builder
	err  error
}

func (w *writer) section(name string) {
	if w.text.Len() > 0 {
		w.text.WriteByte('\n')
	}
	w.text.WriteString("[" + name + "]\n")
}

// option writes one option. A line end in a value would be another option.
func (w *writer) option(key, value string) {
	switch {
	case value == "":
	case strings.ContainsAny(value, "\r\n\x00"):
		if w.err == nil {
			w.err = fail.New(fail.Usage, "the value of %s has a line end in it", key)
		}
	default:
		w.text.WriteString(key + "=" + value + "\n")
	}
}

func (w *writer) script(s Spec) {
	if strings.TrimSpace(s.Script) == "" {
		return
	}
	text := strings.ReplaceAll(s.Script, "\r\n", "\n")
	first := "#!/bin/sh.after\n"
	if s.Before {
		first = "#!/bin/sh.before\n"
	}
	if top, rest, _ := strings.Cut(text, "\n"); strings.HasPrefix(top, "#!") {
		text = rest // the phase is in our own first line
	}
	text = first + strings.TrimRight(text, "\n") + "\n"
	if last := lastLine([]byte(text)); !strings.HasPrefix(string(last), "exit") {
		text += "exit 0\n"
	}
	w.text.WriteString(text)
}

func (w *writer) cernvm(s Spec, random io.Reader) error {
	w.section("cernvm")
	w.option("organisations", strings.Join(s.Organisations, ","))
	w.option("repositories", strings.Join(s.Repositories, ","))
	w.option("services", strings.Join(s.Services, ","))
	w.option("environment", strings.Join(s.Environment, ","))
	var users []string
	for _, u := range s.Users {
		if u.Group == "" {
			u.Group = u.Name
		}
		if u.Password != "" {
			hash, err := hashPassword(random, u.Password)
			if err != nil {
				return err
			}
			u.Hash = hash
		}
		users = append(users, u.Name+":"+u.Group+":"+u.Hash)
	}
	w.option("users", strings.Join(users, ","))
	if len(users) > 0 {
		w.option("shell", "/bin/bash")
	}
	if s.Desktop {
		w.option("edition", "Desktop")
		w.option("startxdm", "on")
		if len(users) > 0 {
			w.option("auto_login", "on")
		}
	}
	if s.Proxy != "" {
		w.option("proxy", `"`+s.Proxy+`"`)
	}
	return nil
}

// quoted puts a value of the boot loader's block in quotes where a shell would take
// it apart.
func quoted(value string) string {
	if strings.Trim(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,:/@%+=-") == "" {
		return value
	}
	return `"` + value + `"`
}

func (w *writer) block(s Spec) {
	begun := false
	for _, o := range [][2]string{{"cvmfs_branch", s.Branch}, {"cvmfs_tag", s.Tag}, {"cernvm_path", s.Path}, {"cvmfs_http_proxy", s.Proxy}} {
		if o[1] == "" {
			continue
		}
		if strings.ContainsAny(o[1], "`$\\\"") && w.err == nil {
			w.err = fail.New(fail.Usage, "the value of %s has a character that a shell expands", o[0])
		}
		if !begun {
			w.section(strings.Trim(usercontext.BlockBegin, "[]"))
			begun = true
		}
		w.option(o[0], quoted(o[1]))
	}
	if begun {
		w.text.WriteString(usercontext.BlockEnd + "\n")
	}
}

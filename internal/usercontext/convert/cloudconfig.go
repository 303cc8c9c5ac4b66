package convert

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

// cloudConfig is the part of a cloud-config that a context can be turned into.
type cloudConfig struct {
	Hostname   string         `yaml:"hostname,omitempty"`
	Groups     []string       `yaml:"groups,omitempty"`
	Users      []any          `yaml:"users,omitempty"`
	DisableSSH *bool          `yaml:"ssh_pwauth,omitempty"`
	Keyboard   map[string]any `yaml:"keyboard,omitempty"`
	Swap       map[string]any `yaml:"swap,omitempty"`
	WriteFiles []cloudFile    `yaml:"write_files,omitempty"`
	RunCommand []any          `yaml:"runcmd,omitempty"`
}

type cloudUser struct {
	Name       string   `yaml:"name"`
	Group      string   `yaml:"primary_group"`
	Groups     []string `yaml:"groups,omitempty"`
	Shell      string   `yaml:"shell"`
	Password   string   `yaml:"passwd,omitempty"`
	LockPasswd bool     `yaml:"lock_passwd"`
	Sudo       string   `yaml:"sudo,omitempty"`
}

type cloudFile struct {
	Path    string `yaml:"path"`
	Mode    string `yaml:"permissions"`
	Content string `yaml:"content"`
}

// converter gathers a cloud-config.
type converter struct {
	context  *usercontext.Context
	sections *usercontext.Amiconfig
	random   io.Reader
	out      cloudConfig
	left     []Unmapped
}

const scriptPath = "/var/lib/mica-context/script.sh"

// toCloudConfig does with cloud-init what the context does with amiconfig.
func toCloudConfig(c *usercontext.Context, random io.Reader) ([]byte, []Unmapped, error) {
	if !c.MIME && c.Parts[0].Kind == usercontext.CloudConfig {
		return c.Parts[0].Data, nil, nil
	}
	v := &converter{context: c, sections: c.Amiconfig(), random: random}
	enabled := usercontext.EnabledPlugins(v.sections)
	if err := v.plugins(enabled); err != nil {
		return nil, nil, err
	}
	v.script()
	for _, s := range c.Block().Settings {
		v.unmapped(s.Line, s.Key, "the boot loader reads it before cloud-init is there")
	}
	for _, p := range c.Parts {
		switch p.Kind {
		case usercontext.Plain, usercontext.Empty:
		case usercontext.ShellScript:
			if s := c.Script(); !bytes.Equal(p.Data, s.Text) {
				v.unmapped(p.Line, "a second script", "convert to mime to keep every part")
			}
		default:
			v.unmapped(p.Line, p.Kind.String(), "convert to mime to keep every part")
		}
	}
	var out bytes.Buffer
	out.WriteString("#cloud-config\n")
	if !isZero(v.out) {
		e := yaml.NewEncoder(&out)
		e.SetIndent(2)
		if err := e.Encode(v.out); err != nil {
			return nil, nil, fmt.Errorf("writing YAML: %w", err)
		}
	}
	slices.SortStableFunc(v.left, func(a, b Unmapped) int { return a.Line - b.Line })
	return out.Bytes(), v.left, nil
}

func isZero(c cloudConfig) bool {
	b, err := yaml.Marshal(c)
	return err == nil && strings.TrimSpace(string(b)) == "{}"
}

func (v *converter) unmapped(line int, what, why string) {
	v.left = append(v.left, Unmapped{line, what, why})
}

func (v *converter) plugins(enabled []string) error {
	for _, name := range enabled {
		options, _ := v.sections.Section(name)
		switch name {
		case "rootsshkeys": // cloud-init does it by itself
		case "hostname":
			for _, o := range options {
				if o.Key == "hostname" {
					v.out.Hostname = o.Value
				} else {
					v.unmapped(o.Line, o.Key, "the plugin does not know it")
				}
			}
		case "disablesshpasswdauth":
			no := false
			v.out.DisableSSH = &no
		case "cernvm":
			if err := v.cernvm(options); err != nil {
				return err
			}
		default:
			line := 0
			if len(options) > 0 {
				line = options[0].Line
			}
			v.unmapped(line, "plugin "+name, "cloud-init has nothing like it")
		}
	}
	for _, s := range v.sections.Sections {
		known := slices.Contains(enabled, s.Name) || s.Name == "amiconfig" || strings.HasPrefix(s.Name, "ucernvm-") || s.Name == "end"
		if !known {
			v.unmapped(s.Line, "section ["+s.Name+"]", "nothing reads it")
		}
	}
	return nil
}

// cernvm converts the section [cernvm].
func (v *converter) cernvm(options []usercontext.Option) error {
	table, _ := plugins.ByName("cernvm")
	noEffect := func(key string) bool {
		return slices.ContainsFunc(table.Keys, func(k plugins.Key) bool { return k.Name == key && k.NoEffect })
	}
	shell, _ := v.sections.Get("cernvm", "shell")
	var repositories []string
	for _, o := range options {
		if o.Value == "" || noEffect(o.Key) {
			continue
		}
		switch o.Key {
		case "shell":
		case "users":
			if err := v.users(o, shell); err != nil {
				return err
			}
		case "environment":
			v.environment(o)
		case "services":
			for service := range strings.SplitSeq(o.Value, ",") {
				if service = strings.TrimSpace(service); service != "" {
					v.out.RunCommand = append(v.out.RunCommand, []string{"systemctl", "enable", "--now", service})
				}
			}
		case "keyboard":
			v.out.Keyboard = map[string]any{"layout": o.Value}
		case "swap_size":
			if o.Value == "auto" || o.Value == "off" {
				v.unmapped(o.Line, o.Key, "cloud-init wants a size")
			} else {
				v.out.Swap = map[string]any{"filename": "/swapfile", "size": o.Value}
			}
		case "repositories":
			var names []string
			for name := range strings.SplitSeq(o.Value, ",") {
				if name = strings.TrimSpace(name); name != "" && !strings.Contains(name, ".") {
					name += ".cern.ch"
				}
				names = append(names, name)
			}
			repositories = append(repositories, "CVMFS_REPOSITORIES='"+strings.Join(names, ",")+"'")
		case "proxy":
			repositories = append(repositories, "CVMFS_HTTP_PROXY='"+strings.Trim(o.Value, `"`)+"'")
		default:
			v.unmapped(o.Line, o.Key, "cloud-init has nothing like it")
		}
	}
	if len(repositories) > 0 {
		content := strings.Join(repositories, "\n") + "\n"
		if strings.Count(content, "'") != 2*len(repositories) {
			v.unmapped(0, "repositories, proxy", "a quote in the value")
			return nil
		}
		v.out.WriteFiles = append(v.out.WriteFiles, cloudFile{"/etc/cvmfs/default.local", "0644", content})
	}
	return nil
}

func (v *converter) users(o usercontext.Option, shell string) error {
	if shell == "" {
		shell = "/bin/bash"
	}
	v.out.Users = append(v.out.Users, "default")
	first := true
	for entry := range strings.SplitSeq(o.Value, ",") {
		fields := strings.Split(entry, ":")
		if len(fields) != 3 || fields[0] == "" {
			v.unmapped(o.Line, "an entry of users", "it is not user:group:password")
			continue
		}
		u := cloudUser{Name: fields[0], Group: fields[1], Shell: shell, Password: fields[2]}
		if u.Group == "" {
			u.Group = u.Name
		}
		if !slices.Contains(v.out.Groups, u.Group) {
			v.out.Groups = append(v.out.Groups, u.Group)
		}
		if first { // as the original's first user is the one who may use sudo
			u.Sudo = "ALL=(ALL) ALL"
		}
		first = false
		switch {
		case u.Password == "":
			v.unmapped(o.Line, "the password of user "+u.Name, "cloud-init makes up none; the account is locked")
			u.LockPasswd = true
		case u.Password == "!" || u.Password == "*":
			u.Password, u.LockPasswd = "", true
		case !strings.HasPrefix(u.Password, "$"):
			hash, err := hashPassword(v.random, u.Password)
			if err != nil {
				return err
			}
			u.Password = hash
		}
		v.out.Users = append(v.out.Users, u)
	}
	return nil
}

func (v *converter) environment(o usercontext.Option) {
	var content strings.Builder
	for entry := range strings.SplitSeq(o.Value, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(entry), "=")
		if !ok || strings.Contains(value, "'") {
			v.unmapped(o.Line, "an entry of environment", "it is not NAME=value")
			continue
		}
		content.WriteString("export " + name + "='" + value + "'\n")
	}
	if content.Len() > 0 {
		v.out.WriteFiles = append(v.out.WriteFiles, cloudFile{"/etc/profile.d/context-environment.sh", "0644", content.String()})
	}
}

// script makes the script a file that runs at the end. The name of the process
// above it tells a script that looks for amiconfig to go on.
func (v *converter) script() {
	s := v.context.Script()
	if !s.Present {
		return
	}
	if !s.Before && !s.After {
		v.unmapped(s.Line, "the script", "its interpreter is no shell; make it a part of its own")
		return
	}
	v.out.WriteFiles = append(v.out.WriteFiles, cloudFile{scriptPath, "0700", string(s.Text)})
	run := []string{"bash", "-c", "bash " + scriptPath + "; true", "amiconfig"}
	if s.Before {
		v.unmapped(s.Line, "the phase of the script", "cloud-init runs it after users and files, not before")
	}
	v.out.RunCommand = append(v.out.RunCommand, run)
}

package amiconfig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Simulation is what a context would do to a system that has nothing but root.
type Simulation struct {
	Schema   int            `json:"schema"`
	Plugins  []PluginResult `json:"plugins"`
	Scripts  []string       `json:"scripts,omitempty"` // phases in which the script runs
	Users    []SimUser      `json:"users,omitempty"`
	Groups   []string       `json:"groups,omitempty"` // those that were made
	Files    []SimFile      `json:"files,omitempty"`
	Services []SimService   `json:"services,omitempty"`
	Mounts   []SimMount     `json:"mounts,omitempty"`
	Sysctls  []SimSysctl    `json:"sysctls,omitempty"`
	Commands []string       `json:"commands,omitempty"`
	Network  []string       `json:"network,omitempty"` // what would be asked for
	Hostname string         `json:"hostname,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`
}

// SimUser is one account of the context.
type SimUser struct {
	Name     string   `json:"name"`
	UID      int      `json:"uid"`
	Group    string   `json:"group"`
	Groups   []string `json:"groups,omitempty"`
	Shell    string   `json:"shell"`
	Home     string   `json:"home"`
	Password string   `json:"password"` // of what kind
	Keys     int      `json:"public_keys"`
}

// SimFile is one file, directory or link that was made or changed.
type SimFile struct {
	Path    string `json:"path"`
	Kind    string `json:"kind"`
	Mode    string `json:"mode,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Size    int    `json:"size"`
	SHA256  string `json:"sha256,omitempty"`
	Preview string `json:"preview,omitempty"` // "" for what is secret or not text
	Target  string `json:"target,omitempty"`  // of a link
	Secret  bool   `json:"secret,omitempty"`
}

// SimService is what was asked for one service.
type SimService struct {
	Name  string   `json:"name"`
	Verbs []string `json:"verbs"`
}

// SimMount is one mount.
type SimMount struct {
	Target string `json:"target"`
	Source string `json:"source"`
}

// SimSysctl is one kernel parameter.
type SimSysctl struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// previewLimit bounds how much of a file is shown.
const previewLimit = 4096

// bareSystem is what the context is applied to: the least that plugins change.
var bareSystem = map[string]string{
	"etc/passwd":               "root:x:0:0:root:/root:/bin/bash\n",
	"etc/group":                "root:x:0:\nwheel:x:10:\nusers:x:100:\n",
	"etc/shadow":               "root:*:19000:0:99999:7:::\n",
	"etc/hosts":                "127.0.0.1 localhost\n::1 localhost\n",
	"etc/ssh/sshd_config":      "#PasswordAuthentication yes\n",
	"etc/skel/.bashrc":         "",
	"root/.bashrc":             "",
	"etc/nsswitch.conf":        "passwd: files\ngroup: files\nhosts: files dns\n",
	"etc/squid/squid.conf":     "http_port 3128\n",
	"etc/gmond.conf.cernvm":    "cluster { name = \"@name@\" owner = \"@owner@\" latlong = \"@latlong@\" url = \"@url@\" }\nhost { location = \"@location@\" }\nudp_send_channel { host = @host@ bind_hostname = @bind_hostname@ port = @port@ ttl = @ttl@ }\n",
	"etc/condor/condor_config": "LOCAL_CONFIG_FILE = /etc/condor/condor_config.local\n",
	"etc/elastiq.conf":         "",
}

// Simulate applies a context to an empty system in a temporary directory, where
// nothing is run and no network is reached, and returns what came of it. Times and
// random numbers are fixed, so the same context gives the same result. The script
// is not run; it would do as it likes.
func Simulate(ctx context.Context, userData []byte, meta Input) (Simulation, error) {
	dir, err := os.MkdirTemp("", "mica-simulate-")
	if err != nil {
		return Simulation{}, fmt.Errorf("making a system to simulate: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // temporary
	for name, text := range bareSystem {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return Simulation{}, fmt.Errorf("making a system to simulate: %w", err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // not a real one
			return Simulation{}, fmt.Errorf("making a system to simulate: %w", err)
		}
	}
	root, err := guest.Open(guest.Options{
		Dir: dir, Pretend: true, Volatile: true, Rand: rand.NewChaCha8([32]byte{}),
		Now: func() time.Time { return time.Unix(1_700_000_000, 0) },
	})
	if err != nil {
		return Simulation{}, err
	}
	defer root.Close() //nolint:errcheck // only a directory handle
	meta.UserData = userData
	rep, err := Apply(ctx, root, meta, Options{Force: true})
	if err != nil {
		return Simulation{}, err
	}
	return gather(root, rep)
}

// gather makes a Simulation of the actions and of what the tree holds now.
func gather(root *guest.Root, rep Report) (Simulation, error) {
	sim := Simulation{Schema: 1, Warnings: rep.Warnings}
	for _, p := range rep.Plugins {
		if p.Code != CodeDisabled {
			sim.Plugins = append(sim.Plugins, p)
		}
	}
	for _, s := range rep.Scripts {
		sim.Scripts = append(sim.Scripts, s.Phase)
	}
	passwords := map[string]string{}
	files := map[string]guest.Action{}
	for _, a := range root.Actions() {
		switch a.Kind {
		case guest.KindFile, guest.KindDirectory, guest.KindLink, guest.KindAttr:
			a.Secret = a.Secret || files[a.Target].Secret
			if a.Kind == guest.KindAttr && files[a.Target].Kind != "" {
				a.Kind = files[a.Target].Kind
			}
			files[a.Target] = a
		case guest.KindRemove:
			delete(files, a.Target)
		case guest.KindGroup:
			sim.Groups = append(sim.Groups, a.Target)
		case guest.KindPassword:
			passwords[a.Target] = a.Detail
		case guest.KindService:
			sim.service(a)
		case guest.KindMount:
			sim.Mounts = append(sim.Mounts, SimMount{a.Target, a.Detail})
		case guest.KindSysctl:
			sim.Sysctls = append(sim.Sysctls, SimSysctl{a.Target, a.Detail})
		case guest.KindCommand:
			if a.Detail == "" {
				sim.Commands = append(sim.Commands, a.Target)
			}
		case guest.KindNetwork:
			sim.Network = append(sim.Network, a.Target)
		case guest.KindHostname:
			sim.Hostname = a.Target
		case guest.KindUser, guest.KindAccount: // the accounts say it
		}
	}
	if err := sim.users(root, passwords); err != nil {
		return Simulation{}, err
	}
	for _, a := range files {
		sim.Files = append(sim.Files, simFile(root, a))
	}
	slices.SortFunc(sim.Files, func(a, b SimFile) int { return strings.Compare(a.Path, b.Path) })
	return sim, nil
}

func (s *Simulation) service(a guest.Action) {
	for i := range s.Services {
		if s.Services[i].Name == a.Target {
			s.Services[i].Verbs = append(s.Services[i].Verbs, a.Detail)
			return
		}
	}
	s.Services = append(s.Services, SimService{a.Target, []string{a.Detail}})
}

func (s *Simulation) users(root *guest.Root, passwords map[string]string) error {
	accounts, err := root.Accounts()
	if err != nil {
		return err
	}
	groups, err := root.GroupNames()
	if err != nil {
		return err
	}
	for _, acc := range accounts {
		if acc.Name == "root" && passwords["root"] == "" {
			continue
		}
		u := SimUser{Name: acc.Name, UID: acc.UID, Group: groups[acc.GID], Shell: acc.Shell, Home: acc.Home, Password: passwords[acc.Name]}
		if u.Password == "" {
			u.Password = "none: locked"
		}
		for _, g := range groups {
			members, err := root.Members(g)
			if err != nil {
				return err
			}
			if slices.Contains(members, acc.Name) {
				u.Groups = append(u.Groups, g)
			}
		}
		slices.Sort(u.Groups)
		if data, err := root.ReadFile(acc.Home + "/.ssh/authorized_keys"); err == nil {
			u.Keys = len(guest.Lines(data))
		}
		s.Users = append(s.Users, u)
	}
	return nil
}

func simFile(root *guest.Root, a guest.Action) SimFile {
	f := SimFile{Path: a.Target, Kind: string(a.Kind), Mode: a.Mode, Owner: a.Owner, Secret: a.Secret}
	if a.Kind == guest.KindLink {
		f.Target = a.Detail
		return f
	}
	data, err := root.ReadFile(a.Target)
	if err != nil { // a directory, or a file that is only pretended
		return f
	}
	f.Kind, f.Size = string(guest.KindFile), len(data)
	if f.Secret {
		return f // a hash of a short secret gives it away
	}
	sum := sha256.Sum256(data)
	f.SHA256 = hex.EncodeToString(sum[:])
	if utf8.Valid(data) {
		f.Preview = strings.ToValidUTF8(string(data[:min(len(data), previewLimit)]), "")
	}
	return f
}

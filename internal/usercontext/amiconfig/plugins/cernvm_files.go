package plugins

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// extraRepository is one entry of extra_repositories.
type extraRepository struct {
	name, server string
	key          []byte
}

var repositoryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// parseExtraRepositories reads name|server|base64 key, separated by commas.
//
// Differs: the original skips wrong entries silently and takes any name, so that
// one with ".." writes where it likes.
func parseExtraRepositories(value string) ([]extraRepository, error) {
	var p problems
	var repos []extraRepository
	for i, entry := range list(value) {
		f := strings.Split(entry, "|")
		if len(f) != 3 {
			p.addf("extra_repositories: entry %d has %d fields instead of name|server|key", i+1, len(f))
			continue
		}
		key, err := decode(f[2])
		server, _ := strings.CutPrefix(f[1], "http://")
		switch {
		case !repositoryName.MatchString(f[0]) || len(f[0]) > 200:
			p.addf("extra_repositories: entry %d: %q is not the name of a repository", i+1, f[0])
		case server == "" || !plainWord.MatchString(server):
			p.addf("extra_repositories: entry %d: %q is not a server", i+1, f[1])
		case err != nil:
			p.addf("extra_repositories: entry %d: the key of %q is %w", i+1, f[0], err)
		default:
			repos = append(repos, extraRepository{f[0], server, key})
		}
	}
	return repos, p.err()
}

func (e extraRepository) write(root *guest.Root) error {
	key := "/etc/cvmfs/keys/" + e.name + ".pub"
	if err := root.WriteFile(key, append(e.key, '\n'), guest.Attr{Mode: 0o644}); err != nil {
		return err
	}
	text := fmt.Sprintf("CVMFS_SERVER_URL=http://%s/cvmfs/%s\nCVMFS_PUBLIC_KEY=%s\n", e.server, e.name, key)
	return root.WriteFile("/etc/cvmfs/config.d/"+e.name+".conf", []byte(text), guest.Attr{Mode: 0o644})
}

// icon is one entry of desktop_icons.
type icon struct {
	name string
	text []byte
}

// parseIcons reads Name,base64 separated by "%", with "~" for a blank.
func parseIcons(value string) ([]icon, error) {
	var p problems
	var icons []icon
	for i, entry := range strings.Split(value, "%") {
		entry = strings.ReplaceAll(strings.TrimSpace(entry), "~", " ")
		if entry == "" {
			continue
		}
		name, code, _ := strings.Cut(entry, ",")
		text, err := decode(code)
		switch {
		case strings.TrimSpace(name) == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") || len(name) > 200:
			p.addf("desktop_icons: entry %d: %q is not a name for an icon", i+1, name)
		case err != nil || len(text) == 0:
			p.addf("desktop_icons: entry %d: the content of %q is not base64", i+1, name)
		default:
			icons = append(icons, icon{name, text})
		}
	}
	return icons, p.err()
}

func (i icon) write(root *guest.Root) error {
	return root.WriteFile("/etc/skel/Desktop/"+i.name+".desktop", i.text, guest.Attr{Mode: 0o755})
}

// parseEnvironment reads NAME=value, separated by commas.
//
// Differs: a value may hold "=", which in the original ends the plugin before the
// users are made.
func parseEnvironment(value string) ([]assignment, error) {
	var p problems
	var vars []assignment
	for i, entry := range list(value) {
		name, v, ok := strings.Cut(entry, "=")
		switch {
		case !ok || !variable.MatchString(name):
			p.addf("environment: entry %d is not of the form NAME=value", i+1) // the text may be the rest of a secret with a comma in it
		default:
			vars = append(vars, assignment{name, unquote(v)})
		}
	}
	return vars, p.err()
}

// loginScript exports the variables where the OS has no script of CernVM's to do
// so.
const loginScript = "/etc/profile.d/mica-environment.sh"

func writeEnvironment(root *guest.Root, vars []assignment) error {
	if len(vars) == 0 {
		return nil
	}
	var p problems
	conf := assignments{file: environmentConf, set: vars}
	p.add(conf.write(root))
	if root.Exists("/etc/profile.d/cernvm.sh") {
		return p.err()
	}
	lines := []string{"# Variables of the machine's context"}
	for _, v := range vars {
		if word, err := shellWord(v.value); err == nil {
			lines = append(lines, "export "+v.name+"="+word)
		}
	}
	p.add(root.WriteFile(loginScript, guest.Text(lines), guest.Attr{Mode: 0o644}))
	return p.err()
}

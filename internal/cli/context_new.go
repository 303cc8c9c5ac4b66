package cli

import (
	"bufio"
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/convert"
	"github.com/micavm/mica/internal/usercontext/lint"
)

type newFlags struct {
	spec         convert.Spec
	users        []string
	passwordFile string
	scriptFile   string
	ask          bool
	out          string
	force        bool
}

func newContextNew(a *app) *cobra.Command {
	var f newFlags
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Write a context from flags or from answers",
		Long: `Write a new context. Without any flag that says what should be in it, and at a
terminal, the command asks.

Passwords are hashed. A user whose password is neither in --password-file nor
asked for gets a random one, which is printed once.`,
		Example: `  mica context new --user=me --hostname=worker --out=worker.context
  mica context new --ask`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.newContext(cmd, f) },
	}
	flags := cmd.Flags()
	s := &f.spec
	flags.StringArrayVar(&f.users, "user", nil, "NAME or NAME:GROUP of a user to create (may be repeated)")
	flags.StringVar(&f.passwordFile, "password-file", "", "file with one password a line, for the users in turn")
	flags.StringVar(&s.Hostname, "hostname", "", "name of the machine")
	flags.StringSliceVar(&s.Repositories, "repositories", nil, "CernVM-FS repositories below /cvmfs, such as sft,grid")
	flags.StringSliceVar(&s.Organisations, "organisations", nil, "organisations whose login profiles are used")
	flags.StringSliceVar(&s.Services, "services", nil, "services to start at every boot")
	flags.StringSliceVar(&s.Environment, "env", nil, "NAME=value for every login")
	flags.StringVar(&s.Proxy, "proxy", "", "proxies, such as http://squid.example.org:3128;DIRECT")
	flags.BoolVar(&s.Desktop, "desktop", false, "boot into the graphical desktop")
	flags.StringVar(&s.Branch, "repository", "", "repository that holds the operating system")
	flags.StringVar(&s.Tag, "tag", "", "named snapshot of that repository")
	flags.StringVar(&s.Path, "path", "", "directory of that repository that becomes the root")
	flags.StringVar(&f.scriptFile, "script", "", "file with a shell script to run as root at the first boot")
	flags.BoolVar(&s.Before, "before", false, "run the script before users and services are there")
	flags.BoolVar(&f.ask, "ask", false, "ask for everything")
	outFlags(cmd, &f.out, &f.force)
	return cmd
}

func (a *app) newContext(cmd *cobra.Command, f newFlags) error {
	said := false
	for _, name := range []string{"user", "hostname", "repositories", "organisations", "services", "env", "proxy", "desktop", "repository", "tag", "path", "script"} {
		said = said || cmd.Flags().Changed(name)
	}
	if f.ask || !said && isTerminal(a.In) {
		if err := a.askForContext(&f); err != nil {
			return err
		}
	}
	if f.scriptFile != "" {
		data, err := a.readFile(f.scriptFile)
		if err != nil {
			return err
		}
		f.spec.Script = string(data)
	}
	if err := a.accounts(&f); err != nil {
		return err
	}
	data, err := convert.New(f.spec, rand.Reader)
	if err != nil {
		return err
	}
	c, err := usercontext.Parse("the new context", data)
	if err != nil {
		return err
	}
	for _, p := range lint.Check(c, lint.Options{}) {
		if p.Severity == usercontext.Error {
			return fail.New(fail.Usage, "the context would not work: %s", p.Text).Hint("%s", p.Remedy)
		}
		if p.Severity == usercontext.Warning {
			_, _ = fmt.Fprintf(a.Err, "warning: %s\n", p.Text)
		}
	}
	return a.writeContext(f.out, data, f.force)
}

// accounts makes users of the flags, and gives each a password.
func (a *app) accounts(f *newFlags) error {
	var passwords []string
	if f.passwordFile != "" {
		data, err := a.readFile(f.passwordFile)
		if err != nil {
			return err
		}
		passwords = strings.Split(strings.TrimRight(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n"), "\n")
	}
	for i, user := range f.users {
		name, group, _ := strings.Cut(user, ":")
		account := convert.Account{Name: name, Group: group}
		if i < len(passwords) {
			account.Password = passwords[i]
		} else {
			password, err := randomPassword()
			if err != nil {
				return err
			}
			account.Password = password
			_, _ = fmt.Fprintf(a.Err, "password of %s: %s (shown only this once)\n", name, password)
		}
		f.spec.Users = append(f.spec.Users, account)
	}
	return nil
}

// randomPassword is 80 random bits in letters and digits that are hard to confuse.
func randomPassword() (string, error) {
	b := make([]byte, 10)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(b)), nil
}

// askForContext fills in the flags from answers.
func (a *app) askForContext(f *newFlags) error {
	in := bufio.NewReader(a.In)
	s := &f.spec
	list := func(text string) []string {
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	yes := func(text string) bool { return strings.HasPrefix(strings.ToLower(text), "y") }
	for _, q := range []struct {
		text, suggestion string
		take             func(string)
	}{
		{"Name of the machine (empty: the platform's)", s.Hostname, func(v string) { s.Hostname = v }},
		{"Users to create, with blanks between them", strings.Join(f.users, " "), func(v string) { f.users = list(v) }},
		{"CernVM-FS repositories to mount, such as sft grid", strings.Join(s.Repositories, " "), func(v string) { s.Repositories = list(v) }},
		{"Services to start at every boot", strings.Join(s.Services, " "), func(v string) { s.Services = list(v) }},
		{"Graphical desktop, y or n", "n", func(v string) { s.Desktop = yes(v) }},
		{"Proxy, such as http://squid.example.org:3128;DIRECT (empty: none)", s.Proxy, func(v string) { s.Proxy = v }},
		{"Repository of the operating system (empty: the image's)", s.Branch, func(v string) { s.Branch = v }},
		{"File with a script to run at the first boot (empty: none)", f.scriptFile, func(v string) { f.scriptFile = v }},
	} {
		answer, err := a.question(in, q.text, q.suggestion)
		if err != nil {
			return err
		}
		q.take(answer)
	}
	if f.out == "" {
		out, err := a.question(in, "File to write (empty: to the terminal)", "")
		if err != nil {
			return err
		}
		f.out = out
	}
	return nil
}

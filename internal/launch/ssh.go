package launch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
)

const knownHosts = "known_hosts"

// ssh logs in: this program becomes the ssh client.
//
// Compat: the checks, their order, -Y and the address are the original's
// (cernvm-launch: src/RequestHandler.cpp).
//
// Differs: -p and the port are two arguments; the key of each machine's host is
// kept in its own file under its own alias, since machines share the address and
// reuse ports; it works on Windows, too. What follows the name is a command to
// carry out there.
func (s *session) ssh(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usage("Invalid arguments: 'ssh' takes a machine name, and a command or none")
	}
	target, command := args[0], args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	login, name, found := strings.Cut(target, "@")
	if !found {
		login, name = "", target
	}
	r, err := s.get(name)
	if err != nil {
		return err
	}
	state, err := s.state(ctx, r)
	if err != nil {
		return fmt.Errorf("asking for the state of %q: %w", name, err)
	}
	if state != machine.Running && state != machine.Paused {
		return fail.New(fail.Usage, "Machine '%s' is not running", name).Hint("'cernvm-launch start %s' makes it run", name)
	}
	if login == "" {
		if login, err = s.ask(ctx, "Username: "); err != nil {
			return err
		}
	}
	if login == "" {
		return fail.New(fail.Usage, "No user name was given")
	}
	if strings.HasPrefix(login, "-") || strings.ContainsAny(login, " \t\r\n") { // ssh would take it for an option
		return fail.New(fail.Usage, "%q is no user name", login)
	}
	path, err := exec.LookPath("ssh")
	if err != nil {
		return fail.New(fail.HostLacks, "Unable to find ssh on this computer").Hint("install OpenSSH's client")
	}
	port := r.values[localPort]
	if port == "" {
		return fail.New(fail.NotFound, "The machine %s has no forwarded port", name)
	}
	if guest := r.values[keyAPIPort]; guest != "" && guest != fmt.Sprint(guestSSH) {
		s.tell("note: the forwarded port leads to port %s of the machine, which may not be SSH", guest)
	}
	if err := os.MkdirAll(r.folder(), 0o700); err != nil {
		return fmt.Errorf("keeping the host key of %q: %w", name, err)
	}
	argv := []string{
		"ssh", "-Y", "-p", port, "-o", "HostKeyAlias=cernvm-" + r.id,
		"-o", "UserKnownHostsFile=" + quoteOption(filepath.Join(r.folder(), knownHosts)), login + "@127.0.0.1",
	}
	if len(command) > 0 {
		argv = append(append(argv, "--"), command...)
	}
	code, err := s.SSH(ctx, path, argv)
	if err != nil {
		return fmt.Errorf("Unable to run ssh: %w", err) //nolint:staticcheck // begins as the original's line does
	}
	if code != 0 {
		return spoken(code)
	}
	return nil
}

// quoteOption writes a path for ssh's configuration, where percent signs,
// blanks, quotes and backslashes have a meaning of their own.
func quoteOption(path string) string {
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.ContainsAny(path, " \t#'\"\\") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(path) + `"`
	}
	return path
}

package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
)

// Environment variables of the drop-in.
const (
	envHome   = "MICA_LAUNCH_HOME"         // the user's home folder, in place of the user database's
	envServer = "MICA_LAUNCH_IMAGE_SERVER" // where images come from
)

const configName = ".cernvm-launch.conf"

// defaults are the values of last resort, in the order they are written.
//
// Compat: cernvm-launch: src/Tools.cpp.
var defaultOrder = []string{keyAPIPort, keyVersion, keyCPUs, keyMemory, keyDisk, keyCap, keyFlags}

func defaults() settings {
	return settings{
		keyAPIPort: "22", keyVersion: "latest", keyCPUs: "1", keyMemory: "2048", keyDisk: "20000", keyCap: "100", keyFlags: "49",
	}
}

// session is a program with its configuration and its folders.
type session struct {
	*Program
	config  settings // the global one
	runtime string   // the runtime folder, absolute
}

func (s *session) runDir() string   { return filepath.Join(s.runtime, "run") }
func (s *session) cacheDir() string { return filepath.Join(s.runtime, "cache") }

// home returns the user's home folder.
//
// Compat: it comes from the user database, not from HOME (cernvm-launch:
// src/Tools.cpp); on Windows from USERPROFILE.
func (p *Program) home() (string, error) {
	if dir := p.Getenv(envHome); dir != "" {
		return filepath.Abs(dir)
	}
	if p.system == "windows" {
		if dir := p.Getenv("USERPROFILE"); dir != "" {
			return dir, nil
		}
		return "", fail.New(fail.Failed, "Unable to find the home folder: USERPROFILE is not set")
	}
	u, err := user.Current()
	if err != nil || u.HomeDir == "" {
		return "", fail.New(fail.Failed, "Unable to find the home folder of user %d: %w", os.Getuid(), errors.Join(err)).
			Hint("set %s", envHome)
	}
	return u.HomeDir, nil
}

// base returns the folder that the runtime folder is made in by default.
//
// Compat: libcernvm: src/Utilities.cpp.
func (p *Program) base(home string) string {
	switch p.system {
	case "darwin":
		return filepath.Join(home, "Library", "Application Support")
	case "windows":
		if dir := p.Getenv("APPDATA"); dir != "" {
			return dir
		}
		return filepath.Join(home, "AppData", "Roaming")
	}
	return home
}

// runtimeName is the folder's own name below the base.
func (p *Program) runtimeName() string {
	if p.system == "darwin" || p.system == "windows" {
		return "CernVM"
	}
	return ".cernvm"
}

// open reads the configuration, makes it where there is none, and makes the
// folders.
//
// Differs: a runtime folder that cannot be made ends the program; the original
// goes on and takes the base folder itself for it.
func (p *Program) open(ctx context.Context) (*session, error) {
	home, err := p.home()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(home, configName)
	config, err := readSettings(path)
	if errors.Is(err, fs.ErrNotExist) {
		config, err = p.firstConfig(ctx, path, home)
	}
	if err != nil {
		return nil, fmt.Errorf("Unable to read the configuration %s: %w", path, err) //nolint:staticcheck // begins as the original's line does
	}
	config.dropInternal(p.tell, path)
	base := config[keyLaunchHome]
	if base == "" {
		base = p.base(home)
	}
	if base, err = filepath.Abs(base); err != nil {
		return nil, fmt.Errorf("Unable to use %s of %s: %w", keyLaunchHome, path, err) //nolint:staticcheck // as above
	}
	s := &session{Program: p, config: config, runtime: filepath.Join(base, p.runtimeName())}
	for _, dir := range []string{base, s.runtime, s.runDir(), s.cacheDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fail.New(fail.Failed, "Unable to make the runtime folder: %w", err).Hint("name another one as %s in %s", keyLaunchHome, path)
		}
	}
	return s, nil
}

// firstConfig asks for the base folder and writes the configuration.
//
// Differs: the file is written when every question is answered, readable to its
// owner only, all or nothing; the original leaves an empty one behind when it is
// interrupted. Where standard input is no terminal the default is taken and
// nothing read: a job must not hang on its first run.
func (p *Program) firstConfig(ctx context.Context, path, home string) (settings, error) {
	dir := p.base(home)
	p.say("No configuration file was found. It will be written to: %s", path)
	p.say("Machines and images are kept below a base directory, which must be able to hold them.")
	question := fmt.Sprintf("Enter directory [%s]: ", dir)
	if !p.Terminal {
		p.say("%s%s", question, dir)
	} else {
		answer, err := p.ask(ctx, question)
		if err != nil {
			return nil, err
		}
		if answer != "" {
			dir = p.chosen(answer, dir)
		}
	}
	values := defaults()
	values[keyShared], values[keyLaunchHome] = home, dir
	var text strings.Builder
	text.WriteString("# Configuration of cernvm-launch: one key=value a line.\n\n# Folder of this computer that machines may read and write; none for no folder\n")
	fmt.Fprintf(&text, "%s=%s\n\n# Base folder of machines and images\n%s=%s\n\n# Defaults of new machines\n", keyShared, home, keyLaunchHome, dir)
	for _, key := range defaultOrder {
		fmt.Fprintf(&text, "%s=%s\n", key, values[key])
	}
	if err := atomicfile.Write(path, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	return values, nil
}

// chosen makes the folder that a user asked for, or falls back.
func (p *Program) chosen(answer, fallback string) string {
	dir := filepath.Clean(answer)
	if !filepath.IsAbs(dir) {
		p.tell("Warning: %q is not an absolute path, using %s", answer, fallback)
		return fallback
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.tell("Warning: unable to make the directory (%v), using %s", err, fallback)
		return fallback
	}
	return dir
}

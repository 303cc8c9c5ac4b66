package amiconfig

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// scriptDir holds the script while it runs, helperDir programs it may need.
const (
	scriptDir = stateDir + "/run"
	helperDir = "/run/mica/bin"
)

// runScript runs the context's script for one phase.
//
// Compat: as root, without a terminal, output apart, nothing depends on its exit
// code; a process above it has "amiconfig" in its command line, which most
// contexts look for to tell this run from one by cloud-init; bash, under a name
// that does not make it strict (cernvm-config: etc/cernvm/postinstall links
// sh.before and sh.after).
func runScript(ctx context.Context, root *guest.Root, phase string, script usercontext.Script, metadata string, timeout time.Duration) ScriptResult {
	began := root.Now()
	result := ScriptResult{Phase: phase, Log: path.Join(logDir, "script-"+phase+".log")}
	fail := func(err error) ScriptResult {
		result.Code, result.Log, result.Problem = -1, "", err.Error()
		return result
	}
	if root.Pretend() {
		root.Note(guest.Action{Kind: guest.KindCommand, Target: "the context's script", Detail: "phase " + phase})
		result.Log = ""
		return result
	}
	suffix, err := root.Random(8)
	if err != nil {
		return fail(err)
	}
	file := path.Join(scriptDir, "amiconfig-user-data-"+suffix+".sh")
	if err := root.WriteState(file, script.Text); err != nil {
		return fail(err)
	}
	defer func() { _ = root.RemoveState(file) }()
	log, err := root.OpenLog(result.Log)
	if err != nil {
		return fail(err)
	}
	defer log.Close()
	env := []string{
		"AMICONFIG_CONTEXT_URL=file:" + metadata,
		"AMICONFIG_LOCAL_USER_DATA=" + path.Join(metadata, "user-data"),
	}
	if !procps(root) {
		if err := root.WriteFile(path.Join(helperDir, "ps"), []byte(tinyPS), guest.Attr{Mode: 0o755}); err != nil {
			return fail(err)
		}
		env = append(env, "PATH="+root.HostPath(helperDir)+":"+guest.PATH())
	}
	if timeout == 0 {
		timeout = -1
	}
	// The shell in between is the ancestor whose command line has the word. It
	// must outlive the script, so it has something left to do.
	args := []string{"-c", `"$@"; exit $?`, "amiconfig.sh"}
	args = append(args, shellFor(root, script.Text)...)
	args = append(args, root.HostPath(file))
	root.Note(guest.Action{Kind: guest.KindCommand, Target: "the context's script", Detail: "phase " + phase})
	res, err := root.Start(ctx, guest.Command{Name: "/bin/sh", Args: args, Env: env, Output: log, Timeout: timeout})
	result.Seconds = root.Now().Sub(began).Seconds()
	result.Code = res.Code
	if err != nil {
		result.Problem = err.Error()
	}
	return result
}

// shellFor returns the interpreter and the options of its first line.
//
// Compat: contexts for "sh" use what bash has, so bash runs them where there is
// one. Differs: options on the first line count; in the original a script with
// any is never run.
func shellFor(root *guest.Root, text []byte) []string {
	first, _, _ := strings.Cut(string(text), "\n")
	words := strings.Fields(strings.TrimPrefix(strings.TrimSpace(first), "#!"))
	if len(words) > 0 && path.Base(words[0]) == "env" {
		words = words[1:]
		for len(words) > 0 && strings.HasPrefix(words[0], "-") {
			words = words[1:]
		}
	}
	shell := "/bin/sh"
	if root.Has("/bin/bash") {
		shell = "/bin/bash"
	}
	if len(words) == 0 {
		return []string{shell}
	}
	name := path.Base(words[0])
	if name == "ksh" || name == "mksh" || name == "zsh" {
		if full := path.Clean("/bin/" + name); root.Has(full) {
			shell = full
		}
	}
	return append([]string{shell}, words[1:]...)
}

// procps reports whether ps understands "-o ppid= -p PID", which busybox does not.
func procps(root *guest.Root) bool {
	for _, name := range []string{"/usr/bin/ps", "/bin/ps"} {
		if real, err := root.Real(name); err == nil && root.Has(real) {
			return !strings.HasPrefix(path.Base(real), "busybox")
		}
	}
	return false
}

// tinyPS stands in for ps where that is missing or too small.
const tinyPS = `#!/bin/sh
# Answers "ps -o ppid= -p PID", which the scripts of contexts ask; the rest goes
# to the real ps.
case "$1 $2 $3" in
"-o ppid= -p") pid=$4 ;;
"-p $2 -o") [ "$4" = "ppid=" ] && pid=$2 ;;
esac
if [ -n "$pid" ]; then
	[ -r "/proc/$pid/status" ] || exit 1
	while read -r key value; do
		if [ "$key" = "PPid:" ]; then
			echo "$value"
			exit 0
		fi
	done <"/proc/$pid/status"
	exit 1
fi
for ps in /usr/bin/ps /bin/ps; do
	[ -x "$ps" ] && exec "$ps" "$@"
done
exec busybox ps "$@"
`

// cloudInitRuns reports whether the system's cloud-init runs on this boot.
func cloudInitRuns(root *guest.Root) bool {
	return root.Exists("/usr/bin/cloud-init") && !root.Exists("/etc/cloud/cloud-init.disabled") && !masked(root, "cloud-final.service")
}

// twice returns a warning when cloud-init will run the same script again.
func twice(root *guest.Root, script usercontext.Script) string {
	if !cloudInitRuns(root) {
		return ""
	}
	if strings.Contains(string(script.Text), "amiconfig") {
		return ""
	}
	return fmt.Sprintf("the script (line %d) will run twice: cloud-init runs it too, and it does not look who called it", script.Line)
}

// masked reports whether a unit is masked: a link to /dev/null, as the boot leaves
// for cloud-init when the context holds nothing for it.
func masked(root *guest.Root, unit string) bool {
	for _, dir := range []string{"/etc/systemd/system/", "/run/systemd/system/"} {
		if fi, err := root.Stat(dir + unit); err == nil && fi.Mode()&fs.ModeDevice != 0 {
			return true
		}
	}
	return false
}

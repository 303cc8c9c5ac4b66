package launch_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine"
	program "github.com/micavm/mica/internal/version"
)

// TestHowto runs what docs/howto/switch-from-cernvm-launch.md shows, and sees
// that every command of its table is one.
func TestHowto(t *testing.T) {
	page, err := os.ReadFile("../../docs/howto/switch-from-cernvm-launch.md")
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t)
	m := d.useMemory()
	d.write(".cernvm/run/vbsess-"+oldID+".conf", "apiPort=22\ncernvmVersion=2.7-7\ncpus=1\nflags=1\nlocal/apiPort=2299\nmemory=64\nname=worker\nuuid="+oldID+"\nvboxid="+oldID+"\n")
	m.set(oldID, machine.Running)

	block := regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindSubmatch(page)
	if block == nil {
		t.Fatal("the page shows no commands")
	}
	var want, got strings.Builder
	for line := range strings.Lines(string(block[1])) {
		command, is := strings.CutPrefix(line, "$ ")
		args, ours := strings.CutPrefix(strings.TrimSpace(command), "cernvm-launch ")
		switch {
		case is && ours:
			got.WriteString(strings.ReplaceAll(d.must(strings.Fields(args)...).out, "9.9", program.Number))
		case !is:
			want.WriteString(line)
		}
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" || want.Len() == 0 {
		t.Errorf("what the page shows (-page +program):\n%s", diff)
	}

	commands := 0
	for _, row := range regexp.MustCompile(`(?m)^\| (.*?) \|`).FindAllStringSubmatch(string(page), -1) {
		for _, span := range regexp.MustCompile("`([a-z].*?)`").FindAllStringSubmatch(row[1], -1) {
			word, _, _ := strings.Cut(span[1], " ")
			if !strings.Contains(row[0], "NAME") && word != "prune" && word != "create" && word != "import" {
				continue // what the original does
			}
			line := strings.NewReplacer("[user@]", "me@", "[NAME]", "worker", "NAME", "worker", "COMMAND...", "true").Replace(span[1])
			if word == "start" && strings.Contains(line, "--wait") {
				continue // for a server that is not there; TestWait has one
			}
			commands++
			args := strings.Fields(line)
			if word == "create" || word == "import" { // the table shows the option only
				args = append(args, "--no-start", "--name", word, d.path("UD"))
			}
			if r := d.run("", args...); r.code == 3 || strings.Contains(r.err, "Invalid arguments") || strings.Contains(r.err, "Unknown option") {
				t.Errorf("%q ended with %d: %s", span[1], r.code, r.err)
			}
			m.set(oldID, machine.Running)
		}
	}
	if commands < 8 {
		t.Errorf("the page's table has %d commands, which is hard to believe", commands)
	}
}

package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/micavm/mica/internal/cli"
)

// onWrite calls done with whatever is written.
type onWrite struct {
	bytes.Buffer
	done func()
}

func (w *onWrite) Write(b []byte) (int, error) {
	defer w.done()
	return w.Buffer.Write(b)
}

// TestDeliveryHowto runs the commands of docs/howto/deliver-a-context.md, and has
// its list of machines served.
func TestDeliveryHowto(t *testing.T) {
	page, err := os.ReadFile("../../docs/howto/deliver-a-context.md")
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile("../../examples/demo.context")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	block := func(kind string) string {
		m := regexp.MustCompile("(?ms)^```" + kind + "$\n(.*?)^```$").FindSubmatch(page)
		if m == nil {
			t.Fatalf("the page has no block %s", kind)
		}
		return string(m[1])
	}
	for name, text := range map[string]string{"worker.context": string(first), "id.pub": "ssh-ed25519 AAAA me@here\n", "machines.json": block("json machines")} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(ctx context.Context, out *onWrite, args ...string) {
		t.Helper()
		var stderr bytes.Buffer
		if code := cli.Main(ctx, cli.IO{In: strings.NewReader(""), Out: out, Err: &stderr, Env: func(string) string { return "" }}, args); code != 0 {
			t.Errorf("%s: exit code %d\n%s%s", strings.Join(args, " "), code, out.String(), stderr.String())
		}
	}
	ran := 0
	for line := range strings.Lines(block("console run")) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if !ok {
			t.Fatalf("%q is no command", line)
		}
		run(t.Context(), &onWrite{done: func() {}}, strings.Fields(command)...)
		ran++
	}
	made, err := filepath.Glob("worker.*")
	if err != nil || ran < 5 || len(made) != 3 {
		t.Errorf("%d commands left %v, %v", ran, made, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &onWrite{done: cancel}
	run(ctx, out, "mica", "metadata", "serve", "--listen", "127.0.0.1:0", "--machines", "machines.json")
	if !regexp.MustCompile(`^two\thttp://127\.0\.0\.1:\d+/[0-9a-f]{40}/\n$`).MatchString(out.String()) {
		t.Errorf("metadata serve printed %q", out.String())
	}
}

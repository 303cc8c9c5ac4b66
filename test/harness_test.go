package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micavm/mica/internal/tier"
)

// repositoryName is that of scripts/demo-assets.sh.
const repositoryName = "demo.mica.test"

// patience is how long a boot may take on a slow and busy computer without KVM.
// It bounds a failure; a boot takes a tenth of it.
const patience = 8 * time.Minute

// assets returns the folder that scripts/demo-assets.sh filled.
func assets(t *testing.T) string {
	t.Helper()
	tier.VM(t)
	dir := os.Getenv("MICA_TEST_ASSETS")
	if dir == "" {
		t.Fatal("MICA_TEST_ASSETS is not set: run 'scripts/demo-assets.sh', then set it to build/demo")
	}
	return dir
}

// repositoryServer serves the published repository where the image looks for it,
// counts requests, and can be made to misbehave.
type repositoryServer struct {
	t       *testing.T
	dir     string
	address string
	http    *http.Server

	mu       sync.Mutex // guards what follows
	requests int
	fault    func(http.ResponseWriter, *http.Request) bool // answers instead of the file
}

func newRepositoryServer(t *testing.T) *repositoryServer {
	t.Helper()
	dir := assets(t)
	port, err := os.ReadFile(filepath.Join(dir, "port"))
	if err != nil {
		t.Fatal(err)
	}
	s := &repositoryServer{t: t, dir: filepath.Join(dir, "repo"), address: "127.0.0.1:" + strings.TrimSpace(string(port))}
	t.Cleanup(s.stop)
	return s
}

func (s *repositoryServer) start() {
	s.t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatalf("serving the repository: %v (is a demo running? 'make demo-stop' ends it)", err)
	}
	files := http.StripPrefix("/cvmfs/", http.FileServer(http.Dir(s.dir)))
	s.http = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests++
		fault := s.fault
		s.mu.Unlock()
		if fault == nil || !fault(w, r) {
			files.ServeHTTP(w, r)
		}
	})}
	go func(server *http.Server) { _ = server.Serve(listener) }(s.http)
}

func (s *repositoryServer) stop() {
	if s.http != nil {
		_ = s.http.Close()
		s.http = nil
	}
}

func (s *repositoryServer) misbehave(fault func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func (s *repositoryServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// mica runs the command with a home of its own.
type mica struct {
	t    *testing.T
	home string
	in   []string // the program and arguments that run it elsewhere
}

func newMica(t *testing.T) *mica {
	t.Helper()
	m := &mica{t: t, home: filepath.Join(t.TempDir(), "mica")}
	t.Cleanup(func() { // whatever a failed story left running
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out, _ := m.command(ctx, "list", "--output", "name").Output()
		for _, name := range strings.Fields(string(out)) {
			_ = m.command(ctx, "destroy", "--force", name).Run()
		}
	})
	return m
}

func (m *mica) command(ctx context.Context, args ...string) *exec.Cmd {
	line := slices.Concat(m.in, []string{"../bin/mica"}, args)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...) //nolint:gosec // the program under test
	cmd.Env = append(os.Environ(), "MICA_HOME="+m.home, "HOME="+filepath.Dir(m.home))
	return cmd
}

// result is what a finished command left.
type result struct {
	stdout, stderr string
	code           int
}

// try runs a command to its end, whatever that is.
func (m *mica) try(args ...string) result {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	cmd := m.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	r := result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("mica %s: %v", strings.Join(args, " "), err)
	}
	m.t.Logf("mica %s: exit code %d after %.1f s", strings.Join(args, " "), r.code, time.Since(began).Seconds())
	return r
}

// run runs a command that must succeed and returns its standard output.
func (m *mica) run(args ...string) string {
	m.t.Helper()
	r := m.try(args...)
	if r.code != 0 {
		m.t.Fatalf("mica %s: exit code %d\nstdout: %s\nstderr: %s\n%s", strings.Join(args, " "), r.code, r.stdout, r.stderr, m.serialTail())
	}
	return r.stdout
}

// fails runs a command that must end with the given code and say each of the words.
func (m *mica) fails(code int, words []string, args ...string) result {
	m.t.Helper()
	r := m.try(args...)
	if r.code != code {
		m.t.Errorf("mica %s: exit code %d, want %d\nstderr: %s", strings.Join(args, " "), r.code, code, r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			m.t.Errorf("mica %s: stderr does not say %q:\n%s", strings.Join(args, " "), word, r.stderr)
		}
	}
	return r
}

// ssh runs a command line in the machine as the given user.
func (m *mica) ssh(machine, user, line string) string {
	m.t.Helper()
	return m.run("ssh", "--user", user, machine, "--", line)
}

// json runs a command with --output json and decodes it.
func (m *mica) json(v any, args ...string) {
	m.t.Helper()
	out := m.run(append(args, "--output", "json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		m.t.Fatalf("mica %s: %v in %s", strings.Join(args, " "), err, out)
	}
}

// serialTail returns the end of every serial log, for the report of a failure.
func (m *mica) serialTail() string {
	logs, _ := filepath.Glob(filepath.Join(m.home, "machines", "*", "serial.log"))
	var out strings.Builder
	for _, file := range logs {
		data, _ := os.ReadFile(file)
		if len(data) > 6000 {
			data = data[len(data)-6000:]
		}
		out.WriteString("--- end of " + file + "\n" + string(data) + "\n")
	}
	return out.String()
}

// eventually waits until check is content.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Second) {
		if check() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

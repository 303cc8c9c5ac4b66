package run_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/run"
)

func TestHost(t *testing.T) {
	r, err := run.Host{}.Run(t.Context(), run.Command{Name: "sh", Args: []string{"-c", `printf "$LC_ALL $X"`}, Env: []string{"X=1"}})
	if err != nil || string(r.Stdout) != "C.UTF-8 1" {
		t.Errorf("Run = %q, %v; want \"C.UTF-8 1\"", r.Stdout, err)
	}
}

func TestHostFailureCarriesOutputAndMasks(t *testing.T) {
	_, err := run.Host{}.Run(t.Context(), run.Command{
		Name: "sh", Args: []string{"-c", "echo out; echo first >&2; echo last >&2; exit 7", "hunter2"}, Secrets: []string{"hunter2"},
	})
	var re *run.Error
	if !errors.As(err, &re) || re.Result.Code != 7 || string(re.Result.Stdout) != "out\n" {
		t.Fatalf("Run = %v, want a *run.Error with code 7 and output", err)
	}
	if msg := err.Error(); strings.Contains(msg, "hunter2") || !strings.Contains(msg, "last") {
		t.Errorf("message %q: want the last line of stderr and no secret", msg)
	}
}

func TestHostMissingProgram(t *testing.T) {
	if _, err := (run.Host{}).Run(t.Context(), run.Command{Name: "no-such-program-anywhere"}); !fail.Is(err, fail.HostLacks) {
		t.Errorf("Run = %v, want class HostLacks", err)
	}
}

func TestHostTimeout(t *testing.T) {
	_, err := run.Host{}.Run(t.Context(), run.Command{Name: "sleep", Args: []string{"60"}, Timeout: 50 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run = %v, want deadline exceeded", err)
	}
}

func TestReplayIsStrict(t *testing.T) {
	p := run.NewReplay(run.Exchange{Line: "a 1", Stdout: "x"}, run.Exchange{Line: "b", Code: 2, Stderr: "no"})
	if _, err := p.Run(t.Context(), run.Command{Name: "b"}); err == nil {
		t.Error("a command out of turn was answered")
	}
	if r, err := p.Run(t.Context(), run.Command{Name: "a", Args: []string{"1"}}); err != nil || string(r.Stdout) != "x" {
		t.Errorf("Run(a 1) = %q, %v", r.Stdout, err)
	}
	var re *run.Error
	if _, err := p.Run(t.Context(), run.Command{Name: "b"}); !errors.As(err, &re) || re.Result.Code != 2 {
		t.Errorf("Run(b) = %v, want exit code 2", err)
	}
	if left := p.Left(); len(left) != 0 {
		t.Errorf("Left = %v, want none", left)
	}
}

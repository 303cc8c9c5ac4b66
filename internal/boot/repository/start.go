package repository

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/micavm/mica/internal/fail"
)

// File descriptors of the child.
const (
	configFD = 3
	reportFD = 4
)

// report is one line of the child to its parent; exactly one field is set.
type report struct {
	Progress string   `json:"progress,omitempty"`
	Ready    *Ready   `json:"ready,omitempty"`
	Failed   *failure `json:"failed,omitempty"`
}

// failure is an error that crosses a pipe.
type failure struct {
	Class  fail.Class `json:"class"`
	Cause  string     `json:"cause"`
	Remedy string     `json:"remedy,omitempty"`
}

func (f *failure) err() error {
	err := fail.New(f.Class, "%s", f.Cause)
	if f.Remedy != "" {
		return err.Hint("%s", f.Remedy)
	}
	return err
}

// Start runs exe once more as the repository process and waits until the mount
// stands. Servers that do not answer yet are asked again until ctx ends; then,
// and whenever there is no point in waiting, the child is ended and the error
// says why, with a remedy. The child goes on when the caller's process becomes
// another program.
func Start(ctx context.Context, exe string, c Config) (Ready, error) {
	child, send, receive, err := spawn(exe)
	if err != nil {
		return Ready{}, fmt.Errorf("starting the repository process: %w", err)
	}
	ready, err := handshake(ctx, c, send, receive)
	_ = send.Close()
	_ = receive.Close()
	if err == nil {
		return ready, child.Release()
	}
	_ = child.Kill() // it has ended or must end
	if _, waitErr := child.Wait(); waitErr != nil && !errors.Is(waitErr, syscall.ECHILD) {
		err = errors.Join(err, fmt.Errorf("ending the repository process: %w", waitErr))
	}
	return Ready{}, fmt.Errorf("mounting repository %q: %w", c.Name, err)
}

func spawn(exe string) (child *os.Process, send, receive *os.File, err error) {
	var files []*os.File // those of the child
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, nil, err
	}
	files = append(files, null)
	messages := os.Stderr
	if os.Getpid() == 1 { // the console belongs to others soon
		messages = null
		if kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
			messages = kmsg
			files = append(files, kmsg)
		}
	}
	config, send, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	files = append(files, config)
	receive, reports, err := os.Pipe()
	if err != nil {
		_ = send.Close()
		return nil, nil, nil, err
	}
	files = append(files, reports)
	child, err = os.StartProcess(exe, []string{Argv0}, &os.ProcAttr{
		Dir:   "/",
		Env:   childEnvironment(),
		Files: []*os.File{null, messages, messages, config, reports},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		_ = send.Close()
		_ = receive.Close()
		return nil, nil, nil, err
	}
	return child, send, receive, nil
}

// childEnvironment keeps what the client reads: the proxy of the environment,
// and what a developer set for the runtime.
func childEnvironment() []string {
	env := []string{}
	for _, name := range []string{"http_proxy", "GOGC", "GOMEMLIMIT", "GODEBUG", "GOTRACEBACK", "MICA_DEBUG"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// handshake sends the configuration and follows the child until it is ready.
func handshake(ctx context.Context, c Config, send io.Writer, receive *os.File) (Ready, error) {
	if err := json.NewEncoder(send).Encode(c); err != nil {
		return Ready{}, fmt.Errorf("sending the configuration: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = receive.SetReadDeadline(time.Now()) })
	defer stop()
	last := ""
	for lines := bufio.NewScanner(receive); lines.Scan(); {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return Ready{}, fmt.Errorf("reading the report: %w", err)
		}
		switch {
		case r.Ready != nil:
			return *r.Ready, nil
		case r.Failed != nil:
			return Ready{}, r.Failed.err()
		case r.Progress != "":
			last = r.Progress
			if c.Progress != nil {
				c.Progress(r.Progress)
			}
		}
	}
	if ctx.Err() != nil {
		if last == "" {
			last = "no answer from the repository process"
		}
		err := fail.New(fail.TimedOut, "%s: %w", last, context.Cause(ctx))
		return Ready{}, err.Hint("check the network, the proxy and the servers of the repository")
	}
	return Ready{}, errors.New("the process ended without a word; the kernel log may say why")
}

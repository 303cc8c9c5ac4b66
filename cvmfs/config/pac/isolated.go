package pac

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/run"
)

const (
	// TimeLimit is how long a script may take, its questions to the name service
	// included.
	TimeLimit = 10 * time.Second

	memoryLimit = 384 << 20 // of the whole process, the program itself included
	maxRequest  = 4 << 20
)

// Isolated evaluates scripts in a process of their own.
type Isolated struct {
	Runner run.Runner
	Path   string // of a program that calls Serve, such as this one
	Args   []string
}

type request struct{ Script, URL, Host string }

type reply struct{ Answer, Error string }

// Evaluate is like the function, without the world's details; it suits
// client.Network.EvaluatePAC.
func (i Isolated) Evaluate(ctx context.Context, script []byte, url, host string) (string, error) {
	text, err := json.Marshal(request{string(script), url, host})
	if err != nil {
		return "", fmt.Errorf("running a proxy script: %w", err)
	}
	result, err := i.Runner.Run(ctx, run.Command{Name: i.Path, Args: i.Args, Stdin: bytes.NewReader(text), Timeout: TimeLimit + 5*time.Second})
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil { // the kernel ended it
		return "", fmt.Errorf("%w: it takes too much memory or time", ErrScript)
	}
	var r reply
	if err := json.Unmarshal(result.Stdout, &r); err != nil {
		return "", fmt.Errorf("running a proxy script: %w", err)
	}
	if r.Error != "" {
		return "", fmt.Errorf("%w: %s", ErrScript, r.Error)
	}
	return r.Answer, nil
}

// Serve is the process: it limits itself, evaluates what it reads, and answers.
// The process is good for nothing else afterwards.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_DATA: memoryLimit, unix.RLIMIT_CPU: uint64(TimeLimit/time.Second) + 2, unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("limiting the proxy script: %w", err)
		}
	}
	debug.SetMemoryLimit(memoryLimit / 3)
	debug.SetTraceback("none")
	data, err := io.ReadAll(io.LimitReader(in, maxRequest+1))
	if err == nil && len(data) > maxRequest {
		err = errors.New("the script is too long")
	}
	var q request
	if err == nil {
		err = json.Unmarshal(data, &q)
	}
	if err != nil {
		return fmt.Errorf("reading the proxy script: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, TimeLimit)
	defer cancel()
	var r reply
	answer, err := Evaluate(ctx, []byte(q.Script), q.URL, q.Host, Env{})
	if r.Answer = answer; err != nil {
		r.Error = fmt.Sprintf("%.500s", err)
	}
	return json.NewEncoder(out).Encode(r)
}

package run

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// Exchange is one command of a transcript and what it answered.
type Exchange struct {
	Line   string // program and arguments, joined by spaces
	Stdout string
	Stderr string
	Code   int
}

// Replay answers from a transcript, in order, and fails on any command that is
// not the next one: a strict stand-in for a program that cannot run here.
type Replay struct {
	mu        sync.Mutex // guards the transcript
	exchanges []Exchange
}

// NewReplay returns a Runner that plays the exchanges.
func NewReplay(exchanges ...Exchange) *Replay { return &Replay{exchanges: exchanges} }

// Run implements Runner.
func (p *Replay) Run(ctx context.Context, c Command) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	line := strings.Join(append([]string{c.Name}, c.Args...), " ")
	if len(p.exchanges) == 0 {
		return Result{}, fmt.Errorf("transcript is over, but got %q", line)
	}
	next := p.exchanges[0]
	if next.Line != line {
		return Result{}, fmt.Errorf("transcript expects %q, but got %q", next.Line, line)
	}
	p.exchanges = p.exchanges[1:]
	r := Result{Stdout: []byte(next.Stdout), Stderr: []byte(next.Stderr), Code: next.Code}
	if next.Code != 0 {
		return r, &Error{Command: c.line(), Result: r}
	}
	return r, nil
}

// Left returns the exchanges that were not played.
func (p *Replay) Left() []Exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exchanges
}

package undo

import (
	"context"
	"log/slog"
	"time"
)

// patience bounds one whole clean-up; a clean-up that hangs must not hide the
// failure that caused it.
const patience = 30 * time.Second

type step struct {
	name string
	back func(context.Context) error
}

// Stack is the list of steps that can be taken back. It is not safe for
// concurrent use; the function that makes it owns it.
type Stack struct {
	log   *slog.Logger
	steps []step
}

// New returns an empty stack; log hears of steps that could not be taken back
// (nil discards).
func New(log *slog.Logger) *Stack {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Stack{log: log}
}

// Add records how to take back what was just done. It is called after the step
// succeeded, with a function that is harmless when run twice.
func (s *Stack) Add(name string, back func(context.Context) error) {
	s.steps = append(s.steps, step{name, back})
}

// Release forgets every step: the work is complete and stays.
func (s *Stack) Release() { s.steps = nil }

// Run takes back whatever was not released, newest first. It works on a
// cancelled ctx too, within a bound of its own, and goes on past failures.
func (s *Stack) Run(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i].back(ctx); err != nil {
			s.log.Warn("could not undo", "step", s.steps[i].name, "error", err)
		}
	}
	s.steps = nil
}

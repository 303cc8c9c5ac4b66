package fail

import (
	"context"
	"errors"
	"fmt"
)

// Class says what kind of failure an error is. Its value is the exit code of
// the command, a contract documented in docs/reference/exit-codes.md.
type Class int

// The classes, in the order of their exit codes.
const (
	Failed      Class = 1   // the general case
	Usage       Class = 2   // the command line is wrong
	Partial     Class = 3   // some of the work was done, the message says which
	NotFound    Class = 4   // no such machine, image, repository, tag
	Conflict    Class = 5   // the object exists already, or is busy
	Unverified  Class = 6   // a digest, a signature or a date did not hold
	HostLacks   Class = 7   // a program, a permission or a device is missing here
	Refused     Class = 8   // a remote service said no, or cannot be reached
	TimedOut    Class = 9   // a stated deadline passed
	Interrupted Class = 130 // Ctrl-C, as shells report it
)

// Error is an error with a class and hints. Make one with New.
type Error struct {
	class Class
	err   error
	hints []string
}

// New makes an error of class c; format and args are those of fmt.Errorf,
// so %w keeps the cause.
func New(c Class, format string, args ...any) *Error {
	return &Error{class: c, err: fmt.Errorf(format, args...)}
}

// Hint adds one thing the reader can do, and returns e so that calls chain.
func (e *Error) Hint(format string, args ...any) *Error {
	e.hints = append(e.hints, fmt.Sprintf(format, args...))
	return e
}

// Error returns the message without the hints.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns the error that New formatted.
func (e *Error) Unwrap() error { return e.err }

// ClassOf returns the class of the outermost Error in err's chain. A cancelled
// context is Interrupted, a passed deadline TimedOut, anything else Failed.
func ClassOf(err error) Class {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.class
	case errors.Is(err, context.Canceled):
		return Interrupted
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	}
	return Failed
}

// Is reports whether err has class c.
func Is(err error, c Class) bool { return err != nil && ClassOf(err) == c }

// Hints returns every hint in err's chain, outermost first, joined errors in
// their order.
func Hints(err error) []string {
	var hints []string
	for err != nil {
		if e, ok := err.(*Error); ok { //nolint:errorlint // each link is looked at in turn
			hints = append(hints, e.hints...)
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, one := range many.Unwrap() {
				hints = append(hints, Hints(one)...)
			}
			return hints
		}
		err = errors.Unwrap(err)
	}
	return hints
}

// Package fail is the one kind of error a person is expected to act on: a
// cause, a class that becomes the exit code, and hints that say what to do.
//
// Everything else in the project wraps errors with fmt.Errorf; an error becomes
// a *fail.Error where the remedy is known, which is rarely deep down. The class
// of the outermost *fail.Error in a chain decides the exit code.
//
// Messages follow one rule: lower case, no final stop, what was being done and
// to which object, cause last.
package fail

// Package undo makes a series of steps all-or-nothing: each step adds how to
// take it back, and a failure takes back everything done so far, newest first.
package undo

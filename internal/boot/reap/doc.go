// Package reap collects the orphans of a process that is PID 1, or a child
// subreaper, without taking the children that os/exec waits for.
//
// os/exec waits for each of its children by itself; if someone else waits first,
// Wait fails. The kernel does not tell the two kinds apart, so Reaper uses time:
// a child that os/exec started is collected within moments of its end, because a
// goroutine is waiting for it, while an orphan stays a zombie for ever. What has
// been a zombie for longer than Grace is collected here. A zombie costs nothing
// but its process number, so there is no hurry.
//
// Hazard: a caller of os/exec that lets more than Grace pass between the end of
// its child and Wait gets an error from Wait, and loses the exit code.
package reap

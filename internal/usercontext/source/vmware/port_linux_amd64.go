package vmware

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// backdoor executes IN on the port with these registers.
//
//go:noescape
func backdoor(r *Registers)

// Open returns the backdoor of this machine.
func Open() Backdoor { return hardware{} }

type hardware struct{}

// Call implements Backdoor. The right to do I/O belongs to a thread, so the thread
// is given away after the call, and with it the right.
func (hardware) Call(in Registers) (Registers, error) {
	type answer struct {
		out Registers
		err error
	}
	done := make(chan answer)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		a := answer{out: in}
		if err := unix.Iopl(3); err != nil {
			a.err = fmt.Errorf("asking for the right to do I/O: %w", err)
		} else {
			backdoor(&a.out)
		}
		done <- a
	}()
	a := <-done
	return a.out, a.err
}

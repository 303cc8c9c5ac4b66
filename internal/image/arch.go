package image

import "github.com/micavm/mica/internal/fail"

// Arch is the architecture of the machines an image is for, as uname -m says it.
type Arch string

// The architectures. The empty Arch is X86.
const (
	X86 Arch = "x86_64"
	ARM Arch = "aarch64" // by UEFI only
)

// Or returns a, or X86 for the empty one.
func (a Arch) Or() Arch {
	if a == "" {
		return X86
	}
	return a
}

// Check refuses what there is no image for.
func (a Arch) Check() error {
	switch a.Or() {
	case X86, ARM:
		return nil
	}
	return fail.New(fail.Usage, "unknown architecture %q", string(a)).Hint("use x86_64 or aarch64")
}

// consoles are the kernel's words for screen and serial line, in this order: the
// last that a machine has is /dev/console.
func (a Arch) consoles() []string {
	words := []string{"console=tty0", "console=ttyS0,115200"}
	if a.Or() == ARM {
		words = append(words, "console=ttyAMA0,115200")
	}
	return words
}

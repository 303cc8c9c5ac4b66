package cli_test

import (
	"fmt"
	"os"
	"strings"

	"github.com/micavm/mica/internal/machine/drivers/qemu/fakeqemu"
	"github.com/micavm/mica/internal/machine/drivertest"
)

// fakeQEMU is qemu-system-x86_64 in scripts.
func fakeQEMU() { os.Exit(fakeqemu.Main(os.Args[1:])) }

// bootISO writes an image whose guest says the lines of a file: bootiso IMAGE TEXT.
// A guest that says OBEY shuts down when asked to.
func bootISO() {
	text, err := os.ReadFile(os.Args[2])
	if err == nil {
		guest := drivertest.Guest{Says: strings.ReplaceAll(string(text), "\n", "\r\n"), Obeys: strings.Contains(string(text), "OBEY")}
		err = os.WriteFile(os.Args[1], drivertest.BootISO(guest), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bootiso:", err)
		os.Exit(1)
	}
}

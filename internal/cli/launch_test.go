package cli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/micavm/mica/internal/machine/drivers/virtualbox/fakevbox"
)

// asVirtualBox is VBoxManage where the program has that name. It is no command of
// scripts: those would all find it in PATH, and share its machines.
func asVirtualBox() {
	switch filepath.Base(os.Args[0]) {
	case fakevbox.Program, fakevbox.Process:
		os.Exit(fakevbox.Main(os.Args[0], os.Args[1:]))
	}
}

// fakeVBox makes a VirtualBox of its own in a folder: fakevbox FOLDER.
func fakeVBox() {
	err := os.MkdirAll(os.Args[1], 0o700)
	if err == nil {
		_, err = fakevbox.Install(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakevbox:", err)
		os.Exit(1)
	}
}

// exits is a command of scripts: exits CODE PROGRAM [ARGUMENTS] runs a program
// that must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: exits CODE PROGRAM [ARGUMENTS]")
	}
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("it ended with %d, want %d", got, want)
	}
}

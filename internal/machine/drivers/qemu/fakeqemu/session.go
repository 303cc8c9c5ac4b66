package fakeqemu

import "syscall"

// session detaches the daemon from the terminal and the process group of whoever started it.
var session = &syscall.SysProcAttr{Setsid: true}

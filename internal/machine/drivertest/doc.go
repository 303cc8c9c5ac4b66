// Package drivertest is the suite every driver must pass (Run), and what such
// tests need: a guest so small that emulation runs it in a third of a second
// (BootISO).
package drivertest

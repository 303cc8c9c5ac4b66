// Package bootsector is a guest so small that emulation runs it in a third of a
// second: one program in 16-bit code that talks on the serial port, counts, and
// obeys the power button if told to. Tests of drivers and 'mica doctor' boot it
// to see that a platform runs machines at all.
package bootsector

// Package all is the list of drivers. It does nothing else: importing it
// registers nothing, and a program with other drivers makes its own list.
package all

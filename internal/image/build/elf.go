package build

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"
)

// program is what an ELF file needs to start.
type program struct {
	machine elf.Machine
	interp  string   // path of the dynamic loader; empty for static programs and libraries
	needed  []string // DT_NEEDED, in order
}

// readProgram reads an ELF file's headers.
func readProgram(data []byte) (program, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return program{}, fmt.Errorf("reading program: %w", err)
	}
	p := program{machine: f.Machine}
	for _, seg := range f.Progs {
		if seg.Type != elf.PT_INTERP || seg.Filesz > 4096 {
			continue
		}
		b := make([]byte, seg.Filesz)
		if _, err := seg.ReadAt(b, 0); err != nil {
			return p, fmt.Errorf("reading program: %w", err)
		}
		p.interp = strings.TrimRight(string(b), "\x00")
	}
	if p.needed, err = f.DynString(elf.DT_NEEDED); err != nil {
		return p, fmt.Errorf("reading program's libraries: %w", err)
	}
	return p, nil
}

package fakevbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

type medium struct {
	UUID, Path, Kind, Parent string
	MiB                      int64
}

const header = "fake disk"

// WriteDisk makes a disk image of any format but raw: what counts of one is the
// UUID inside it.
func WriteDisk(path, id string, mib int64) error {
	return os.WriteFile(path, fmt.Appendf(nil, "%s\n%s\n%d\n", header, id, mib), 0o600)
}

// ReadDisk tells the UUID inside an image, and its size.
func ReadDisk(path string) (id string, mib int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", 0, err
	}
	if len(data) >= 512 && binary.LittleEndian.Uint32(data[64:]) == vdiSignature {
		id := uuid.UUID(data[392:408])
		slices.Reverse(id[0:4]) // the first three fields are little endian
		slices.Reverse(id[4:6])
		slices.Reverse(id[6:8])
		return id.String(), int64(binary.LittleEndian.Uint64(data[368:]) >> 20), nil //nolint:gosec // a test's disk
	}
	if bytes.HasPrefix(data, sparseMagic) && len(data) >= sparseText+sparseSpace {
		sectors := binary.LittleEndian.Uint64(data[12:])
		if id := sparseID.FindSubmatch(data[sparseText : sparseText+sparseSpace]); id != nil {
			return string(id[1]), int64(sectors * 512 >> 20), nil //nolint:gosec // a test's disk
		}
		return uuid.NewString(), int64(sectors * 512 >> 20), nil //nolint:gosec // a test's disk
	}
	if flat := flatExtent.FindStringSubmatch(string(data)); flat != nil {
		return readFlat(path, flat)
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) != 4 || lines[0] != header {
		return "", 0, refuse("VBOX_E_FILE_ERROR", "Could not get the storage format of the medium '%s' (VERR_NOT_SUPPORTED)", path)
	}
	mib, err = strconv.ParseInt(lines[2], 10, 64)
	return lines[1], mib, err
}

// vdiSignature is in the header of a real VDI, which is one of the user's.
const vdiSignature = 0xbeda107f

// A sparse VMDK as other programs make it: its text is in the second sector and
// those that follow.
const sparseText, sparseSpace = 512, 20 * 512

var (
	sparseMagic = []byte("KDMV")
	sparseID    = regexp.MustCompile(`ddb\.uuid\.image ?= ?"([0-9a-f-]{36})"`)
)

// renameSparse gives one another UUID.
func renameSparse(path, id string) (bool, error) {
	data, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(data, sparseMagic) || len(data) < sparseText+sparseSpace {
		return false, err
	}
	text := bytes.TrimRight(data[sparseText:sparseText+sparseSpace], "\x00")
	text = append(sparseID.ReplaceAll(bytes.Clone(text), nil), fmt.Sprintf("\nddb.uuid.image=\"%s\"\n", id)...)
	if len(text) > sparseSpace {
		return true, refuse("VBOX_E_FILE_ERROR", "VMDK: the descriptor of '%s' is full", path)
	}
	clear(data[sparseText : sparseText+sparseSpace])
	copy(data[sparseText:], text)
	return true, os.WriteFile(path, data, 0o600)
}

// flatExtent finds in a VMDK descriptor its only extent, and the UUID.
var flatExtent = regexp.MustCompile(`(?s)^# Disk DescriptorFile\n.*createType="monolithicFlat"\n\nRW (\d+) FLAT "([^"]+)" 0\n.*ddb\.uuid\.image ?= ?"([0-9a-f-]{36})"`)

// readFlat tells the UUID and the size of a disk whose bytes are in another file.
func readFlat(path string, flat []string) (string, int64, error) {
	sectors, err := strconv.ParseInt(flat[1], 10, 64)
	if err != nil {
		return "", 0, err
	}
	info, err := os.Stat(filepath.Join(filepath.Dir(path), flat[2]))
	if err != nil || info.Size() < sectors*512 {
		return "", 0, refuse("VBOX_E_FILE_ERROR", "VMDK: could not open extent '%s' of '%s' (VERR_FILE_NOT_FOUND)", flat[2], path)
	}
	return flat[3], sectors * 512 >> 20, nil
}

// known returns a medium in the list, by its path or UUID.
func (s *state) known(name, kind string) *medium {
	for _, m := range s.Media {
		if m.Kind == kind && (m.Path == name || m.UUID == name) {
			return m
		}
	}
	return nil
}

// openMedium returns a medium and puts it into the list.
func (s *state) openMedium(path, kind string) (*medium, error) {
	if m := s.known(path, kind); m != nil {
		return m, nil
	}
	if kind == "" || !filepath.IsAbs(path) {
		return nil, unknown("Invalid medium '%s'", path)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, refuse("VBOX_E_FILE_ERROR", "Could not find file for the medium '%s' (VERR_FILE_NOT_FOUND)", path)
	}
	m := &medium{UUID: uuid.NewString(), Path: path, Kind: kind}
	if kind == "disk" {
		var err error
		if m.UUID, m.MiB, err = ReadDisk(path); err != nil {
			return nil, err
		}
		if other := s.known(m.UUID, kind); other != nil {
			return nil, refuse("NS_ERROR_INVALID_ARG", "Cannot register the hard disk '%s' {%s} because a hard disk '%s' with UUID {%s} already exists", path, m.UUID, other.Path, m.UUID)
		}
	}
	s.Media = append(s.Media, m)
	return m, nil
}

// newDisk makes a disk.
func (s *state) newDisk(path string, mib int64) (*medium, error) {
	if !filepath.IsAbs(path) {
		return nil, unknown("this fake wants absolute paths")
	}
	if _, err := os.Stat(path); err == nil {
		return nil, refuse("VBOX_E_FILE_ERROR", "Failed to create medium: '%s' (VERR_ALREADY_EXISTS)", path)
	}
	id := uuid.NewString()
	if err := WriteDisk(path, id, mib); err != nil {
		return nil, refuse("VBOX_E_FILE_ERROR", "Could not create the medium storage unit '%s' (VERR_PATH_NOT_FOUND)", path)
	}
	return &medium{UUID: id, Path: path, Kind: "disk", MiB: mib}, nil
}

func (f *fake) createmedium(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--filename": 1, "--size": 1, "--format": 1})
	mib, serr := strconv.ParseInt(first(o, "--size"), 10, 64)
	if err != nil || serr != nil || !slices.Equal(rest, []string{"disk"}) || first(o, "--format") != "VDI" {
		return errors.Join(err, unknown("Invalid createmedium"))
	}
	m, err := s.newDisk(first(o, "--filename"), mib)
	if err != nil {
		return err
	}
	s.Media = append(s.Media, m)
	f.printf("Medium created. UUID: %s\n", m.UUID)
	return nil
}

func (f *fake) closemedium(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--delete": 0})
	if err != nil || len(rest) != 2 {
		return errors.Join(err, unknown("closemedium takes a kind and a medium"))
	}
	m := s.known(rest[1], rest[0])
	if m == nil {
		if m, err = s.openMedium(rest[1], rest[0]); err != nil {
			return err
		}
	}
	for _, v := range s.Machines {
		for slot, path := range v.Slots {
			if path == m.Path {
				return refuse("VBOX_E_OBJECT_IN_USE", "Cannot close medium '%s' because it is attached to %s of machine '%s'", m.Path, slot, v.Name)
			}
		}
	}
	for _, other := range s.Media {
		if other.Parent == m.UUID {
			return refuse("VBOX_E_OBJECT_IN_USE", "Cannot close medium '%s' because it has child media", m.Path)
		}
	}
	s.Media = slices.DeleteFunc(s.Media, func(other *medium) bool { return other == m })
	if o["--delete"] != nil {
		return os.Remove(m.Path)
	}
	return nil
}

func (f *fake) clonemedium(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--format": 1})
	if err != nil || len(rest) != 3 || rest[0] != "disk" || first(o, "--format") != "VDI" {
		return errors.Join(err, unknown("Invalid clonemedium"))
	}
	from, err := s.openMedium(rest[1], "disk")
	if err != nil {
		return err
	}
	to, err := s.newDisk(rest[2], from.MiB)
	if err != nil {
		return err
	}
	s.Media = append(s.Media, to)
	f.printf("Clone medium created in format 'VDI'. UUID: %s\n", to.UUID)
	return nil
}

func (f *fake) convertfromraw(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--format": 1})
	if err != nil || len(rest) != 2 || first(o, "--format") != "VDI" {
		return errors.Join(err, unknown("Invalid convertfromraw"))
	}
	info, err := os.Stat(rest[0])
	if err != nil {
		return refuse("", "Cannot open file '%s': VERR_FILE_NOT_FOUND", rest[0])
	}
	_, err = s.newDisk(rest[1], info.Size()>>20)
	return err
}

func (f *fake) showmediuminfo(s *state, args []string) error {
	if len(args) != 2 {
		return unknown("showmediuminfo takes a kind and a medium")
	}
	m := s.known(args[1], args[0])
	if m == nil {
		closed := &state{Media: slices.Clone(s.Media)}
		var err error
		if m, err = closed.openMedium(args[1], args[0]); err != nil {
			return err
		}
	}
	f.describe(m)
	return nil
}

func (f *fake) describe(m *medium) {
	parent := m.Parent
	if parent == "" {
		parent = "base"
	}
	f.printf("UUID:           %s\nParent UUID:    %s\nState:          created\nType:           normal (base)\nLocation:       %s\n", m.UUID, parent, m.Path)
	f.printf("Storage format: VDI\nCapacity:       %d MBytes\nEncryption:     disabled\n\n", m.MiB)
}

func (f *fake) modifymedium(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--resize": 1})
	mib, serr := strconv.ParseInt(first(o, "--resize"), 10, 64)
	if err != nil || serr != nil || len(rest) != 2 {
		return errors.Join(err, unknown("Invalid modifymedium"))
	}
	m, err := s.openMedium(rest[1], rest[0])
	if err != nil {
		return err
	}
	if mib < m.MiB {
		return refuse("E_FAIL", "Shrinking is not supported")
	}
	m.MiB = mib
	return WriteDisk(m.Path, m.UUID, mib)
}

// internal has the one command that gives a disk image another UUID.
func (f *fake) internal(s *state, args []string) error {
	if len(args) != 3 || args[0] != "sethduuid" {
		return unknown("Invalid internal command")
	}
	if s.known(args[1], "disk") != nil {
		return refuse("VBOX_E_OBJECT_IN_USE", "'%s' is in the list of media", args[1])
	}
	_, mib, err := ReadDisk(args[1])
	if err != nil {
		return err
	}
	f.printf("UUID changed to: %s\n", args[2])
	if sparse, err := renameSparse(args[1], args[2]); sparse || err != nil {
		return err
	}
	return WriteDisk(args[1], args[2], mib)
}

package fakevbox

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/machine/bootsector"
)

func (f *fake) snapshot(s *state, args []string) error {
	if len(args) < 2 {
		return unknown("snapshot takes a machine and a command")
	}
	v, err := s.find(args[0])
	if err != nil {
		return err
	}
	if args[1] == "list" {
		for _, sn := range v.Snapshots {
			f.printf("Name: %s (UUID: %s)\n", sn.Name, sn.UUID)
		}
		return nil
	}
	if !v.live() {
		if v, err = s.change(args[0]); err != nil {
			return err
		}
	}
	o, rest, err := flags(args[2:], map[string]int{"--name": 1})
	if err != nil || (len(o) > 0) != (args[1] == "edit") || len(rest) != 1 {
		return errors.Join(err, unknown("this fake takes a snapshot's name only"))
	}
	n := slices.IndexFunc(v.Snapshots, func(sn *snap) bool { return sn.UUID == rest[0] })
	if args[1] != "take" && n < 0 {
		return refuse("VBOX_E_OBJECT_NOT_FOUND", "Could not find a snapshot named '%s'", rest[0])
	}
	switch args[1] {
	case "take":
		sn := &snap{UUID: uuid.NewString(), Name: rest[0], Parent: v.Current, Time: time.Now().UTC(), Memory: v.Memory, Slots: maps.Clone(v.Slots), Rules: slices.Clone(v.Rules)}
		if v.live() {
			var g bootsector.Run
			if err := f.ask(v.UUID, request{Do: "memory"}, &g); err != nil {
				return err
			}
			sn.Memory = &g
		}
		v.Snapshots, v.Current = append(v.Snapshots, sn), sn.UUID
		if err := v.branch(s); err != nil {
			return err
		}
	case "restore":
		sn := v.Snapshots[n]
		if v.live() {
			return refuse("VBOX_E_INVALID_VM_STATE", "Machine is running")
		}
		v.Slots, v.Rules, v.Memory, v.Current, v.State = maps.Clone(sn.Slots), slices.Clone(sn.Rules), sn.Memory, sn.UUID, "poweroff"
		if sn.Memory != nil {
			v.State = "saved"
		}
		if err := v.branch(s); err != nil {
			return err
		}
	case "edit":
		v.Snapshots[n].Name = first(o, "--name")
	case "delete":
		gone := v.Snapshots[n]
		children := 0
		for _, sn := range v.Snapshots {
			if sn.Parent == gone.UUID {
				children++
			}
		}
		if children > 1 {
			return refuse("VBOX_E_INVALID_OBJECT_STATE", "Snapshot '%s' of the machine '%s' has more than one child snapshot (%d)", gone.Name, v.Name, children)
		}
		if children > 0 && v.Current == gone.UUID {
			return refuse("VBOX_E_INVALID_OBJECT_STATE", "Snapshot '%s' of the machine '%s' cannot be deleted, because it is the current snapshot and has one child snapshot", gone.Name, v.Name)
		}
		for _, sn := range v.Snapshots {
			if sn.Parent == gone.UUID {
				sn.Parent = gone.Parent
			}
		}
		if v.Current == gone.UUID {
			v.Current = gone.Parent
		}
		v.Snapshots = slices.Delete(v.Snapshots, n, n+1)
	default:
		return unknown("Invalid command '%s'", args[1])
	}
	return nil
}

// branch gives the machine differences to write to.
func (v *vm) branch(s *state) error {
	folder := filepath.Join(v.Folder, "Snapshots")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for slot, path := range v.Slots {
		n := slices.IndexFunc(s.Media, func(m *medium) bool { return m.Path == path && m.Kind == "disk" })
		if n < 0 {
			continue
		}
		id := uuid.NewString()
		diff := filepath.Join(folder, "{"+id+"}.vdi")
		if err := WriteDisk(diff, id, s.Media[n].MiB); err != nil {
			return err
		}
		s.Media = append(s.Media, &medium{UUID: id, Path: diff, Kind: "disk", Parent: s.Media[n].UUID, MiB: s.Media[n].MiB})
		v.Slots[slot] = diff
	}
	return nil
}

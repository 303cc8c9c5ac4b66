package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/machine"
)

// machineRow is one machine in a listing.
type machineRow struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`
	Driver    string    `json:"driver,omitempty"`
	ID        string    `json:"id,omitempty"`
	SSHPort   int       `json:"ssh_port,omitempty"`
	User      string    `json:"user,omitempty"`
	MemoryMiB int       `json:"memory_mib,omitempty"`
	CPUs      int       `json:"cpus,omitempty"`
	DiskMiB   int64     `json:"disk_mib,omitempty"`
	Image     string    `json:"image,omitempty"`
	Verified  bool      `json:"image_verified"`
	Context   string    `json:"context,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	Labels    []string  `json:"labels,omitempty"`
	Problem   string    `json:"problem,omitempty"` // why the state is damaged or unknown, or what is not finished
}

func newList(a *app) *cobra.Command {
	var output string
	var labels []string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the machines and their states",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			machines, err := fleet.List(cmd.Context())
			if err != nil {
				return err
			}
			machines = slices.DeleteFunc(machines, func(m machine.Machine) bool { return !m.HasLabels(labels) })
			return machineListing(machines).print(a.Out, output)
		},
	}
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only machines that have this label (may be repeated)")
	outputFlag(cmd, &output)
	return cmd
}

func machineListing(machines []machine.Machine) listing[machineRow] {
	text := func(head string, cell func(machineRow) string) column[machineRow] {
		return column[machineRow]{head: head, cell: cell}
	}
	wide := func(head string, cell func(machineRow) string) column[machineRow] {
		return column[machineRow]{head: head, cell: cell, wide: true}
	}
	l := listing[machineRow]{
		Schema: 1,
		name:   func(r machineRow) string { return r.Name },
		columns: []column[machineRow]{
			text("NAME", func(r machineRow) string { return r.Name }),
			text("STATE", func(r machineRow) string { return r.State }),
			text("SSH PORT", func(r machineRow) string { return number(int64(r.SSHPort)) }),
			text("MEMORY", func(r machineRow) string { return mebibytes(int64(r.MemoryMiB)) }),
			text("CPUS", func(r machineRow) string { return number(int64(r.CPUs)) }),
			text("DISK", func(r machineRow) string { return mebibytes(r.DiskMiB) }),
			text("CREATED", func(r machineRow) string { return when(r.Created) }),
			wide("USER", func(r machineRow) string { return or(r.User) }),
			wide("DRIVER", func(r machineRow) string { return or(r.Driver) }),
			wide("ID", func(r machineRow) string { return or(r.ID) }),
			wide("IMAGE", func(r machineRow) string { return or(r.Image) }),
			wide("VERIFIED", func(r machineRow) string { return yesNo(r.Verified) }),
			wide("CONTEXT", func(r machineRow) string { return or(r.Context) }),
			wide("LABELS", func(r machineRow) string { return or(strings.Join(r.Labels, ",")) }),
			wide("PROBLEM", func(r machineRow) string { return or(r.Problem) }),
		},
	}
	for _, m := range machines {
		l.Items = append(l.Items, rowOf(m))
	}
	return l
}

func rowOf(m machine.Machine) machineRow {
	r := machineRow{Name: m.Name, State: string(m.State), Problem: m.Problem()}
	if m.Record == nil {
		return r
	}
	s := m.Record.Instance.Spec
	r.Driver, r.ID, r.SSHPort, r.MemoryMiB, r.CPUs, r.DiskMiB = s.Driver, s.ID, s.SSHPort(), s.MemoryMiB, s.CPUs, s.DiskMiB
	r.User, r.Image, r.Verified, r.Context, r.Created = m.Record.User, s.Image.Path, s.Image.Verified, m.Record.Context, m.Record.Created
	r.Labels = s.Labels
	return r
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func or(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func number(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func mebibytes(n int64) string {
	switch {
	case n == 0:
		return "-"
	case n%1024 == 0:
		return fmt.Sprintf("%d GiB", n/1024)
	}
	return fmt.Sprintf("%d MiB", n)
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

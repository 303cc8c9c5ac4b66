package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/stage"
)

// machineView is everything known of one machine.
type machineView struct {
	Schema    int                `json:"schema"`
	Machine   machineRow         `json:"machine"`
	Accel     string             `json:"accel,omitempty"`
	Image     machine.Image      `json:"image"`
	Forwards  []machine.Forward  `json:"forwards"`
	Firmware  string             `json:"firmware,omitempty"`
	Arch      string             `json:"arch,omitempty"`
	Disks     []machine.Disk     `json:"disks,omitempty"`
	Network   string             `json:"network,omitempty"`
	Display   string             `json:"display,omitempty"`
	Shares    []machine.Share    `json:"shares,omitempty"`
	Options   map[string]string  `json:"options,omitempty"`
	Folder    string             `json:"folder,omitempty"`
	Facts     map[string]string  `json:"facts,omitempty"`     // what the guest said of itself
	Platform  map[string]string  `json:"platform,omitempty"`  // what the driver says
	Durations map[string]float64 `json:"durations,omitempty"` // seconds from the start
	Stages    []stage.Event      `json:"stages,omitempty"`
}

func newShow(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show everything known of a machine",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			fleet, err := a.fleet(nil)
			if err != nil {
				return err
			}
			m, err := fleet.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			view := viewOf(cmd.Context(), fleet, m)
			switch output {
			case "json":
				return printJSON(a.Out, view)
			case "table":
				return view.print(a)
			}
			return fail.New(fail.Usage, "unknown --output %q", output).Hint("use table or json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "how to print: table or json")
	return cmd
}

func viewOf(ctx context.Context, fleet *machine.Fleet, m machine.Machine) machineView {
	v := machineView{Schema: 1, Machine: rowOf(m), Forwards: []machine.Forward{}}
	if m.Record == nil {
		return v
	}
	s := m.Record.Instance.Spec
	v.Accel, v.Image, v.Folder, v.Durations = s.Accel, s.Image, s.Dir, m.Record.Durations
	v.Network, v.Display, v.Shares, v.Options = s.Network, s.Display, s.Shares, s.Options
	v.Firmware, v.Arch, v.Disks = s.Firmware, s.Arch, s.Disks
	v.Forwards = append(v.Forwards, s.Forwards...)
	v.Platform = fleet.Describe(ctx, m)
	v.Facts = map[string]string{}
	if events, err := fleet.Stages(ctx, m); err == nil {
		v.Stages = events
		for _, e := range events {
			if e.Stage != stage.Plugin {
				maps.Copy(v.Facts, e.Facts)
			}
		}
	}
	maps.Copy(v.Facts, m.Record.Facts)
	return v
}

func (v machineView) print(a *app) error {
	tw := tabwriter.NewWriter(a.Out, 0, 8, 2, ' ', 0)
	line := func(head, text string) {
		if text != "" && text != "-" {
			_, _ = fmt.Fprintf(tw, "%s\t%s\n", head, clean(text))
		}
	}
	m := v.Machine
	line("name", m.Name)
	line("state", m.State)
	line("problem", m.Problem)
	line("driver", m.Driver)
	line("id", m.ID)
	line("user", m.User)
	line("memory", mebibytes(int64(m.MemoryMiB)))
	line("processors", number(int64(m.CPUs)))
	line("disk", mebibytes(m.DiskMiB))
	for n, d := range v.Disks {
		text := mebibytes(d.MiB)
		if d.Path != "" {
			text = d.Path + " (yours, " + d.Format + ")"
		}
		line("disk "+number(int64(n+2)), text)
	}
	line("firmware", v.Firmware)
	line("architecture", v.Arch)
	line("image", v.Image.Path)
	line("image sha256", v.Image.SHA256)
	line("image verified", yesNo(m.Verified))
	line("context", m.Context)
	line("folder", v.Folder)
	line("created", when(m.Created))
	var ports []string
	for _, f := range v.Forwards {
		ports = append(ports, fmt.Sprintf("127.0.0.1:%d -> %d", f.Host, f.Guest))
	}
	line("ports", strings.Join(ports, ", "))
	line("network", v.Network)
	line("display", v.Display)
	for _, s := range v.Shares {
		path := s.Path
		if s.ReadOnly {
			path += " (read-only)"
		}
		line("share "+s.Name, path)
	}
	for _, key := range slices.Sorted(maps.Keys(v.Options)) {
		line("option "+key, v.Options[key])
	}
	line("labels", strings.Join(m.Labels, ", "))
	line("took", durations(v.Durations))
	for _, group := range []map[string]string{v.Platform, v.Facts} {
		for _, key := range slices.Sorted(maps.Keys(group)) {
			line(strings.ReplaceAll(clean(key), "_", " "), group[key])
		}
	}
	return tw.Flush()
}

package cli

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/convert"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// inspected is what a file is as a context, and as the medium it is on.
type inspected struct {
	convert.Info
	Medium *delivery.Found `json:"medium,omitempty"`
}

func newContextInspect(a *app) *cobra.Command {
	var output string
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Say what a file is as a context: medium, form, parts, sizes, digest",
		Long: `Say what a file is as a context: its form, parts, sizes and digest. Of a CD, disk
or floppy image made for a machine it also says which kind it is, what files are on
it, and who the machine is told to be.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			result, err := a.inspect(args[0], &password)
			if err != nil {
				return err
			}
			switch output {
			case "text":
				return result.print(a.Out)
			case "json":
				return printJSON(a.Out, result)
			}
			return fail.New(fail.Usage, "unknown --output %q", output).Hint("use text or json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "how to print: text or json")
	password.add(cmd)
	return cmd
}

// inspect finds out what a file is, looking for a medium first.
func (a *app) inspect(name string, p *passwordFlag) (inspected, error) {
	data, err := a.readFile(name)
	if err != nil {
		return inspected{}, err
	}
	var result inspected
	found, err := delivery.Read(bytes.NewReader(data), int64(len(data)))
	switch {
	case err == nil:
		result.Medium = &found
	case found.System != "":
		return inspected{}, fail.New(fail.Failed, "medium %s: %w", name, err)
	}
	l, err := a.parseContext(name, data, found, p)
	if err != nil {
		return inspected{}, err
	}
	result.Info, err = convert.Inspect(l.Context)
	return result, err
}

func (i inspected) print(w io.Writer) error {
	if m := i.Medium; m != nil {
		var out bytes.Buffer
		fmt.Fprintf(&out, "%s medium, %d bytes", m.Kind, m.Size)
		if m.System != "none" {
			fmt.Fprintf(&out, ", %s labelled %q", m.System, m.Label)
		}
		for _, one := range []struct{ name, value string }{{"instance", m.Instance}, {"host name", m.Hostname}} {
			if one.value != "" {
				fmt.Fprintf(&out, "\n%s %s", one.name, one.value)
			}
		}
		_, _ = out.WriteString("\n")
		tw := tabwriter.NewWriter(&out, 0, 8, 2, ' ', tabwriter.AlignRight)
		for _, f := range m.Files {
			_, _ = fmt.Fprintf(tw, "%d\t  %s\n", f.Size, f.Path)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		_, _ = out.WriteString("\n")
		if _, err := w.Write(out.Bytes()); err != nil {
			return err
		}
	}
	return i.Info.Print(w)
}

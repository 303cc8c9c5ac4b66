package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/convert"
)

func newContextConvert(a *app) *cobra.Command {
	var to, out string
	var force bool
	var password passwordFlag
	long := `Turn a context into another form:

`
	for _, t := range convert.Targets() {
		long += fmt.Sprintf("  %-13s %s\n", t.Name, t.Text)
	}
	long += `
What the form cannot express is listed on standard error, and the exit code is
then 3: the result does part of what the context did.`
	cmd := &cobra.Command{
		Use:     "convert FILE --to FORM",
		Short:   "Turn a context into another form",
		Long:    long,
		Example: "  mica context convert --to=cloud-config worker.context --out=user-data",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if to == "" {
				return fail.New(fail.Usage, "no form to convert to").Hint("pass --to; see 'mica context convert --help'")
			}
			l, err := a.loadContext(args[0], &password)
			if err != nil {
				return err
			}
			data, left, err := convert.To(l, to, nil)
			if err != nil {
				return err
			}
			if err := a.writeContext(out, data, force); err != nil {
				return err
			}
			for _, key := range l.PublicKeys {
				_, _ = fmt.Fprintf(a.Err, "the export also has a public key for root, which a context does not hold: %s\n", key)
			}
			for _, u := range left {
				_, _ = fmt.Fprintf(a.Err, "%s:%d: left out: %s: %s\n", l.Name, u.Line, u.What, u.Why)
			}
			if len(left) > 0 {
				return exitCode(fail.Partial)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "the form (required)")
	outFlags(cmd, &out, &force)
	password.add(cmd)
	return cmd
}

func newContextSplit(a *app) *cobra.Command {
	var dir, output string
	var force bool
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "split FILE",
		Short: "Take a context apart into files",
		Long: `Write each part of a context into a file of its own: the parts of a MIME
message, decoded, or script, block and sections of a plain context. Without --dir
the parts are only listed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.loadContext(args[0], &password)
			if err != nil {
				return err
			}
			files := convert.Split(l.Context)
			for _, f := range files {
				if dir == "" {
					break
				}
				if err := a.writeContext(filepath.Join(dir, f.Name), f.Data, force); err != nil {
					return err
				}
			}
			return listing[convert.File]{
				Schema: 1, Items: files, name: func(f convert.File) string { return f.Name },
				columns: []column[convert.File]{
					{"NAME", func(f convert.File) string { return f.Name }, false},
					{"TYPE", func(f convert.File) string { return f.Type }, false},
					{"LINE", func(f convert.File) string { return fmt.Sprint(f.Line) }, false},
					{"BYTES", func(f convert.File) string { return fmt.Sprint(len(f.Data)) }, false},
				},
			}.print(a.Out, output)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "existing folder to write the parts into")
	cmd.Flags().BoolVar(&force, "force", false, "replace files that exist")
	outputFlag(cmd, &output)
	password.add(cmd)
	return cmd
}

package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

func newContextISO(a *app) *cobra.Command {
	var layout, out, keyFile string
	var force bool
	var meta delivery.Meta
	var password passwordFlag
	var names []string
	for _, k := range delivery.Kinds() {
		names = append(names, k.Name)
	}
	cmd := &cobra.Command{
		Use:   "iso FILE --out IMAGE",
		Short: "Make a CD image from which a machine takes a context",
		Long: `Make an ISO 9660 image that hands a context to a machine. Attach it as a CD. The
image has the context in it as it is: keep it as private as the context.

Unless --instance-id is given, the identifier follows from the content, so that a
machine applies a changed context anew.`,
		Example: "  mica context iso examples/demo.context --out demo-context.iso",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return fail.New(fail.Usage, "no image to write").Hint("pass --out IMAGE")
			}
			l, err := a.loadContext(args[0], &password)
			if err != nil {
				return err
			}
			meta.PublicKeys = l.PublicKeys
			if keyFile != "" {
				data, err := os.ReadFile(keyFile)
				if errors.Is(err, fs.ErrNotExist) {
					return fail.New(fail.NotFound, "reading the public key: %w", err)
				}
				if err != nil {
					return err
				}
				for line := range strings.Lines(string(data)) {
					meta.PublicKeys = append(meta.PublicKeys, strings.TrimSpace(line))
				}
			}
			for _, k := range delivery.Kinds() {
				if k.Name != layout {
					continue
				}
				var image bytes.Buffer
				if err := delivery.WriteISO(cmd.Context(), &image, k, l.Text, meta); err != nil {
					return err
				}
				return a.writeContext(out, image.Bytes(), force)
			}
			return fail.New(fail.Usage, "unknown --layout %q", layout).Hint("use one of %s", strings.Join(names, ", "))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&layout, "layout", names[0], "what is on the image: "+strings.Join(names, ", "))
	flags.StringVar(&meta.Hostname, "hostname", "", "name of the machine")
	flags.StringVar(&meta.InstanceID, "instance-id", "", "identifier of the machine; default: follows from the content")
	flags.StringVar(&keyFile, "ssh-key", "", "file with public SSH keys for root")
	outFlags(cmd, &out, &force)
	password.add(cmd)
	return cmd
}

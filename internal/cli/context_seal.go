package cli

import (
	"crypto/rand"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/convert"
)

func newContextEncrypt(a *app) *cobra.Command {
	var out string
	var force bool
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "encrypt FILE",
		Short: "Seal a context with a password, to keep or to send it",
		Long: `Encrypt a context with a password (scrypt, XChaCha20-Poly1305). All commands that
read contexts open it again when they are given the password; a machine does not:
decrypt it before it is delivered.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := a.readFile(args[0])
			if err != nil {
				return err
			}
			secret, err := password.source(a, "New password: ")()
			if err != nil {
				return err
			}
			if secret == "" {
				return fail.New(fail.Usage, "the password is empty")
			}
			sealed, err := convert.Seal(data, secret, rand.Reader)
			if err != nil {
				return err
			}
			return a.writeContext(out, sealed, force)
		},
	}
	outFlags(cmd, &out, &force)
	password.add(cmd)
	return cmd
}

func newContextDecrypt(a *app) *cobra.Command {
	var out string
	var force bool
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "decrypt FILE",
		Short: "Open a sealed context, or an encrypted one of CernVM Online",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := a.loadContext(args[0], &password)
			if err != nil {
				return err
			}
			return a.writeContext(out, l.Text, force)
		},
	}
	outFlags(cmd, &out, &force)
	password.add(cmd)
	return cmd
}

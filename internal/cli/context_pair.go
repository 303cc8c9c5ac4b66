package cli

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/usercontext/online"
)

func newContextPair(a *app) *cobra.Command {
	var out, site string
	var force bool
	var password passwordFlag
	cmd := &cobra.Command{
		Use:   "pair NUMBER|ID",
		Short: "Fetch a context from CernVM Online",
		Long: `Fetch a context by the pairing number that CernVM Online shows for it, or by its ID.
A machine does the same for the ID in contextualization_key.

The connection must be https with a certificate that holds; --site names another
site that speaks the same protocol.`,
		Example: "  mica context pair 123-456 --out=worker.context",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			get := online.Through(&http.Client{Timeout: time.Minute})
			f, err := online.Pair(cmd.Context(), site, args[0], get, password.source(a, "Password of the context: "))
			if err != nil {
				return err
			}
			if f.RootKey != "" {
				_, _ = fmt.Fprintf(a.Err, "The context also has a public key for root, which its machine gets besides:\n%s\n", f.RootKey)
			}
			return a.writeContext(out, f.UserData, force)
		},
	}
	cmd.Flags().StringVar(&site, "site", online.Site, "address of the site")
	outFlags(cmd, &out, &force)
	password.add(cmd)
	return cmd
}

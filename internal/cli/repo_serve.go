package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/serve"
	"github.com/micavm/mica/internal/fail"
)

func newRepoServe(a *app) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "serve STORAGE...",
		Short: "Serve repositories over HTTP",
		Long: `Serve every repository in the given directories as http://ADDRESS/cvmfs/NAME,
until interrupted. A repository may be published meanwhile. The address is
printed when it answers; port 0 means any that is free.`,
		Example: `  mica repo serve /srv/cvmfs --listen 0.0.0.0:8000`,
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.serveRepos(cmd.Context(), args, listen) },
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8000", "address to listen on")
	return cmd
}

func (a *app) serveRepos(ctx context.Context, storage []string, listen string) error {
	for _, dir := range storage {
		if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
			return fail.New(fail.NotFound, "no directory %s to serve from", dir)
		}
	}
	handler := serve.New(serve.Options{Storage: storage, Log: a.log})
	names, err := handler.Repositories()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fail.New(fail.Conflict, "%w", err).Hint("choose another address with --listen, port 0 for any that is free")
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	if len(names) == 0 {
		_, _ = fmt.Fprintf(a.Err, "mica: there is no repository in %v yet\n", storage)
	}
	for _, name := range names {
		a.warnServed(storage, name)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	base := "http://" + listener.Addr().String() + "/cvmfs/"
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		_, _ = fmt.Fprintf(a.Out, "%s%s\n", base, name)
	}
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	// Transfers under way may end; a reader that never ends does not hold us up.
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	if err := server.Shutdown(patience); err != nil {
		_ = server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

func (a *app) warnServed(storage []string, name string) {
	for _, dir := range storage {
		data, err := os.ReadFile(filepath.Join(dir, name, cvmfs.WhitelistFile))
		if err != nil {
			continue
		}
		w, err := cvmfs.ParseWhitelist(data)
		if err != nil {
			_, _ = fmt.Fprintf(a.Err, "mica: %s: %v\n", name, err)
			return
		}
		a.warnWhitelist(name, w.Expires)
		return
	}
}

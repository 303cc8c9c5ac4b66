package mount

import (
	"context"
	"log/slog"

	"github.com/micavm/mica/cvmfs/client"
)

// Options of a mount.
type Options struct {
	AllowOther bool // other users than the mounting one may use it
	Suid       bool // honour setuid bits and file capabilities
	Log        *slog.Logger
}

// Server is a mounted repository.
type Server struct{}

// Mount mounts a repository at dir, which must be an existing directory, and
// returns when it can be used.
func Mount(ctx context.Context, r *client.Repository, dir string, opt Options) (*Server, error) {
	panic("not written yet")
}

// Wait returns when the file system is unmounted, by whomever.
func (s *Server) Wait() {}

// Unmount ends the mount. It fails while files in it are open.
func (s *Server) Unmount() error { return nil }

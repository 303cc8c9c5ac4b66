package guest

import (
	"os"
	"path"
	"syscall"
)

// OpenLog opens a file to append to, making it 0600. It is no action: logs are
// by-products. The caller closes it.
func (r *Root) OpenLog(name string) (*os.File, error) {
	at, err := r.resolve(name, true)
	if err != nil {
		return nil, about("opening", name, err)
	}
	if err := r.quietly(func() error { return r.MkdirAll(path.Dir("/"+at), Attr{}) }); err != nil {
		return nil, err
	}
	f, err := r.dir.OpenFile(at, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, about("opening", name, err)
	}
	return f, nil
}

// WriteState replaces a file of the agent's own, 0600 in a directory 0700; it is
// no action either.
func (r *Root) WriteState(name string, data []byte) error {
	return r.quietly(func() error {
		if err := r.MkdirAll(path.Dir(clean(name)), Attr{Mode: 0o700}); err != nil {
			return err
		}
		return r.WriteFile(name, data, Attr{Mode: 0o600})
	})
}

// RemoveState removes a file of the agent's own.
func (r *Root) RemoveState(name string) error {
	return r.quietly(func() error { return r.Remove(name) })
}

// quietly runs f and forgets the actions it recorded.
func (r *Root) quietly(f func() error) error {
	n := len(r.actions)
	defer func() { r.actions = r.actions[:n] }()
	return f()
}

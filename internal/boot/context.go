package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/source"
)

// warnSize is the size of user data that some platforms cut off (EC2).
const warnSize = 16 * 1024

type sourceClient = *http.Client

// meta is what is kept about a machine in context/meta.json.
type meta struct {
	InstanceID string   `json:"instance_id"`
	Hostname   string   `json:"hostname"`
	PublicKeys []string `json:"public_keys"`

	Values map[string]string `json:"values,omitempty"` // what else the platform says, for plugins
	Shares []source.Share    `json:"shares,omitempty"` // folders of the host
}

// findContext finds the context of this machine: on the first boot from the
// platform, later from the disk, unless the platform says that this is another
// machine, a copy of the disk under a new instance id.
//
// Compat: user data is read once (cernvm-micro: 06context). Differs: the instance
// id, and the file aux/recontextualize, make it be read again.
func findContext(ctx context.Context, s *state, r *report) error {
	stored, err := s.storedContext()
	switch {
	case err == nil && stored.present:
		again, known := "", stored.source
		if _, err := os.Stat(s.rw("aux/recontextualize")); err == nil {
			again, known = "asked for by aux/recontextualize", ""
		}
		found, ferr := s.discover(ctx, known)
		if ferr != nil {
			s.rec.note("asking the platform again: %v", ferr)
		}
		if id := found.Meta.InstanceID; again == "" && id != "" && stored.meta.InstanceID != "" && id != stored.meta.InstanceID {
			again = fmt.Sprintf("instance %q was %q", id, stored.meta.InstanceID)
			s.newSelf = true
		}
		if again == "" || found.Source == "" {
			s.source, s.shares = stored.source, stored.meta.Shares
			r.fact("context", stored.source)
			if stored.source == noSource {
				return errors.Join(s.useContext(nil), skipped("the machine has no context"))
			}
			r.say("%s, kept from the first boot", stored.source)
			return s.useContext(stored.userData)
		}
		s.rec.note("the context is read again: %s", again)
		return s.takeContext(ctx, found, r)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	s.newSelf = true
	found, err := s.discover(ctx, "")
	if err != nil {
		return err
	}
	return s.takeContext(ctx, found, r)
}

// discover asks the platform: media first, which were looked at already, then
// the network. known is the source of the context that the disk keeps: a machine
// that got its context from a medium, or had none, does not ask the network about
// it on each later boot, which takes seconds on an unknown platform.
func (s *state) discover(ctx context.Context, known string) (source.Found, error) {
	if !s.online() || s.local.Source != "" && s.local.Present {
		return s.local, nil
	}
	if known != "" && !slices.Contains([]string{"GCE", "EC2", "OpenStack", "CloudStack", "Azure"}, known) {
		return s.local, nil
	}
	return source.Find(ctx, s.sourceEnv(source.NewClient()))
}

// noSource is what context/source says of a machine without a context.
const noSource = "none"

// tried names the sources that were asked in vain.
func tried(found source.Found) string {
	var names []string
	for _, a := range found.Tried {
		if a.Result == "nothing" && !slices.Contains(names, a.Source) {
			names = append(names, a.Source)
		}
	}
	if len(names) == 0 {
		return "no source applies to this machine"
	}
	return "asked " + strings.Join(names, ", ")
}

// takeContext makes a context that was just found the one in force, and has it
// kept.
func (s *state) takeContext(ctx context.Context, found source.Found, r *report) error {
	s.found, s.keep, s.source, s.shares = found, true, found.Source, found.Meta.Shares
	if s.source == "" {
		s.source = noSource
		// Without a network nobody could be asked: the next boot tries again.
		s.keep = s.online()
	}
	data, _, err := usercontext.Unwrap(found.UserData)
	if err != nil {
		err = fmt.Errorf("the user data from %s: %w", found.Origin, err)
		data = nil
	}
	s.found.UserData = data
	r.fact("context", s.source)
	if found.Source == "" {
		return errors.Join(s.useContext(nil), skipped("no context found: %s", tried(found)))
	}
	r.say("%s (%s), %d bytes", s.source, found.Origin, len(data))
	if len(found.UserData) > warnSize {
		s.rec.note("user data has %d bytes; EC2 takes 16384", len(found.UserData))
		s.con.Warn("user data has %d bytes, more than some clouds take (16384)", len(found.UserData))
	}
	if err := errors.Join(err, s.useContext(data)); err != nil {
		return err
	}
	return s.pair(ctx)
}

// pair does this machine's part in a cluster, if its context names one: a
// worker learns the address of its master, which becomes part of its user data.
func (s *state) pair(ctx context.Context) error {
	if s.keys.ClusterPin == "" || !s.online() {
		return nil
	}
	data, err := source.Cluster{
		Service: s.keys.ServiceURL, Pin: s.keys.ClusterPin, Master: s.keys.ClusterMaster,
		Address: s.configs[0].Address.Addr(), HTTP: source.NewClient(), Log: s.log,
		Jitter: func() time.Duration { return time.Duration(rand.IntN(10)) * time.Second },
		Waited: func(since time.Duration) {
			s.con.Info("waiting for the master of the cluster (%s)", since.Round(time.Second))
		},
	}.Contextualize(ctx, s.found.UserData)
	if err != nil {
		return fmt.Errorf("pairing with the cluster: %w", err)
	}
	s.found.UserData = data
	return s.useContext(data)
}

// useContext reads the boot keys out of user data.
func (s *state) useContext(userData []byte) error {
	c, err := usercontext.Parse("user-data", userData)
	s.context = c
	if err != nil {
		return fmt.Errorf("reading the user data: %w", err)
	}
	s.keys, s.keyErr = withExtra(c.Block(), s.extra.UserData).BootKeys()
	var errs []error
	for _, p := range s.keyErr {
		errs = append(errs, fmt.Errorf("user data: %s", p))
	}
	return errors.Join(errs...)
}

// withExtra lays the boot keys of the boot medium's own context over a block.
//
// Compat: cernvm-micro: 13context_epilog reads the extra context last, so it wins.
func withExtra(b usercontext.Block, extra []byte) usercontext.Block {
	over := usercontext.ParseBlock(extra)
	if !over.Found {
		return b
	}
	keys := maps.Clone(b.Keys)
	if keys == nil {
		keys = map[string]string{}
	}
	maps.Copy(keys, over.Keys)
	b.Found, b.Keys = true, keys
	return b
}

// stored is the context that UROOT keeps.
type stored struct {
	present  bool
	source   string
	userData []byte
	meta     meta
}

func (s *state) storedContext() (stored, error) {
	var c stored
	if !s.mounted {
		return c, nil
	}
	name, err := os.ReadFile(s.rw("context/source"))
	if err != nil {
		return c, err
	}
	c.source = strings.TrimSpace(string(name))
	if c.userData, err = os.ReadFile(s.rw("context/user-data")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	if data, err := os.ReadFile(s.rw("context/meta.json")); err == nil {
		if err := json.Unmarshal(data, &c.meta); err != nil {
			return c, fmt.Errorf("reading the kept metadata: %w", err)
		}
	}
	extra, err := os.ReadFile(s.rw("context/extra-user-data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	// Compat: the extra context counts on the first boot only, as the other.
	s.extra = source.Extra{UserData: extra}
	c.present = true
	return c, nil
}

// keepContext writes the context in force to UROOT. The file source is written
// last: with it the context counts as kept.
func (s *state) keepContext() error {
	keys := s.found.Meta.PublicKeys
	if keys == nil {
		keys = []string{}
	}
	data, err := json.MarshalIndent(meta{
		InstanceID: s.found.Meta.InstanceID, Hostname: s.found.Meta.Hostname, PublicKeys: keys, Values: s.found.Meta.Values, Shares: s.found.Meta.Shares,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("keeping the context: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"user-data", s.found.UserData},
		{"meta.json", append(data, '\n')},
		{"ucontext", ucontext(s.context)},
		{"extra-user-data", s.extra.UserData},
		{"pickup.tar.gz", s.extra.Pickup},
		{"source", []byte(s.source + "\n")},
	} {
		if f.data == nil && f.name != "user-data" {
			continue
		}
		if err := atomicfile.Write(s.rw("context", f.name), f.data, 0o600); err != nil {
			return fmt.Errorf("keeping the context: %w", err)
		}
	}
	if s.newSelf {
		// Once for each machine: what was unpacked for another one is not known here.
		for _, name := range []string{markInjected, markPickedUp} {
			if err := os.Remove(s.rw("context", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("keeping the context: %w", err)
			}
		}
	}
	if err := os.Remove(s.rw("aux/recontextualize")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping the context: %w", err)
	}
	s.keep = false
	return nil
}

// ucontext writes the boot keys as the original's parser did, for scripts of the
// operating system that look for single lines.
//
// Compat: cernvm-micro: extras/src/parse_user_data.cc; a value that is a word for
// yes or no becomes 1 or 0.
func ucontext(c *usercontext.Context) []byte {
	if c == nil {
		return nil
	}
	keys := c.Block().Keys
	names := make([]string, 0, len(keys))
	for name := range keys {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		value := keys[name]
		if strings.ContainsAny(name+value, "\n\x00") {
			continue
		}
		switch strings.ToLower(value) {
		case "yes", "on", "true":
			value = "1"
		case "no", "off", "false":
			value = "0"
		}
		fmt.Fprintf(&b, "_UCONTEXT_%s=%s\n", strings.ToUpper(name), value)
	}
	return []byte(b.String())
}

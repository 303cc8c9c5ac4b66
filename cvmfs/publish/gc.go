package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/catalog"
	"github.com/micavm/mica/cvmfs/publish/internal/storage"
)

// CollectOptions say what Collect does; Storage, Name and Keys are needed.
type CollectOptions struct {
	Storage, Name, Keys string
	Revisions           int           // how many untagged revisions before the published one stay
	MinAge              time.Duration // objects younger than this stay, whatever refers to them
	DryRun              bool
	Now                 func() time.Time
	Progress            func(Progress)
}

// Collected is what Collect removed, or would remove.
type Collected struct {
	Kept    int64 // objects
	Removed int64
	Bytes   int64    // of the removed
	Paths   []string // of the removed, in order
}

// Collect removes every object that neither the published revision, nor a tag,
// nor one of the Revisions before refers to. Something missing or unreadable in
// what is kept stops it before anything is removed: an unread catalogue would
// make all it refers to look like garbage.
//
// Differs: the original follows its reference log and passes over catalogues it
// cannot find (cvmfs: cvmfs/garbage_collection/).
func Collect(ctx context.Context, o CollectOptions) (*Collected, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	c, err := collect(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("collecting garbage of %q: %w", o.Name, err)
	}
	return c, nil
}

func collect(ctx context.Context, o CollectOptions) (*Collected, error) {
	t, err := begin(ctx, o.Storage, o.Name, o.Keys, o.Now, cvmfs.MD5)
	if err != nil {
		return nil, err
	}
	defer t.end()
	if !t.head.GarbageCollectable {
		return nil, fmt.Errorf("its manifest says that nothing may be removed: %w", errors.ErrUnsupported)
	}
	m := &marker{ctx: ctx, t: t, keep: make(map[string]bool), catalogs: make(map[cvmfs.Hash]bool), report: o.Progress}
	if err := m.all(o.Revisions); err != nil {
		return nil, err
	}
	result := &Collected{Kept: int64(len(m.keep))}
	if err := m.garbage(o, result); err != nil {
		return nil, err
	}
	if o.DryRun {
		return result, nil
	}
	// The reflog forgets first: what it lists is there.
	for h, r := range t.reflog.refs {
		if r.kind == refCatalog && !m.catalogs[h] || r.kind != refCatalog && !m.keep[h.ObjectPath(suffixOf(r.kind))] {
			delete(t.reflog.refs, h)
		}
	}
	next := *t.head
	next.Reflog = cvmfs.Hash{} // differs from head, so that commit does not leave it
	if err := t.commit(ctx, next, &Result{}); err != nil {
		return nil, err
	}
	err = t.s.store.Remove(ctx, result.Paths, func(n int) {
		o.Progress(Progress{Phase: PhaseSweep, Done: int64(n), Total: result.Removed})
	})
	if err != nil {
		return nil, err
	}
	o.Progress(Progress{Phase: PhaseSweep, Done: result.Removed, Total: result.Removed, Finished: true})
	return result, nil
}

func suffixOf(kind int64) cvmfs.Suffix {
	switch kind {
	case refCertificate:
		return cvmfs.SuffixCertificate
	case refHistory:
		return cvmfs.SuffixHistory
	case refMetainfo:
		return cvmfs.SuffixMetainfo
	}
	return cvmfs.SuffixCatalog
}

// marker finds what must stay.
type marker struct {
	ctx      context.Context
	t        *transaction
	keep     map[string]bool // object paths
	catalogs map[cvmfs.Hash]bool
	report   func(Progress)
}

func (m *marker) all(revisions int) error {
	head := m.t.head
	for h, suffix := range map[cvmfs.Hash]cvmfs.Suffix{
		head.Certificate: cvmfs.SuffixCertificate, head.History: cvmfs.SuffixHistory, head.Metainfo: cvmfs.SuffixMetainfo,
	} {
		if !h.IsZero() {
			m.keep[h.ObjectPath(suffix)] = true
		}
	}
	previous, err := m.catalogue(head.RootHash)
	if err != nil {
		return err
	}
	for _, tag := range m.t.tags {
		if _, err := m.catalogue(tag.Hash); err != nil {
			return fmt.Errorf("tag %q: %w", tag.Name, err)
		}
	}
	for ; revisions > 0 && !previous.IsZero(); revisions-- {
		if _, err := m.t.s.store.Stat(m.ctx, previous.ObjectPath(cvmfs.SuffixCatalog)); errors.Is(err, fs.ErrNotExist) {
			return nil // an earlier collection ends the chain here
		}
		if previous, err = m.catalogue(previous); err != nil {
			return err
		}
	}
	return nil
}

// catalogue keeps a catalogue and all it refers to, and returns the one it
// replaced.
func (m *marker) catalogue(h cvmfs.Hash) (previous cvmfs.Hash, err error) {
	if err := m.ctx.Err(); err != nil {
		return previous, err
	}
	file, err := m.t.s.unpack(m.ctx, m.t.g.dir, h, cvmfs.SuffixCatalog)
	if err != nil {
		return previous, fmt.Errorf("catalogue %v: %w", h, err)
	}
	defer os.Remove(file) //nolint:errcheck // it lies in the staging area
	if previous, _, err = predecessor(file); err != nil {
		return previous, fmt.Errorf("catalogue %v: %w", h, err)
	}
	if m.catalogs[h] {
		return previous, nil
	}
	m.catalogs[h] = true
	m.keep[h.ObjectPath(cvmfs.SuffixCatalog)] = true
	m.report(Progress{Phase: PhaseCheck, Done: int64(len(m.catalogs))})
	nested, err := m.contents(file)
	if err != nil {
		return previous, fmt.Errorf("catalogue %v: %w", h, err)
	}
	for _, n := range nested {
		if m.catalogs[n.Hash] {
			continue
		}
		if _, err := m.catalogue(n.Hash); err != nil {
			return previous, err
		}
	}
	return previous, nil
}

// contents keeps what the files of a catalogue consist of.
func (m *marker) contents(file string) ([]catalog.Nested, error) {
	c, err := catalog.Open(file)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // read only
	err = c.Objects(func(o catalog.Object) error {
		m.keep[o.Hash.ObjectPath(o.Suffix)] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c.Nested()
}

// garbage lists the objects nothing keeps.
func (m *marker) garbage(o CollectOptions, result *Collected) error {
	youngest := o.Now().Add(-o.MinAge)
	err := m.t.s.store.Objects(m.ctx, func(i storage.Info) error {
		if m.keep[i.Name] || o.MinAge > 0 && i.Modified.After(youngest) {
			return nil
		}
		result.Removed++
		result.Bytes += i.Size
		result.Paths = append(result.Paths, i.Name)
		return nil
	})
	slices.Sort(result.Paths)
	return err
}

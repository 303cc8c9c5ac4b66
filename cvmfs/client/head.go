package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
	"github.com/micavm/mica/cvmfs/client/internal/transfer"
	"github.com/micavm/mica/cvmfs/history"
)

// State files in the cache.
const (
	breadcrumbState = "cvmfschecksum" // Compat: the original's
	manifestState   = "manifest"      // the last one that was verified
	whitelistState  = "whitelist"     // the one it was verified with
	tagState        = "tags"          // what tags stood for
)

// revision is one state of a repository that may be shown.
type revision struct {
	hash     cvmfs.Hash
	size     int64 // of the root catalogue; -1 if not known
	revision uint64
	manifest *cvmfs.Manifest // if it comes from one just verified
}

// resolve finds the revision that the options ask for.
func (r *Repository) resolve(ctx context.Context) (revision, error) {
	switch {
	case !r.opt.Pin.RootHash.IsZero():
		return revision{hash: r.opt.Pin.RootHash, size: -1}, nil
	case r.opt.Pin.Tag != "":
		return r.tagged(ctx, r.opt.Pin.Tag)
	case !r.opt.Pin.Date.IsZero():
		return r.tagged(ctx, dateMark+r.opt.Pin.Date.UTC().Format(time.RFC3339))
	}
	want, err := r.first(ctx)
	if err == nil {
		return want, nil
	}
	if ctx.Err() != nil {
		return revision{}, err
	}
	crumb, ok := r.readBreadcrumb()
	if !ok || crumb.revision < r.opt.MinRevision {
		return revision{}, err
	}
	r.noNews(err)
	r.log.Warn("showing the newest revision known, none could be had from the servers", "repository", r.opt.Name,
		"revision", crumb.revision, "root_hash", crumb.hash.String(), "err", err)
	return revision{hash: crumb.hash, size: -1, revision: crumb.revision}, nil
}

// getter is Get or GetFresh of the transfer client.
type getter = func(ctx context.Context, path string, accept transfer.Accept) (server string, err error)

// first is the revision to begin with: that of a slice, which needs no network,
// else the newest one.
func (r *Repository) first(ctx context.Context) (revision, error) {
	if len(r.opt.Slices) > 0 {
		crumb, _ := r.readBreadcrumb()
		m, _, err := r.manifest(ctx, crumb, r.getSliced)
		if err == nil {
			return revision{hash: m.RootHash, size: knownSize(m.RootSize), revision: m.Revision, manifest: m}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("the slice's revision is not shown", "repository", r.opt.Name, "err", err)
		}
	}
	return r.newest(ctx)
}

// newest asks the servers, one after the other, for a manifest that verifies and
// is no step back.
func (r *Repository) newest(ctx context.Context) (revision, error) {
	crumb, _ := r.readBreadcrumb()
	servers, _ := r.net.Servers()
	var all []error
	for range servers {
		m, server, err := r.manifest(ctx, crumb, r.net.Get)
		if err != nil && !IsTransfer(err) && ctx.Err() == nil { // a cache on the way may be at fault
			m, server, err = r.manifest(ctx, crumb, r.net.GetFresh)
		}
		if err == nil {
			return revision{hash: m.RootHash, size: knownSize(m.RootSize), revision: m.Revision, manifest: m}, nil
		}
		if ctx.Err() != nil {
			return revision{}, err
		}
		if IsTransfer(err) { // every server was tried already
			return revision{}, errors.Join(append(all, err)...)
		}
		r.log.Warn("server offers nothing to be trusted", "server", Masked(server), "err", err)
		all = append(all, fmt.Errorf("%s: %w", Masked(server), err))
		r.net.LeaveServer(server)
	}
	return revision{}, errors.Join(all...)
}

func knownSize(size int64) int64 {
	if size <= 0 {
		return -1
	}
	return size
}

// manifest fetches and verifies one manifest. server is where it came from, also
// if it is no good.
func (r *Repository) manifest(ctx context.Context, crumb breadcrumb, get getter) (m *cvmfs.Manifest, server string, err error) {
	var data []byte
	server, err = get(ctx, ".cvmfspublished", func(body io.Reader) error {
		if data, err = readSigned(body); err != nil {
			return err
		}
		// Whatever else may answer in a server's place fails here, and another one
		// gets its chance.
		if m, err = cvmfs.ParseManifest(data); err != nil {
			return bad(err)
		}
		if m.Name != r.opt.Name {
			return bad(fmt.Errorf("manifest of %q: %w", m.Name, cvmfs.ErrWrongName))
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	named := m.Certificate
	certificate, cached, err := r.certificate(ctx, named)
	if err != nil {
		return nil, server, err
	}
	trust := cvmfs.Trust{Name: r.opt.Name, MasterKeys: r.opt.MasterKeys, Now: r.opt.Now, Blocked: r.opt.Blocked}
	// A manifest that was verified before needs no new whitelist, as long as the
	// one it was verified with holds.
	old, _ := r.cache.ReadState(manifestState)
	whitelist, _ := r.cache.ReadState(whitelistState)
	if bytes.Equal(old, data) {
		if m, err = trust.Verify(data, whitelist, certificate); err == nil {
			return r.notOlder(m, server, crumb)
		}
	}
	if _, err = get(ctx, ".cvmfswhitelist", func(body io.Reader) error {
		if whitelist, err = readSigned(body); err != nil {
			return err
		}
		if _, err = trust.VerifyWhitelist(whitelist); err != nil {
			return bad(err)
		}
		return nil
	}); err != nil {
		return nil, server, err
	}
	m, err = trust.Verify(data, whitelist, certificate)
	if err != nil && cached {
		// The cache cannot tell whether the certificate in it is still what was put
		// there: unlike its stored form, the plain one has no hash.
		if fresh, fetchErr := r.fetchCertificate(ctx, named); fetchErr == nil && !bytes.Equal(fresh, certificate) {
			r.cache.Discard(named, err)
			certificate, cached = fresh, false
			m, err = trust.Verify(data, whitelist, certificate)
		}
	}
	if err != nil {
		return nil, server, err
	}
	if m, server, err = r.notOlder(m, server, crumb); err != nil {
		return nil, server, err
	}
	if !cached {
		r.keep(m.Certificate, certificate)
	}
	// The whitelist first: a manifest without its whitelist only costs a download.
	if err := errors.Join(r.cache.WriteState(whitelistState, whitelist, false), r.cache.WriteState(manifestState, data, false)); err != nil {
		r.log.Debug("signed files not kept", "err", err)
	}
	return m, server, nil
}

func (r *Repository) notOlder(m *cvmfs.Manifest, server string, crumb breadcrumb) (*cvmfs.Manifest, string, error) {
	switch {
	case m.Revision < r.opt.MinRevision:
		return nil, server, fmt.Errorf("revision %d, those before %d are blocked: %w", m.Revision, r.opt.MinRevision, cvmfs.ErrUntrusted)
	case crumb.hash.IsZero():
	case m.Revision < crumb.revision:
		return nil, server, fmt.Errorf("revision %d, %d was there already: %w", m.Revision, crumb.revision, ErrOutdated)
	case m.Published.Unix() < crumb.published:
		return nil, server, fmt.Errorf("revision %d of %s: %w", m.Revision, m.Published.UTC().Format(time.RFC3339), ErrOutdated)
	case m.Revision == crumb.revision && m.RootHash != crumb.hash:
		return nil, server, fmt.Errorf("revision %d is not the one seen before: %w", m.Revision, ErrOutdated)
	}
	return m, server, nil
}

// bad marks an error as the fault of whoever sent the bytes.
func bad(err error) error { return fmt.Errorf("%w: %w", transfer.ErrBad, err) }

func readSigned(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxSigned+1))
	if err == nil && len(data) > maxSigned {
		return nil, bad(fmt.Errorf("longer than %d bytes: %w", maxSigned, cvmfs.ErrMalformed))
	}
	return data, err
}

// certificate returns the PEM text. It goes into the cache only after the
// manifest that named it was verified.
func (r *Repository) certificate(ctx context.Context, h cvmfs.Hash) (pem []byte, cached bool, err error) {
	if h.IsZero() {
		return nil, false, fmt.Errorf("the manifest names no certificate: %w", cvmfs.ErrMalformed)
	}
	if o, err := r.cache.Get(h, objectcache.Expect{Size: -1}); err == nil {
		defer func() { _ = o.Close() }()
		pem = make([]byte, min(o.Size(), maxSmallObject))
		if _, err := o.ReadAt(pem, 0); err == nil || errors.Is(err, io.EOF) {
			return pem, true, nil
		}
	}
	pem, err = r.fetchCertificate(ctx, h)
	return pem, false, err
}

func (r *Repository) fetchCertificate(ctx context.Context, h cvmfs.Hash) ([]byte, error) {
	var buf bytes.Buffer
	_, err := r.get(ctx, h.ObjectPath(cvmfs.SuffixCertificate), func(body io.Reader) error {
		buf.Reset()
		n, err := r.verified(&buf, body, h, cvmfs.Zlib, maxSmallObject)
		if err == nil && n == 0 {
			err = bad(fmt.Errorf("certificate %s is empty: %w", h, cvmfs.ErrCorrupt))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("getting the certificate: %w", err)
	}
	return buf.Bytes(), nil
}

// keep puts a small verified object into the cache, if it takes it.
func (r *Repository) keep(h cvmfs.Hash, data []byte) {
	txn, err := r.cache.Begin(h, cvmfs.Zlib, false)
	if err != nil {
		return
	}
	defer txn.Abort()
	if _, err := txn.Write(data); err != nil {
		return
	}
	if o, err := txn.Commit(); err == nil {
		_ = o.Close()
	}
}

// tagged finds the revision of a tag: as the servers say now, or else as they
// said the last time.
func (r *Repository) tagged(ctx context.Context, tag string) (revision, error) {
	want, err := r.askTag(ctx, tag)
	if err == nil {
		r.rememberTag(tag, want)
		return want, nil
	}
	if errors.Is(err, ErrNoTag) || ctx.Err() != nil {
		return revision{}, err
	}
	known, ok := r.knownTags()[tag]
	if !ok {
		return revision{}, err
	}
	r.noNews(err)
	r.log.Warn("taking the tag for what it was the last time, the servers could not be asked", "repository", r.opt.Name,
		"tag", tag, "root_hash", known.hash.String(), "err", err)
	return known, nil
}

func (r *Repository) askTag(ctx context.Context, tag string) (revision, error) {
	head, err := r.first(ctx)
	if err != nil {
		return revision{}, err
	}
	if head.manifest.History.IsZero() {
		return revision{}, fmt.Errorf("tag %q: the repository has no history: %w", tag, ErrNoTag)
	}
	o, err := r.object(ctx, want{hash: head.manifest.History, suffix: cvmfs.SuffixHistory, size: -1, limit: maxHistory})
	if err != nil {
		return revision{}, fmt.Errorf("getting the history: %w", err)
	}
	defer func() { _ = o.Close() }()
	file, done, err := r.fileOf(o, head.manifest.History)
	if err != nil {
		return revision{}, err
	}
	h, err := history.Open(file)
	done()
	if err != nil {
		r.cache.Discard(head.manifest.History, err)
		return revision{}, err
	}
	t, ok := h.Lookup(tag)
	if strings.HasPrefix(tag, dateMark) {
		if t, ok = h.At(r.opt.Pin.Date); !ok {
			return revision{}, fmt.Errorf("no tag of a revision is as old as %s: %w", tag[len(dateMark):], ErrNoTag)
		}
	}
	if !ok {
		return revision{}, fmt.Errorf("tag %q: %w", tag, ErrNoTag)
	}
	return revision{hash: t.Hash, size: knownSize(t.Size), revision: t.Revision}, nil
}

const (
	maxTags  = 64  // remembered
	dateMark = "@" // before a date in the place of a tag, whose name never has it
)

func (r *Repository) knownTags() map[string]revision {
	data, err := r.cache.ReadState(tagState)
	if err != nil {
		return map[string]revision{}
	}
	return parseTags(string(data))
}

// parseTags reads lines of a root catalogue's hash, its revision, and the tag that
// stood for it. Other lines are passed over.
func parseTags(text string) map[string]revision {
	known := map[string]revision{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || len(known) == maxTags {
			continue
		}
		h, err := cvmfs.ParseHash(fields[0])
		n, err2 := strconv.ParseUint(fields[1], 10, 64)
		if err == nil && err2 == nil && !h.IsZero() {
			known[fields[2]] = revision{hash: h, size: -1, revision: n}
		}
	}
	return known
}

// tagLine is what parseTags reads.
func tagLine(tag string, v revision) string {
	return fmt.Sprintf("%s %d %s\n", v.hash, v.revision, tag)
}

func (r *Repository) rememberTag(tag string, want revision) {
	known := r.knownTags()
	if old, ok := known[tag]; ok && old.hash == want.hash {
		return
	}
	text := tagLine(tag, want) // first, so that it is never the one left out
	for t, v := range known {
		if t != tag {
			text += tagLine(t, v)
		}
	}
	if err := r.cache.WriteState(tagState, []byte(text), true); err != nil {
		r.log.Warn("the tag is not remembered for an offline start", "tag", tag, "err", err)
	}
}

// breadcrumb is what the cache remembers of the newest verified revision.
type breadcrumb struct {
	hash      cvmfs.Hash
	published int64
	revision  uint64
}

// parseBreadcrumb reads "<hash>T<timestamp>R<revision>"; old files lack the
// revision. Compat: cvmfs/manifest.cc.
func parseBreadcrumb(text string) (breadcrumb, error) {
	text = strings.TrimSpace(text)
	malformed := fmt.Errorf("breadcrumb %.100q: %w", text, cvmfs.ErrMalformed)
	hash, rest, ok := strings.Cut(text, "T")
	if !ok {
		return breadcrumb{}, malformed
	}
	stamp, number, hasRevision := strings.Cut(rest, "R")
	var b breadcrumb
	var err error
	if b.hash, err = cvmfs.ParseHash(hash); err != nil {
		return breadcrumb{}, malformed
	}
	if b.published, err = strconv.ParseInt(stamp, 10, 64); err != nil {
		return breadcrumb{}, malformed
	}
	if hasRevision {
		if b.revision, err = strconv.ParseUint(number, 10, 64); err != nil {
			return breadcrumb{}, malformed
		}
	}
	return b, nil
}

func (b breadcrumb) String() string {
	return fmt.Sprintf("%sT%dR%d", b.hash, b.published, b.revision)
}

func (r *Repository) readBreadcrumb() (breadcrumb, bool) {
	data, err := r.cache.ReadState(breadcrumbState)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("breadcrumb not readable", "err", err)
		}
		return breadcrumb{}, false
	}
	b, err := parseBreadcrumb(string(data))
	if err != nil {
		r.log.Warn("breadcrumb ignored", "err", err)
		return breadcrumb{}, false
	}
	return b, true
}

func (r *Repository) writeBreadcrumb(m *cvmfs.Manifest) error {
	b := breadcrumb{hash: m.RootHash, published: m.Published.Unix(), revision: m.Revision}
	if old, ok := r.readBreadcrumb(); ok && old == b {
		return nil
	}
	return r.cache.WriteState(breadcrumbState, []byte(b.String()), true)
}

package talk_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/talk"
)

func lines(c *talk.Commands, t *testing.T, command string) []string {
	return slices.Collect(strings.Lines(c.Answer(t.Context(), command)))
}

// Catalogues are listed by place, and everything by hash.
func TestCacheList(t *testing.T) {
	r := openSmall(t, nil)
	c := &talk.Commands{Repository: r, Log: slog.New(slog.DiscardHandler)}
	e, err := r.Lookup(t.Context(), "/README")
	if err != nil {
		t.Fatal(err)
	}
	file, root := e.Hash.String()+"\n", "file catalog at "+r.Name()+":/ ("+r.RootHash().String()+")\n"
	if got := lines(c, t, "cache list"); !slices.Contains(got, root) || slices.Contains(got, file) {
		t.Errorf("before anything is read: %q", got)
	}
	if got := lines(c, t, "cache list catalogs"); !slices.Equal(got, []string{root}) {
		t.Errorf("catalogues: %q, want %q", got, root)
	}
	if got := c.Answer(t.Context(), "pin /README"); got != "OK" {
		t.Fatal(got)
	}
	pinned := lines(c, t, "cache list pinned")
	slices.Sort(pinned)
	if want := []string{file, root}; !slices.Equal(pinned, want) {
		t.Errorf("pinned: %q, want %q", pinned, want)
	}
	if got := lines(c, t, "cache list"); !slices.Contains(got, file) || !slices.Contains(got, root) {
		t.Errorf("after it is read: %q", got)
	}

	// A nested catalogue is known from the one above it, too.
	at, hash, _, err := r.CatalogOf(t.Context(), "/nested")
	if err != nil || at == "" {
		t.Fatal(at, err)
	}
	nested := "file catalog at " + r.Name() + ":" + at + " (" + hash.String() + ")\n"
	if got, want := c.Answer(t.Context(), "open catalogs"), "-> \n    -> "+at+"\n"; got != want {
		t.Errorf("open catalogues: %q, want %q", got, want)
	}
	for range 2 {
		if got := lines(c, t, "cache list catalogs"); !slices.Contains(got, nested) || len(got) != 2 {
			t.Errorf("catalogues: %q, want also %q", got, nested)
		}
		c.Answer(t.Context(), "detach nested catalogs")
	}
	if got := c.Answer(t.Context(), "open catalogs"); got != "-> \n" {
		t.Errorf("open catalogues after they are detached: %q", got)
	}
}

// Evictions that removed something are counted.
func TestCleanupRate(t *testing.T) {
	now := time.Now()
	r := openSmall(t, func(o *client.Options) { o.Now = func() time.Time { return now } })
	c := &talk.Commands{Repository: r, Log: slog.New(slog.DiscardHandler)}
	for _, step := range []struct{ command, want string }{
		{"cleanup 100", "OK"},
		{"cleanup rate 60", "0"},
		{"pin /README", "OK"},
		{"evict /README", "OK"}, // one object is no cleanup
		{"cleanup rate 60", "0"},
	} {
		if got := c.Answer(t.Context(), step.command); got != step.want {
			t.Errorf("%s: %q, want %q", step.command, got, step.want)
		}
	}
	if _, err := r.Chunks(t.Context(), "/big/chunked"); err != nil {
		t.Fatal(err)
	}
	f, err := r.Open(t.Context(), "/big/chunked")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	c.Answer(t.Context(), "cleanup 0") // what is open stays
	if got := c.Answer(t.Context(), "cleanup rate 60"); got != "1" {
		t.Errorf("cleanups: %s, want 1", got)
	}
	now = now.Add(2 * time.Hour)
	if got := c.Answer(t.Context(), "cleanup rate 60"); got != "0" {
		t.Errorf("cleanups two hours later: %s, want 0", got)
	}
}

// Another revision is shown until the next look for a newer one, unless the
// revision is fixed.
func TestChroot(t *testing.T) {
	r := openSmall(t, nil)
	c := &talk.Commands{Repository: r, Log: slog.New(slog.DiscardHandler)}
	newest := r.RootHash()
	older := rootOf(t, 1)
	if got := c.Answer(t.Context(), "chroot "+older.String()); got != "OK" || r.RootHash() != older || r.Revision() != 1 {
		t.Errorf("%q, now revision %d, root %v", got, r.Revision(), r.RootHash())
	}
	if got := c.Answer(t.Context(), "chroot "+strings.Repeat("ab", 20)); got != "Failed" || r.RootHash() != older {
		t.Errorf("a root that is not there: %q, root %v", got, r.RootHash())
	}
	if got := c.Answer(t.Context(), "remount"); got != "New revision applied" || r.RootHash() != newest {
		t.Errorf("%q, root %v, want %v", got, r.RootHash(), newest)
	}
	pinned := openSmall(t, func(o *client.Options) { o.Pin.RootHash = newest })
	p := &talk.Commands{Repository: pinned, Log: slog.New(slog.DiscardHandler)}
	if got := p.Answer(t.Context(), "chroot "+older.String()); got != "Failed" || pinned.RootHash() != newest {
		t.Errorf("of a fixed revision: %q, root %v", got, pinned.RootHash())
	}
}

// rootOf is the root catalogue of a revision.
func rootOf(t *testing.T, revision int) cvmfs.Hash {
	t.Helper()
	r := openSmall(t, func(o *client.Options) { o.Pin.Tag = map[int]string{1: "rev1"}[revision] })
	if r.Revision() != uint64(revision) {
		t.Fatalf("revision %d", r.Revision())
	}
	return r.RootHash()
}

// A lower limit on the time to live counts at once.
func TestMaxTTLSet(t *testing.T) {
	dir := cvmfstest.Small(t).Dir
	s := newCounting(t, dir, "")
	r := openSmall(t, func(o *client.Options) { o.Servers = []string{s.url} })
	c := &talk.Commands{Repository: r, Log: slog.New(slog.DiscardHandler)}
	before := r.TTL()
	if got := c.Answer(t.Context(), "max ttl set 1"); got != "OK" || r.TTL() != time.Minute || before <= time.Minute {
		t.Errorf("%q: %v, %v before", got, r.TTL(), before)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Follow(ctx)
	}()
	asked := s.requests.Load()
	r.SetMaxTTL(10 * time.Millisecond) // below the command's grain
	within(t, "the next look for a revision", func() {
		for s.requests.Load() == asked {
			time.Sleep(5 * time.Millisecond)
		}
	})
	stop()
	within(t, "the end of Follow", func() { <-ended })
}

package profile

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/cvmfs"
)

// Name is where a signed profile lies, beside a repository's manifest.
const Name = ".micaprofile"

// Bounds of a profile, far above what a boot reads.
const (
	MaxObjects = 1 << 16
	MaxSize    = 8 << 20 // bytes, signed
)

// Object is one object that was wanted.
type Object struct {
	Hash        cvmfs.Hash
	Suffix      cvmfs.Suffix
	Compression cvmfs.Compression
	Size        int64 // bytes, inflated; -1 if not known
}

// Path returns where the object lies below the root of a repository.
func (o Object) Path() string { return o.Hash.ObjectPath(o.Suffix) }

// Profile is what was read of one revision of a repository.
type Profile struct {
	Repository string // fully qualified name
	Root       cvmfs.Hash
	Recorded   time.Time // whole seconds
	External   int       // files that were read and whose content lies elsewhere: it is in no profile
	Objects    []Object  // each once, in the order of first use
}

// Bytes returns the sum of the known sizes, inflated.
func (p *Profile) Bytes() int64 {
	var n int64
	for _, o := range p.Objects {
		n += max(o.Size, 0)
	}
	return n
}

const title = "mica-profile 1"

// Text returns the text form.
func (p *Profile) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nrepository %s\nroot %s\nrecorded %s\n", title, p.Repository, p.Root, p.Recorded.UTC().Format(time.RFC3339))
	if p.External > 0 {
		fmt.Fprintf(&b, "external %d\n", p.External)
	}
	fmt.Fprintf(&b, "objects %d\n", len(p.Objects))
	for _, o := range p.Objects {
		b.WriteString(o.Hash.String())
		if o.Suffix != cvmfs.SuffixNone {
			b.WriteRune(rune(o.Suffix))
		}
		fmt.Fprintf(&b, " %d %s\n", o.Size, o.Compression)
	}
	return b.Bytes()
}

// Parse reads the text form. Errors name the line and wrap
// [cvmfs.ErrMalformed].
func Parse(text []byte) (*Profile, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("profile of %d bytes: %w", len(text), cvmfs.ErrMalformed)
	}
	lines := strings.SplitAfter(string(text), "\n")
	at := 0
	bad := func(what string) (*Profile, error) {
		return nil, fmt.Errorf("profile, line %d: %s: %w", at, what, cvmfs.ErrMalformed)
	}
	next := func(key string) (string, bool) {
		if at >= len(lines) {
			return "", false
		}
		line, whole := strings.CutSuffix(lines[at], "\n")
		at++
		value, ok := strings.CutPrefix(line, key)
		return value, whole && ok
	}
	if _, ok := next(title); !ok {
		return bad("this is no profile")
	}
	p := &Profile{}
	var err error
	name, ok := next("repository ")
	if p.Repository = name; !ok || cvmfs.CheckName(name) != nil {
		return bad("no name of a repository")
	}
	root, ok := next("root ")
	if p.Root, err = cvmfs.ParseHash(root); !ok || err != nil {
		return bad("no hash of a root catalogue")
	}
	recorded, ok := next("recorded ")
	if p.Recorded, err = time.Parse(time.RFC3339, recorded); !ok || err != nil {
		return bad("no time")
	}
	if at < len(lines) && strings.HasPrefix(lines[at], "external ") {
		number, ok := next("external ")
		if p.External, err = strconv.Atoi(number); !ok || err != nil || p.External <= 0 {
			return bad("no number of files that can be")
		}
	}
	number, ok := next("objects ")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 0 || n > MaxObjects || n > len(text) {
		return bad("no number of objects that can be")
	}
	p.Objects = make([]Object, 0, n)
	for range n {
		line, ok := next("")
		if !ok {
			return bad("objects are missing")
		}
		o, ok := parseObject(line)
		if !ok {
			return bad("no object")
		}
		p.Objects = append(p.Objects, o)
	}
	if rest := strings.Join(lines[at:], ""); rest != "" {
		return bad("more than the objects announced")
	}
	return p, nil
}

func parseObject(line string) (Object, bool) {
	fields := strings.Split(line, " ")
	if len(fields) != 3 || fields[0] == "" {
		return Object{}, false
	}
	name := fields[0]
	var o Object
	if last := name[len(name)-1]; last >= 'A' && last <= 'Z' {
		o.Suffix, name = cvmfs.Suffix(last), name[:len(name)-1]
	}
	var err error
	if o.Hash, err = cvmfs.ParseHash(name); err != nil || o.Hash.IsZero() || o.Hash.Algorithm == cvmfs.MD5 {
		return Object{}, false
	}
	if o.Size, err = strconv.ParseInt(fields[1], 10, 64); err != nil || o.Size < -1 {
		return Object{}, false
	}
	for o.Compression = cvmfs.Zlib; o.Compression.Valid(); o.Compression++ {
		if o.Compression.String() == fields[2] {
			return o, true
		}
	}
	return Object{}, false
}

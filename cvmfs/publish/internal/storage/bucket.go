package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"
)

// bucket is where a location of the form
//
//	s3://BUCKET/PREFIX?endpoint=URL&region=REGION&lookup=path|dns&credentials=FILE&profile=NAME
//
// points to. All of the query may be left out: it is Amazon's service then.
type bucket struct {
	name, prefix string
	endpoint     *url.URL
	region       string
	lookup       minio.BucketLookupType
	file         string // of credentials
	profile      string
}

func parseBucket(location string) (*bucket, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("storage: %w", redact(err))
	}
	if u.User != nil {
		return nil, fmt.Errorf("storage %q: credentials come from the environment or a file, never from the location: %w", u.Redacted(), errors.ErrUnsupported)
	}
	b := &bucket{name: u.Host, prefix: strings.Trim(u.Path, "/"), profile: "default"}
	bad := func(format string, args ...any) (*bucket, error) {
		return nil, fmt.Errorf("storage %q: %s: %w", location, fmt.Sprintf(format, args...), errors.ErrUnsupported)
	}
	if b.name == "" || u.Fragment != "" {
		return bad("want %sBUCKET/PREFIX", scheme)
	}
	endpoint := "https://s3.amazonaws.com"
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return bad("%v", err)
	}
	for key, values := range query {
		if len(values) != 1 {
			return bad("%q is there twice", key)
		}
		switch value := values[0]; key {
		case "endpoint":
			endpoint = value
		case "region":
			b.region = value
		case "credentials":
			b.file = value
		case "profile":
			b.profile = value
		case "lookup":
			switch value {
			case "path":
				b.lookup = minio.BucketLookupPath
			case "dns":
				b.lookup = minio.BucketLookupDNS
			default:
				return bad("lookup is path or dns")
			}
		default:
			return bad("unknown parameter %q", key)
		}
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	b.endpoint, err = url.Parse(endpoint)
	if err != nil || b.endpoint.Host == "" || b.endpoint.User != nil || strings.Trim(b.endpoint.Path, "/") != "" || b.endpoint.Scheme != "http" && b.endpoint.Scheme != "https" {
		return bad("endpoint is http://HOST:PORT or https://HOST:PORT")
	}
	return b, nil
}

// redact keeps what may be a password out of an error about a URL.
func redact(err error) error {
	var parse *url.Error
	if errors.As(err, &parse) {
		return parse.Err
	}
	return err
}

// credentials finds the keys: in the environment, in the file the location
// names, or where the other tools of the service have theirs. Without any, only
// what the bucket lets everybody do is possible.
func (b *bucket) credentials() (*credentials.Credentials, error) {
	if b.file == "" && os.Getenv("AWS_ACCESS_KEY_ID") != "" {
		return credentials.NewEnvAWS(), nil
	}
	file := b.file
	if file == "" {
		file = os.Getenv("AWS_SHARED_CREDENTIALS_FILE")
	}
	given := file != ""
	if !given {
		home, err := os.UserHomeDir()
		if err != nil {
			return credentials.NewStatic("", "", "", credentials.SignatureAnonymous), nil
		}
		file = filepath.Join(home, ".aws", "credentials")
	}
	fi, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return credentials.NewStatic("", "", "", credentials.SignatureAnonymous), nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading credentials: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("credentials %s: others may read it, its mode is %v and should be 0600: %w", file, fi.Mode().Perm(), fs.ErrPermission)
	}
	c := credentials.NewFileAWSCredentials(file, b.profile)
	if _, err := c.GetWithContext(nil); err != nil {
		return nil, fmt.Errorf("credentials %s, profile %q: %w", file, b.profile, err)
	}
	return c, nil
}

func (b *bucket) open(name string) (*Bucket, error) {
	keys, err := b.credentials()
	if err != nil {
		return nil, err
	}
	client, err := minio.New(b.endpoint.Host, &minio.Options{
		Creds: keys, Secure: b.endpoint.Scheme == "https", Region: b.region, BucketLookup: b.lookup, MaxRetries: maxTries,
	})
	if err != nil {
		return nil, fmt.Errorf("storage %s%s: %w", scheme, b.name, err)
	}
	client.SetAppInfo("mica", "1")
	prefix := name + "/"
	if b.prefix != "" {
		prefix = b.prefix + "/" + prefix
	}
	return &Bucket{core: minio.Core{Client: client}, bucket: b.name, prefix: prefix, now: time.Now, lease: lease, seen: make(map[string]string)}, nil
}

// maxTries of one request that the service or the network failed, with growing
// and jittered pauses between them.
const maxTries = 6

// Bucket is a repository in a bucket. A key is PREFIX/NAME/data/…, so that
// readers are given the bucket's URL, PREFIX and NAME.
type Bucket struct {
	core   minio.Core
	bucket string
	prefix string // with its slash
	now    func() time.Time
	lease  time.Duration

	mu   sync.Mutex        // guards seen
	seen map[string]string // root file → ETag when last read or written; "" if it was not there
}

// String returns s3://BUCKET/PREFIX/NAME.
func (b *Bucket) String() string { return scheme + b.bucket + "/" + strings.TrimSuffix(b.prefix, "/") }

// Parallel hides the latency of the service.
func (b *Bucket) Parallel() int { return 16 }

func (b *Bucket) key(name string) string { return b.prefix + name }

// fault makes an error of the service one of this package.
func (b *Bucket) fault(what, name string, err error) error {
	if err == nil {
		return nil
	}
	code := minio.ToErrorResponse(err)
	text := fmt.Sprintf("%s %s/%s", what, strings.TrimSuffix(b.String(), "/"), name)
	switch {
	case code.Code == minio.NoSuchKey || code.StatusCode == http.StatusNotFound && code.Code != minio.NoSuchBucket:
		return fmt.Errorf("%s: %w", text, fs.ErrNotExist)
	case refused(err):
		return fmt.Errorf("%s: it %w", text, ErrChanged)
	case code.StatusCode == http.StatusForbidden || code.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%s: %w: %w", text, fs.ErrPermission, err)
	}
	return fmt.Errorf("%s: %w", text, err)
}

// refused reports whether a condition of a write did not hold.
func refused(err error) bool {
	code := minio.ToErrorResponse(err)
	return code.Code == minio.PreconditionFailed || code.StatusCode == http.StatusPreconditionFailed || code.StatusCode == http.StatusConflict
}

func (b *Bucket) remember(name, etag string) {
	if strings.Contains(name, "/") {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen[name] = etag
}

// Open gets a file.
func (b *Bucket) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	body, info, _, err := b.core.GetObject(ctx, b.bucket, b.key(name), minio.GetObjectOptions{})
	if err = b.fault("reading", name, err); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			b.remember(name, "")
		}
		return nil, err
	}
	b.remember(name, info.ETag)
	return body, nil
}

// Stat asks for a file's description.
func (b *Bucket) Stat(ctx context.Context, name string) (Info, error) {
	info, err := b.core.StatObject(ctx, b.bucket, b.key(name), minio.StatObjectOptions{})
	if err != nil {
		return Info{}, b.fault("looking for", name, err)
	}
	return Info{name, info.Size, info.LastModified}, nil
}

// headers are what the service sends along to readers: the same as package serve.
func headers(name string, size int64) minio.PutObjectOptions {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream", CacheControl: "max-age=259200, immutable", NumThreads: 1}
	o.DisableContentSha256 = size == 0 // there is nothing to sign, and a signed stream of nothing confuses some services
	if strings.HasPrefix(name, ".") {
		o.ContentType, o.CacheControl = "application/x-cvmfs", "max-age=61"
		if strings.HasSuffix(name, ".json") {
			o.ContentType = "application/json"
		}
	}
	return o
}

// Replace puts a file on condition that it is the one last seen.
func (b *Bucket) Replace(ctx context.Context, name string, data []byte) error {
	b.mu.Lock()
	etag, seen := b.seen[name]
	b.mu.Unlock()
	o := headers(name, int64(len(data)))
	switch {
	case seen && etag == "":
		o.SetMatchETagExcept("*")
	case seen:
		o.SetMatchETag(etag)
	}
	return b.put(ctx, name, data, o)
}

func (b *Bucket) put(ctx context.Context, name string, data []byte, o minio.PutObjectOptions) error {
	info, err := b.core.Client.PutObject(ctx, b.bucket, b.key(name), bytes.NewReader(data), int64(len(data)), o)
	if err != nil && refused(err) && ctx.Err() == nil {
		// A first try may have got there, and only its answer been lost.
		now, etag, rerr := b.whole(ctx, name)
		if rerr == nil && bytes.Equal(now, data) {
			b.remember(name, etag)
			return nil
		}
	}
	if err != nil {
		return b.fault("writing", name, err)
	}
	b.remember(name, info.ETag)
	return nil
}

// whole reads a small file.
func (b *Bucket) whole(ctx context.Context, name string) ([]byte, string, error) {
	body, info, _, err := b.core.GetObject(ctx, b.bucket, b.key(name), minio.GetObjectOptions{})
	if err != nil {
		return nil, "", b.fault("reading", name, err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, 64<<20))
	return data, info.ETag, err
}

// Remove removes files in batches.
func (b *Bucket) Remove(ctx context.Context, names []string, done func(n int)) error {
	gone := 0
	for batch := range slices.Chunk(names, 1000) {
		queue := make(chan minio.ObjectInfo, len(batch))
		for _, name := range batch {
			queue <- minio.ObjectInfo{Key: b.key(name)}
			if !strings.Contains(name, "/") {
				b.mu.Lock()
				delete(b.seen, name)
				b.mu.Unlock()
			}
		}
		close(queue)
		var errs []error
		for failed := range b.core.RemoveObjects(ctx, b.bucket, queue, minio.RemoveObjectsOptions{}) {
			if err := b.fault("removing", strings.TrimPrefix(failed.ObjectName, b.prefix), failed.Err); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		gone += len(batch)
		done(gone)
	}
	return nil
}

// Objects lists what is below data/.
func (b *Bucket) Objects(ctx context.Context, visit func(Info) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when visit has enough
	for info := range b.core.Client.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.key("data/"), Recursive: true}) {
		if info.Err != nil {
			return b.fault("listing", "data/", info.Err)
		}
		name := strings.TrimPrefix(info.Key, b.prefix)
		if strings.HasPrefix(name, stagingDir+"/") {
			continue
		}
		if err := visit(Info{name, info.Size, info.LastModified}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Stage makes a temporary directory. What was put before a publication was
// killed stays: the next one finds it there and puts only the rest.
func (b *Bucket) Stage(ctx context.Context) (Stage, error) {
	dir, err := os.MkdirTemp("", "mica-publish-")
	if err != nil {
		return nil, err
	}
	a, err := newArea(dir, 0o600)
	if err != nil {
		return nil, err
	}
	s := &bucketStage{b: b, area: a}
	s.ctx, s.stop = context.WithCancel(ctx)
	s.begin()
	return s, nil
}

type bucketStage struct {
	b    *Bucket
	area *area
	ctx  context.Context //nolint:containedctx // uploads outlive the call that began them
	stop context.CancelFunc

	mu    sync.Mutex // guards the following
	group *errgroup.Group
	life  context.Context //nolint:containedctx // of group: the first failure stops the rest
}

func (s *bucketStage) begin() {
	s.group, s.life = errgroup.WithContext(s.ctx)
	s.group.SetLimit(s.b.Parallel())
}

func (s *bucketStage) Dir() string { return s.area.path }

func (s *bucketStage) Create() (*os.File, error) { return s.area.create() }

// Add puts the object in the background; nothing refers to it before the
// manifest does. It waits while as many as may be are on their way, so that the
// temporary directory stays small.
func (s *bucketStage) Add(ctx context.Context, name, file string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	group, life := s.group, s.life
	s.mu.Unlock()
	if life.Err() != nil {
		if err := group.Wait(); err != nil {
			return err
		}
		return life.Err()
	}
	group.Go(func() error {
		fi, err := os.Stat(file)
		if err != nil {
			return err
		}
		if _, err := s.b.core.Client.FPutObject(life, s.b.bucket, s.b.key(name), file, headers(name, fi.Size())); err != nil {
			return s.b.fault("writing", name, err)
		}
		return os.Remove(file)
	})
	return nil
}

// Advance has nothing to do: what was added is on its way.
func (s *bucketStage) Advance(context.Context) error { return nil }

// Commit waits for all that is on its way.
func (s *bucketStage) Commit(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.group.Wait()
	s.begin()
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func (s *bucketStage) Discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	_ = s.group.Wait() // its failure has been reported, or is of no interest any more
	s.area.remove()
}

package publish_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/micavm/mica/cvmfs/cvmfstest"
	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/tier"
)

// newGateway starts Versity's S3 gateway on a folder, with a bucket that everyone
// may read, and returns its URL and a client that may do everything.
func newGateway(t *testing.T) (url string, admin *minio.Client) {
	t.Helper()
	program := tier.Tool(t, "versitygw")
	dir := t.TempDir()
	root, sidecar := filepath.Join(dir, "root"), filepath.Join(dir, "sidecar")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Mkdir(sidecar, 0o755))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")

	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	gateway := exec.CommandContext(t.Context(), program, "--quiet", "--port", address, "posix", "--sidecar", sidecar, root)
	gateway.Env = append(os.Environ(), "ROOT_ACCESS_KEY=key", "ROOT_SECRET_KEY=secret")
	gateway.Stdout, gateway.Stderr = log, log
	must(t, gateway.Start())
	t.Cleanup(func() {
		_ = gateway.Process.Kill()
		_ = gateway.Wait()
		_ = log.Close()
		if t.Failed() {
			t.Logf("the gateway says:\n%s", readFile(t, log.Name()))
		}
	})

	admin, err = minio.New(address, &minio.Options{Creds: credentials.NewStaticV4("key", "secret", ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath})
	must(t, err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := admin.MakeBucket(t.Context(), "shelf", minio.MakeBucketOptions{})
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway does not make a bucket: %v", err)
		}
	}
	must(t, admin.SetBucketPolicy(t.Context(), "shelf",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::shelf/*"]}]}`))
	return "http://" + address, admin
}

// The life of a repository in a bucket, on a service that others use: it is
// published, changed, checked, cleared, read by clients, replicated, damaged and
// locked. docs/testing.md says how to get the service.
func TestVersityGateway(t *testing.T) {
	url, admin := newGateway(t)
	w := emptyWorld(t)
	w.storage = fmt.Sprintf("s3://shelf/repos?endpoint=%s&region=us-east-1&lookup=path", url)
	w.create(t)
	w.tricky(t)
	first := w.publish(t, func(o *publish.Options) { o.Tag = "v1"; o.NoGenericTag = true })
	clean(t, w.check(t))
	w.live(t, first, url+"/shelf/repos/"+name)

	replica := w.replica(t, url+"/shelf/repos/"+name)
	replica.copy(t)
	clean(t, replica.check(t))
	want, _, _ := reader{t, cvmfstest.Repo{Dir: replica.repo()}}.tree(w.head(t).RootHash)
	prefix := "repos/" + name + "/"
	must(t, admin.RemoveObject(t.Context(), "shelf", prefix+want["/README"].Hash.ObjectPath(0), minio.RemoveObjectOptions{}))
	if r := w.check(t); len(r.Problems) != 1 {
		t.Errorf("with an object removed: problems = %v, want one", r.Problems)
	}
	w.publish(t, func(o *publish.Options) { o.Checksum = true })
	clean(t, w.check(t))

	// The lock rests on the service's answers to conditions.
	lock := fmt.Sprintf(`{"holder":"another","nonce":"x","expires":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	_, err := admin.PutObject(t.Context(), "shelf", prefix+".mica.lock", strings.NewReader(lock), int64(len(lock)), minio.PutObjectOptions{})
	must(t, err)
	if _, err := publish.Publish(t.Context(), w.options()); !errors.Is(err, atomicfile.ErrLocked) {
		t.Errorf("publishing beside another = %v, want ErrLocked", err)
	}
}

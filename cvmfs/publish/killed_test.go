package publish_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/micavm/mica/cvmfs/publish"
	"github.com/micavm/mica/internal/tier"
)

// childVariable makes this test binary publish the world it names, to be killed.
const childVariable = "MICA_TEST_PUBLISH_CHILD"

// childStorage tells the child where the repository is, if not in its world.
const childStorage = "MICA_TEST_PUBLISH_STORAGE"

func TestKilledChild(t *testing.T) {
	dir := os.Getenv(childVariable)
	if dir == "" {
		t.Skip("runs as the child of TestKilled only")
	}
	w := &world{filepath.Join(dir, "source"), filepath.Join(dir, "storage"), filepath.Join(dir, "keys"), clock}
	if storage := os.Getenv(childStorage); storage != "" {
		w.storage = storage
	}
	if _, err := publish.Publish(t.Context(), w.options()); err != nil {
		t.Fatal(err)
	}
}

// Whenever a publication is killed, readers see the revision before or the new
// one, whole, and the next publication clears up.
func TestKilled(t *testing.T) {
	tier.Full(t)
	w := newWorld(t)
	self, err := os.Executable()
	must(t, err)
	random := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // test data
	killed := 0
	for round := range 8 {
		for i := range 150 {
			data := make([]byte, 20000+random.IntN(60000))
			for j := range data {
				data[j] = byte(random.Uint32()) //nolint:gosec // test data
			}
			w.write(t, fmt.Sprintf("d%d/f%d", i%7, i), string(data))
		}
		child := exec.CommandContext(t.Context(), self, "-test.run=^TestKilledChild$")
		child.Env = append(os.Environ(), childVariable+"="+filepath.Dir(w.source))
		must(t, child.Start())
		timer := time.AfterFunc(time.Duration(20+round*60)*time.Millisecond, func() { _ = child.Process.Kill() })
		var exit *exec.ExitError
		if err := child.Wait(); errors.As(err, &exit) && exit.ExitCode() == -1 {
			killed++
		} else if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		timer.Stop()
		for _, p := range w.check(t).Problems {
			t.Errorf("round %d: %v", round, p)
		}
	}
	if killed == 0 {
		t.Error("no publication was killed in the middle")
	}
	w.publish(t, nil)
	clean(t, w.check(t))
	if left, err := filepath.Glob(filepath.Join(w.repo(), "data/txn/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

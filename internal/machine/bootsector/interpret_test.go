package bootsector_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/machine/bootsector"
)

func TestRun(t *testing.T) {
	for _, g := range []bootsector.Guest{{Says: "hello\r\n"}, {Says: "ünïcode", Obeys: true}, {}} {
		r, err := bootsector.Load(bytes.NewReader(bootsector.ISO(g)))
		if err != nil || r.Says != g.Says || r.Obeys != g.Obeys {
			t.Errorf("Load(ISO(%+v)) = %+v, %v", g, r, err)
			continue
		}
		var said []string
		for range 5 {
			said = append(said, r.Tick()...)
		}
		if r.Up() {
			t.Errorf("up after %d ticks", r.Count)
		}
		saved, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again bootsector.Run
		if err := json.Unmarshal(saved, &again); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			said = append(said, again.Tick()...)
		}
		if !again.Up() {
			t.Errorf("not up after %d ticks", again.Count)
		}
		want := []string{g.Says, "#0002\r\n", "#0004\r\n", "#0006\r\n", "#0008\r\n"}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Errorf("what the guest said (-want +got):\n%s", diff)
		}
	}
}

func TestLoadOther(t *testing.T) {
	if r, err := bootsector.Load(strings.NewReader("")); err != nil || r.Says != "" || r.Obeys {
		t.Errorf("Load of an empty disk = %+v, %v; want a guest that says nothing", r, err)
	}
	if _, err := bootsector.Load(broken{}); err == nil {
		t.Error("Load of a disk that cannot be read succeeded")
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

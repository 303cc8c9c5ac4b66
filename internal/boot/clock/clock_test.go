package clock

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func put(b []byte, t time.Time) {
	binary.BigEndian.PutUint32(b, uint32(t.Unix()-ntpEpoch))
	binary.BigEndian.PutUint32(b[4:], uint32(uint64(t.Nanosecond())<<32/1e9))
}

// server answers every request with the local time moved by skew, after edit.
func server(t *testing.T, skew time.Duration, edit func(reply []byte)) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			reply := make([]byte, 48)
			reply[0], reply[1] = 4<<3|4, 2
			copy(reply[24:32], buf[40:min(n, 48)])
			put(reply[32:], time.Now().Add(skew))
			put(reply[40:], time.Now().Add(skew))
			if edit != nil {
				edit(reply)
			}
			_, _ = conn.WriteTo(reply, from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestQueryTakesTheGoodServer(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	kiss := server(t, 0, func(r []byte) { r[1] = 0 })
	good := server(t, 3*time.Hour, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	a, err := Query(ctx, []string{silent.LocalAddr().String(), kiss, good}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if a.Server != good || (a.Offset-3*time.Hour).Abs() > time.Second {
		t.Errorf("Query = %+v, want %s and an offset of 3 h", a, good)
	}
}

func TestQueryRefuses(t *testing.T) {
	floor := time.Now().Add(-time.Hour)
	for name, edit := range map[string]func([]byte){
		"unsynchronised":  func(r []byte) { r[0] |= 3 << 6 },
		"client mode":     func(r []byte) { r[0] = 4<<3 | 3 },
		"before floor":    func(r []byte) { put(r[32:], floor.Add(-time.Hour)); put(r[40:], floor.Add(-time.Hour)) },
		"other request":   func(r []byte) { r[24] ^= 1 },
		"stratum 16":      func(r []byte) { r[1] = 16 },
		"leaves too soon": func(r []byte) { put(r[40:], time.Now().Add(-time.Minute)) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := Query(ctx, []string{server(t, 0, edit)}, floor); !errors.Is(err, ErrImplausible) {
			t.Errorf("%s: Query = %v, want ErrImplausible", name, err)
		}
		cancel()
	}
}

func TestQueryKeepsTheBudget(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := Query(ctx, []string{silent.LocalAddr().String()}, time.Time{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Query = %v, want deadline exceeded", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Query took %v with a budget of 0.1 s", took)
	}
}

func TestStampEras(t *testing.T) {
	for _, want := range []time.Time{time.Unix(1700000000, 500000000), time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)} {
		b := make([]byte, 8)
		put(b, want)
		if got := stamp(b); got.Sub(want).Abs() > time.Microsecond {
			t.Errorf("stamp of %v = %v", want, got)
		}
	}
}

func TestFloor(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]int64{"1700000000\n": 1700000000, "2023-11-14T22:13:20Z": 1700000000, "": 0, "soon": 0, "-5": 0} {
		file := filepath.Join(dir, "build-time")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := Floor(file)
		if want == 0 && !got.IsZero() || want != 0 && got.Unix() != want {
			t.Errorf("Floor(%q) = %v, want %d", text, got, want)
		}
	}
	if got := Floor(filepath.Join(dir, "absent")); !got.IsZero() {
		t.Errorf("Floor of no file = %v, want zero", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(make([]byte, 48), make([]byte, 48))
	f.Fuzz(func(t *testing.T, request, reply []byte) {
		_, _ = Parse(request, reply, time.Unix(0, 0), time.Unix(1, 0), time.Time{})
	})
}

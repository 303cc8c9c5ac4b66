package vmware

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

// machine imitates the hypervisor's side. It fails the test on every call that the
// protocol does not allow at that point.
type machine struct {
	t         testing.TB
	values    map[string]string
	answer    func(command string) string // instead of values
	cut       int                         // the number of the call that a checkpoint cuts short, from 1
	cuts      int                         // how often, for the following ones too
	calls     int
	opened    int
	closed    int
	open      bool
	want      int // bytes of the command still to come
	command   []byte
	reply     []byte
	received  int
	replied   bool
	confirmed bool
}

const (
	channelID = 7
	cookieHi  = 0x11223344
	cookieLow = 0x55667788
)

func (m *machine) Call(in Registers) (Registers, error) {
	m.t.Helper()
	if in.AX != magic || in.DX&0xffff != port {
		m.t.Fatalf("call %+v has another magic number or port", in)
	}
	if in.CX == commandVersion {
		return Registers{AX: 6, BX: magic, CX: 2, DX: in.DX}, nil
	}
	if in.CX&0xffff != commandMessage {
		m.t.Fatalf("call %+v is neither version nor message", in)
	}
	m.calls++
	if m.cuts > 0 && m.calls >= m.cut {
		m.cuts--
		m.open = false
		return Registers{CX: statusCheckpoint << 16}, nil
	}
	step := in.CX >> 16
	if step == stepOpen {
		if m.open || in.BX != protocolRPCI|flagCookie || in.DX != port || in.SI != 0 || in.DI != 0 {
			m.t.Fatalf("open %+v, one open: %v", in, m.open)
		}
		m.open, m.command, m.reply, m.received, m.replied = true, nil, nil, 0, false
		m.opened++
		return Registers{CX: statusSuccess << 16, DX: channelID << 16, SI: cookieHi, DI: cookieLow}, nil
	}
	if !m.open { // what is sent to a channel that a checkpoint closed
		return Registers{CX: 0}, nil
	}
	if in.DX>>16 != channelID || in.SI != cookieHi || in.DI != cookieLow {
		m.t.Fatalf("call %+v is of another channel", in)
	}
	ok := Registers{CX: statusSuccess << 16, DX: in.DX, SI: in.SI, DI: in.DI}
	switch step {
	case stepSendSize:
		m.want = int(in.BX)
	case stepSendPart:
		if m.want <= 0 {
			m.t.Fatalf("more bytes than announced: %q", m.command)
		}
		word := []byte{byte(in.BX), byte(in.BX >> 8), byte(in.BX >> 16), byte(in.BX >> 24)}
		n := min(4, m.want)
		m.command = append(m.command, word[:n]...)
		m.want -= n
	case stepReceiveSize:
		if m.want != 0 || in.BX != 0 {
			m.t.Fatalf("%d bytes of the command are missing", m.want)
		}
		m.reply = []byte(m.respond(string(m.command)))
		m.replied = true
		ok.CX |= statusReceive << 16
		ok.BX, ok.DX = uint32(len(m.reply)), stepSendSize<<16|port
	case stepReceivePart:
		if !m.replied || in.BX != statusSuccess || m.received >= len(m.reply) {
			m.t.Fatalf("receiving behind the end: %d of %d bytes", m.received, len(m.reply))
		}
		var word [4]byte
		m.received += copy(word[:], m.reply[m.received:])
		ok.BX = uint32(word[0]) | uint32(word[1])<<8 | uint32(word[2])<<16 | uint32(word[3])<<24
		ok.DX = stepSendPart<<16 | port
	case stepReceiveStatus:
		if m.received != len(m.reply) || in.BX != statusSuccess {
			m.t.Fatalf("%d of %d bytes were received", m.received, len(m.reply))
		}
		m.confirmed = true
	case stepClose:
		m.open = false
		m.closed++
	default:
		m.t.Fatalf("step %d", step)
	}
	return ok, nil
}

func (m *machine) respond(command string) string {
	if m.answer != nil {
		return m.answer(command)
	}
	key, ok := strings.CutPrefix(command, "info-get ")
	if !ok {
		return "0 Unknown command"
	}
	v, ok := m.values[key]
	if !ok {
		return "0 No value found"
	}
	return "1 " + v
}

func TestGet(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 5000)
	values := map[string]string{"guestinfo.userdata": "[cernvm]\n", "guestinfo.x": "", "guestinfo.nul": "a\x00b", "guestinfo.long": long, "guestinfo.long1": long + "x"}
	for key := range values {
		m := &machine{t: t, values: values}
		got, found, err := New(m).Get(t.Context(), key)
		if string(got) != values[key] || !found || err != nil {
			t.Errorf("Get(%s) = %d bytes, %v, %v, want %d bytes", key, len(got), found, err, len(values[key]))
		}
		if m.opened != 1 || m.closed != 1 || !m.confirmed {
			t.Errorf("Get(%s): opened %d, closed %d, confirmed %v", key, m.opened, m.closed, m.confirmed)
		}
	}
	m := &machine{t: t, values: values}
	if got, found, err := New(m).Get(t.Context(), "guestinfo.none"); got != nil || found || err != nil || m.closed != 1 {
		t.Errorf("Get of no variable = %q, %v, %v, closed %d", got, found, err, m.closed)
	}
}

// A machine may be suspended or moved between any two calls.
func TestGetCutShort(t *testing.T) {
	calls := (&machine{t: t}).count(t)
	for cut := 1; cut <= calls; cut++ {
		m := &machine{t: t, values: map[string]string{"k": "value"}, cut: cut, cuts: 1}
		got, found, err := New(m).Get(t.Context(), "k")
		if cut == calls { // the close: what was read is lost, as the channel may have been
			continue
		}
		if string(got) != "value" || !found || err != nil {
			t.Errorf("cut at call %d of %d: %q, %v, %v", cut, calls, got, found, err)
		}
	}
	m := &machine{t: t, cut: 1, cuts: 1 << 30}
	if _, _, err := New(m).Get(t.Context(), "k"); !errors.Is(err, errAgain) {
		t.Errorf("cut always: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := New(&machine{t: t}).Get(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func (m *machine) count(t *testing.T) int {
	m.values = map[string]string{"k": "value"}
	if _, _, err := New(m).Get(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	return m.calls
}

// plain answers every call with the same registers.
type plain struct {
	out Registers
	err error
}

func (p plain) Call(in Registers) (Registers, error) {
	if in.CX == commandVersion && p.err == nil {
		return Registers{AX: 6, BX: magic}, nil
	}
	return p.out, p.err
}

// silent is a machine without a hypervisor of VMware's: the port reads as ones.
type silent struct{}

func (silent) Call(in Registers) (Registers, error) {
	in.AX = ^uint32(0)
	return in, nil
}

func TestGetBadAnswers(t *testing.T) {
	denied := errors.New("denied")
	for name, b := range map[string]Backdoor{
		"no hypervisor":  silent{},
		"no right":       plain{err: denied},
		"refused":        plain{},
		"no answer":      plain{out: Registers{CX: statusSuccess << 16}},
		"huge answer":    plain{out: Registers{CX: (statusSuccess | statusReceive) << 16, DX: stepSendSize << 16, BX: 1 << 31}},
		"confused":       plain{out: Registers{CX: (statusSuccess | statusReceive) << 16, DX: stepClose << 16, BX: 4}},
		"another answer": &machine{t: t, answer: func(string) string { return "hello" }},
		"empty answer":   &machine{t: t, answer: func(string) string { return "" }},
	} {
		got, found, err := New(b).Get(t.Context(), "guestinfo.userdata")
		if got != nil || found || err == nil || !strings.Contains(err.Error(), "guestinfo.userdata") {
			t.Errorf("%s: %q, %v, %v, want an error", name, got, found, err)
		}
	}
	if _, err := Version(silent{}); !errors.Is(err, ErrAbsent) {
		t.Errorf("Version of no hypervisor = %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("1 value"), uint32(0x10000), uint32(0x10000))
	f.Fuzz(func(t *testing.T, reply []byte, cx, dx uint32) {
		n := 0
		b := caller(func(in Registers) Registers {
			if in.CX == commandVersion {
				return Registers{AX: 6, BX: magic}
			}
			if n++; n > 200 {
				return Registers{}
			}
			var word [4]byte
			if len(reply) > 0 {
				reply = reply[copy(word[:], reply):]
			}
			return Registers{BX: uint32(word[0]) | uint32(word[1])<<8, CX: cx, DX: dx}
		})
		value, found, err := New(b).Get(t.Context(), "k")
		if err != nil && (found || value != nil) {
			t.Errorf("a value %q with an error %v", value, err)
		}
		if bytes.HasPrefix(value, []byte("info-get")) {
			t.Error("the command came back")
		}
	})
}

type caller func(Registers) Registers

func (c caller) Call(in Registers) (Registers, error) { return c(in), nil }

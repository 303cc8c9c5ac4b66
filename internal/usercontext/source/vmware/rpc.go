package vmware

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Registers are what goes into the backdoor and comes out of it.
type Registers struct {
	AX, BX, CX, DX, SI, DI uint32
}

// Backdoor makes one call. Open returns the real one.
type Backdoor interface {
	Call(in Registers) (Registers, error)
}

const (
	magic = 0x564d5868
	port  = 0x5658

	commandVersion = 10
	commandMessage = 30
)

// Steps of a message, in the upper half of CX; an answer to receiveSize or
// receivePart has sendSize or sendPart in the upper half of DX.
const (
	stepOpen = iota
	stepSendSize
	stepSendPart
	stepReceiveSize
	stepReceivePart
	stepReceiveStatus
	stepClose
)

// Bits of a status, in the upper half of CX.
const (
	statusSuccess    = 1
	statusReceive    = 2 // there is an answer to fetch
	statusCheckpoint = 16
)

const (
	protocolRPCI = 0x49435052 // "RPCI"
	flagCookie   = 0x80000000
	maxAnswer    = 4 << 20 // the hypervisor's own limit is 1 MiB and some
	tries        = 5
)

// ErrAbsent says that nothing answers at the port.
var ErrAbsent = errors.New("no VMware hypervisor answers")

// errAgain says that the machine was stopped or moved in the middle of a message,
// which is to be sent again.
var errAgain = errors.New("the message was cut short by a checkpoint")

// Version asks for the version of the protocol, 6 on everything of this century.
func Version(b Backdoor) (uint32, error) {
	out, err := b.Call(Registers{AX: magic, BX: ^uint32(magic), CX: commandVersion, DX: port})
	if err != nil {
		return 0, err
	}
	if out.BX != magic || out.AX == ^uint32(0) {
		return 0, ErrAbsent
	}
	return out.AX, nil
}

// Guest reads variables. It is made by New, and usable by one goroutine at a time.
type Guest struct{ backdoor Backdoor }

// New returns a Guest that asks through b.
func New(b Backdoor) *Guest { return &Guest{b} }

// Get returns the value of a variable such as "guestinfo.userdata"; found is false
// if it is not set.
func (g *Guest) Get(ctx context.Context, key string) (value []byte, found bool, err error) {
	if _, err := Version(g.backdoor); err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", key, err)
	}
	var answer []byte
	for n := 0; n < tries; n++ {
		if err = ctx.Err(); err != nil {
			break
		}
		if answer, err = g.request([]byte("info-get " + key)); !errors.Is(err, errAgain) {
			break
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", key, err)
	}
	switch {
	case bytes.HasPrefix(answer, []byte("1 ")):
		return answer[2:], true, nil
	case string(answer) == "1":
		return nil, true, nil
	case bytes.HasPrefix(answer, []byte("0")): // "0 No value found"
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("reading %s: the hypervisor answers %.40q", key, answer)
}

// channel is one open conversation.
type channel struct {
	backdoor        Backdoor
	id              uint32
	cookieHi, cookL uint32
}

// request opens a channel, sends a command and receives its answer.
func (g *Guest) request(command []byte) (answer []byte, err error) {
	c := channel{backdoor: g.backdoor}
	out, err := c.call(stepOpen, protocolRPCI|flagCookie)
	if err != nil {
		return nil, fmt.Errorf("opening a channel: %w", err)
	}
	c.id, c.cookieHi, c.cookL = out.DX>>16, out.SI, out.DI
	defer func() {
		if _, closeErr := c.call(stepClose, 0); err == nil && closeErr != nil {
			err = fmt.Errorf("closing the channel: %w", closeErr)
		}
	}()
	if err := c.send(command); err != nil {
		return nil, fmt.Errorf("sending: %w", err)
	}
	if answer, err = c.receive(); err != nil {
		return nil, fmt.Errorf("receiving: %w", err)
	}
	return answer, nil
}

// call makes one step. An answer without the bit for success is an error.
func (c *channel) call(step uint32, value uint32) (Registers, error) {
	out, err := c.backdoor.Call(Registers{
		AX: magic, BX: value, CX: step<<16 | commandMessage, DX: c.id<<16 | port, SI: c.cookieHi, DI: c.cookL,
	})
	if err != nil {
		return Registers{}, err
	}
	switch status := out.CX >> 16; {
	case status&statusSuccess != 0:
		return out, nil
	case status&statusCheckpoint != 0:
		return Registers{}, errAgain
	default:
		return Registers{}, fmt.Errorf("the hypervisor refuses step %d with status %#x", step, status)
	}
}

func (c *channel) send(data []byte) error {
	if _, err := c.call(stepSendSize, uint32(len(data))); err != nil { //nolint:gosec // a short command
		return err
	}
	for len(data) > 0 {
		var word [4]byte
		n := copy(word[:], data)
		data = data[n:]
		if _, err := c.call(stepSendPart, uint32(word[0])|uint32(word[1])<<8|uint32(word[2])<<16|uint32(word[3])<<24); err != nil {
			return err
		}
	}
	return nil
}

func (c *channel) receive() ([]byte, error) {
	out, err := c.call(stepReceiveSize, 0)
	if err != nil {
		return nil, err
	}
	size := out.BX
	switch {
	case out.CX>>16&statusReceive == 0:
		return nil, errors.New("there is no answer")
	case out.DX>>16 != stepSendSize:
		return nil, fmt.Errorf("step %d instead of the answer's size", out.DX>>16)
	case size > maxAnswer:
		return nil, fmt.Errorf("the answer has %d bytes", size)
	}
	answer := make([]byte, 0, size+3)
	for uint32(len(answer)) < size { //nolint:gosec // at most maxAnswer
		if out, err = c.call(stepReceivePart, statusSuccess); err != nil {
			return nil, err
		}
		if out.DX>>16 != stepSendPart {
			return nil, fmt.Errorf("step %d instead of the answer", out.DX>>16)
		}
		answer = append(answer, byte(out.BX), byte(out.BX>>8), byte(out.BX>>16), byte(out.BX>>24))
	}
	if _, err := c.call(stepReceiveStatus, statusSuccess); err != nil {
		return nil, err
	}
	return answer[:size], nil
}

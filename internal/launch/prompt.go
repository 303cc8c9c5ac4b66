package launch

import (
	"bytes"
	"context"
	"fmt"
	"strings"
)

// maxAnswer bounds one line of an answer.
const maxAnswer = 4096

// ask writes question without a line break and returns the answer without the
// blanks around it; the end of input is an empty answer.
func (p *Program) ask(ctx context.Context, question string) (string, error) {
	_, _ = fmt.Fprint(p.Out, question)
	answer := make(chan string, 1)
	// A read from a terminal cannot be cut short: when ctx ends first, it stays
	// behind until the process ends, which is then about to happen.
	go func() { answer <- p.readLine() }()
	select {
	case text := <-answer:
		return strings.TrimSpace(text), nil
	case <-ctx.Done():
		p.say("")
		return "", fmt.Errorf("waiting for an answer: %w", ctx.Err())
	}
}

// readLine takes one line and not a byte more: the rest belongs to ssh.
func (p *Program) readLine() string {
	if p.In == nil {
		return ""
	}
	var line bytes.Buffer
	one := make([]byte, 1)
	for line.Len() < maxAnswer {
		n, err := p.In.Read(one)
		if n == 1 {
			if one[0] == '\n' {
				break
			}
			line.WriteByte(one[0])
		}
		if err != nil {
			break
		}
	}
	return line.String()
}

func yes(answer string) bool {
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes"
}

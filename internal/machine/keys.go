package machine

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/micavm/mica/internal/atomicfile"
)

const (
	keyFile        = "id_ed25519"
	knownHostsFile = "known_hosts"
)

// makeKeys writes the machine's key pair and returns the public line.
func makeKeys(s Spec, random io.Reader) (string, error) {
	public, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return "", fmt.Errorf("making keys: %w", err)
	}
	comment := "mica-" + s.Name
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return "", fmt.Errorf("making keys: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("making keys: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment
	if err := atomicfile.Write(s.Path(keyFile), pem.EncodeToMemory(block), 0o600); err != nil {
		return "", err
	}
	return line, atomicfile.Write(s.Path(keyFile+".pub"), []byte(line+"\n"), 0o644)
}

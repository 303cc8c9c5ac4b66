package delivery

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/micavm/mica/internal/fail"
)

// Meta is what a machine is told about itself besides its context.
type Meta struct {
	// InstanceID changes when the machine is to apply its context anew. Empty
	// is a UUID computed from the context and the other metadata.
	InstanceID string
	Hostname   string   // empty leaves the name to the guest
	PublicKeys []string // SSH keys, one line each

	NetworkConfig []byte // cloud-init's network configuration (NoCloud) or network_data.json (config drive); nil leaves it out
	VendorData    []byte // cloud-init's vendor data; nil leaves it out

	Shares []Share // folders of the host that the machine is to mount
}

// identity is the namespace of computed instance identifiers.
var identity = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://github.com/micavm/mica/instance"))

// Complete checks the metadata, cleans the keys and fills in the instance
// identifier. The media do so themselves; whoever serves metadata in another way
// does it first.
func (m Meta) Complete(userData []byte) (Meta, error) {
	keys := make([]string, 0, len(m.PublicKeys))
	for _, k := range m.PublicKeys {
		if k = strings.TrimSpace(k); k == "" {
			continue
		}
		if strings.ContainsAny(k, "\r\n\x00") {
			return m, fail.New(fail.Usage, "SSH key %q is not one line", k).Hint("pass the content of the .pub file")
		}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	m.PublicKeys = keys
	if strings.ContainsFunc(m.Hostname+m.InstanceID, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'\\$`:#", r) }) {
		return m, fail.New(fail.Usage, "host name %q or instance id %q has characters that do not travel", m.Hostname, m.InstanceID).
			Hint("use letters, digits, dots and hyphens")
	}
	if err := checkShares(m.Shares); err != nil {
		return m, err
	}
	if m.InstanceID == "" {
		h := sha256.New()
		for _, part := range append([]string{string(userData), m.Hostname, string(m.NetworkConfig), string(m.VendorData)}, m.PublicKeys...) {
			_, _ = fmt.Fprintf(h, "%d:%s,", len(part), part)
		}
		if len(m.Shares) > 0 {
			_, _ = h.Write([]byte(m.shareList()))
		}
		m.InstanceID = uuid.NewSHA1(identity, h.Sum(nil)).String()
	}
	return m, nil
}

// OpenStack is the document meta_data.json of complete metadata.
func (m Meta) OpenStack() []byte { return document(m.openStack()) }

// openStack is meta_data.json of OpenStack. cloud-init insists on uuid.
func (m Meta) openStack() map[string]any {
	doc := map[string]any{"uuid": m.InstanceID, "launch_index": 0, "availability_zone": "local"}
	if m.Hostname != "" {
		doc["hostname"], doc["name"] = m.Hostname, m.Hostname
	}
	if len(m.PublicKeys) > 0 {
		keys := map[string]string{}
		for i, k := range m.PublicKeys {
			keys[keyName(i)] = k
		}
		doc["public_keys"] = keys
	}
	if len(m.Shares) > 0 {
		doc["meta"] = map[string]string{sharesKey: m.shareList()}
	}
	return doc
}

// ec2 is meta-data.json of EC2. amiconfig makes a directory of each nested
// object, so the keys are nested as the paths of the metadata service are.
func (m Meta) ec2() map[string]any {
	doc := map[string]any{"instance-id": m.InstanceID, "ami-launch-index": "0"}
	if m.Hostname != "" {
		doc["hostname"], doc["local-hostname"] = m.Hostname, m.Hostname
	}
	if len(m.PublicKeys) > 0 {
		keys := map[string]any{}
		for i, k := range m.PublicKeys {
			keys[strconv.Itoa(i)] = map[string]string{"openssh-key": k}
		}
		doc["public-keys"] = keys
	}
	return doc
}

// keyName names the key at index i: EC2 and OpenStack want a name, users rarely
// have one.
func keyName(i int) string {
	if i == 0 {
		return "default"
	}
	return "key" + strconv.Itoa(i)
}

// document is v as indented JSON, keys in order.
func document(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) //nolint:forbidigo // maps of strings and numbers always encode
	}
	return append(b, '\n')
}

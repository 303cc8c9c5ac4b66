package plugins

import (
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // what the original's keys are made for
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// Compat: amiconfig: rpath/amiconfig/plugins/dnsupdate.py: four updates by TCP,
// signed with HMAC-MD5: delete A, delete TXT, add A, add TXT (RFC 2136, RFC 8945).
//
// Differs: missing options and refusals are errors; tsigalgorithm can ask for a
// better signature.
func dnsUpdate() Plugin {
	return Plugin{
		Name: "dnsupdate", Does: "registers the machine's address with a name server",
		Keys: []Key{
			{Name: "tsighost", Kind: Text, Meaning: "name of the key", Required: true},
			{Name: "tsigkey", Kind: Base64, Meaning: "the key", Required: true, Secret: true},
			{Name: "tsigalgorithm", Kind: Text, Meaning: "hmac-md5 or hmac-sha256", Default: "hmac-md5"},
			{Name: "host", Kind: Text, Meaning: "name to register, without the domain", Required: true},
			{Name: "domain", Kind: Host, Meaning: "zone to register in", Required: true},
			{Name: "server", Kind: Host, Meaning: "name server", Required: true},
			{Name: "prefix", Kind: Text, Meaning: "start of the name, the machine's number follows; instead of host"},
			{Name: "start", Kind: Integer, Meaning: "number of the first machine"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			s := c.Section
			if err := s.Missing("tsighost", "tsigkey", "host", "domain", "server"); err != nil {
				return err
			}
			u := dnsUpdater{zone: strings.TrimSuffix(s.Get("domain", ""), "."), key: s.Get("tsighost", ""), now: c.Root.Now}
			var p problems
			var err error
			if u.secret, err = decode(s.Get("tsigkey", "")); err != nil {
				p.addf("tsigkey: %w", err)
			}
			switch v := s.Get("tsigalgorithm", "hmac-md5"); v {
			case "hmac-md5":
				u.algorithm, u.hash = "hmac-md5.sig-alg.reg.int", md5.New
			case "hmac-sha256":
				u.algorithm, u.hash = v, sha256.New
			default:
				p.addf("tsigalgorithm: %q is neither hmac-md5 nor hmac-sha256", v)
			}
			name := s.Get("host", "")
			if prefix := s.Get("prefix", ""); prefix != "" {
				start, err := number(s.Get("start", "0"), 0, 1<<30)
				if err != nil {
					p.addf("start: %w", err)
				}
				name = fmt.Sprintf("%s%02d", prefix, start+launchIndex(c.Root))
			}
			u.name = name + "." + u.zone
			for _, n := range []string{u.zone, u.name, u.key} {
				if _, err := dnsName(nil, n); err != nil {
					p.add(err)
				}
			}
			server := s.Get("server", "")
			p.add(host(server))
			if len(p.errs) > 0 {
				return p.err()
			}
			address := metadata(c.Root, "public-ipv4")
			if address == "" {
				if address, err = outboundIP(ctx, c.Root); err != nil {
					return err
				}
			}
			ip, err := netip.ParseAddr(address)
			if err != nil || !ip.Is4() {
				return fmt.Errorf("%q is not an IPv4 address", address)
			}
			return u.register(ctx, c.Root, server, ip, c.Meta.InstanceID)
		},
	}
}

type dnsUpdater struct {
	zone, name, key string
	secret          []byte
	algorithm       string
	hash            func() hash.Hash
	now             func() time.Time
}

const (
	dnsA, dnsTXT, dnsSOA, dnsTSIG = 1, 16, 6, 250
	dnsIN, dnsAny                 = 1, 255
	dnsTTL                        = 300
)

// record is one resource record of an update section.
type record struct {
	kind, class uint16
	ttl         uint32
	data        []byte
}

func (u dnsUpdater) register(ctx context.Context, root *guest.Root, server string, ip netip.Addr, instance string) error {
	four := ip.As4()
	updates := []record{
		{dnsA, dnsAny, 0, nil}, {dnsTXT, dnsAny, 0, nil}, {dnsA, dnsIN, dnsTTL, four[:]},
	}
	if instance != "" {
		text := instance[:min(len(instance), 255)]
		updates = append(updates, record{dnsTXT, dnsIN, dnsTTL, append([]byte{byte(len(text))}, text...)})
	}
	for i, update := range updates {
		message, err := u.message(uint16(i+1), update)
		if err != nil {
			return err
		}
		if err := u.exchange(ctx, root, server, message); err != nil {
			if root.Pretend() && errors.Is(err, guest.ErrOffline) {
				return nil
			}
			return fmt.Errorf("registering %s with %s: %w", u.name, server, err)
		}
	}
	return nil
}

// message builds one signed update.
func (u dnsUpdater) message(id uint16, r record) ([]byte, error) {
	m := binary.BigEndian.AppendUint16(nil, id)
	m = append(m, 0x28, 0, 0, 1, 0, 0, 0, 1, 0, 0) // opcode UPDATE; one zone, no conditions, one update, nothing more
	m, err := dnsName(m, u.zone)
	if err != nil {
		return nil, err
	}
	m = append(m, 0, dnsSOA, 0, dnsIN)
	if m, err = dnsName(m, u.name); err != nil {
		return nil, err
	}
	m = binary.BigEndian.AppendUint16(m, r.kind)
	m = binary.BigEndian.AppendUint16(m, r.class)
	m = binary.BigEndian.AppendUint32(m, r.ttl)
	m = binary.BigEndian.AppendUint16(m, uint16(len(r.data))) //nolint:gosec // at most 256
	m = append(m, r.data...)
	return u.sign(m, id)
}

// sign adds a TSIG record (RFC 8945, 4.2 and 4.3.3).
func (u dnsUpdater) sign(m []byte, id uint16) ([]byte, error) {
	key, err := dnsName(nil, strings.ToLower(u.key))
	if err != nil {
		return nil, err
	}
	algorithm, err := dnsName(nil, u.algorithm)
	if err != nil {
		return nil, err
	}
	const fudge = 300
	var when [8]byte
	binary.BigEndian.PutUint64(when[:], uint64(max(u.now().Unix(), 0))) //nolint:gosec // not negative
	head := append(append([]byte{}, algorithm...), when[2:]...)
	head = binary.BigEndian.AppendUint16(head, fudge)

	mac := hmac.New(u.hash, u.secret)
	mac.Write(m)
	mac.Write(key)
	mac.Write([]byte{0, dnsAny, 0, 0, 0, 0}) // class ANY, TTL 0
	mac.Write(head)
	mac.Write([]byte{0, 0, 0, 0}) // no error, nothing more
	sum := mac.Sum(nil)

	data := binary.BigEndian.AppendUint16(head, uint16(len(sum))) //nolint:gosec // 16 or 32
	data = append(data, sum...)
	data = binary.BigEndian.AppendUint16(data, id)
	data = append(data, 0, 0, 0, 0)
	m = append(m, key...)
	m = append(m, 0, dnsTSIG, 0, dnsAny, 0, 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, uint16(len(data))) //nolint:gosec // under 400
	m = append(m, data...)
	m[11] = 1 // one additional record
	return m, nil
}

// exchange sends one message by TCP and looks at the answer's code.
func (u dnsUpdater) exchange(ctx context.Context, root *guest.Root, server string, message []byte) error {
	address := server
	if ip, err := netip.ParseAddr(server); err == nil {
		address = netip.AddrPortFrom(ip, 53).String()
	} else {
		address += ":53"
	}
	conn, err := root.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	framed := binary.BigEndian.AppendUint16(nil, uint16(len(message))) //nolint:gosec // under 1000
	if _, err := conn.Write(append(framed, message...)); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if len(answer) < 12 || answer[0] != message[0] || answer[1] != message[1] {
		return errors.New("the answer is to another question")
	}
	if code := answer[3] & 15; code != 0 {
		names := map[byte]string{1: "malformed", 2: "server failure", 3: "no such name", 4: "not supported", 5: "refused", 9: "not authorised", 10: "name not in zone"}
		return fmt.Errorf("the server says %d (%s)", code, names[code])
	}
	return nil
}

// dnsName appends a name in the form of RFC 1035, 3.1.
func dnsName(m []byte, name string) ([]byte, error) {
	name = strings.TrimSuffix(name, ".")
	if len(name) > 253 {
		return nil, fmt.Errorf("%q is too long for a domain name", name)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return nil, fmt.Errorf("%q is not a domain name", name)
		}
		m = append(append(m, byte(len(label))), label...)
	}
	return append(m, 0), nil
}

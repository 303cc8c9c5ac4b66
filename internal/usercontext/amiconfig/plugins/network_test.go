package plugins

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// A name server reads each update, checks its signature as RFC 8945 says, and
// answers with a code.
func TestDNSUpdate(t *testing.T) {
	for _, code := range []byte{0, 9} {
		var got []string
		heard := make(chan string, 8)
		dial := func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				heard <- serveUpdate(t, server, code)
			}()
			return client, nil
		}
		dir := t.TempDir()
		root, err := guest.Open(guest.Options{Dir: dir, Dial: dial, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := root.WriteFile(metadataDir+"public-ipv4", []byte("192.0.2.7\n"), guest.Attr{}); err != nil {
			t.Fatal(err)
		}
		call := &Call{Root: root, Meta: Meta{InstanceID: "i-42"}, Section: Section{Name: "dnsupdate", Options: []Option{
			{"tsighost", "MyKey"}, {"tsigkey", "c2VjcmV0"}, {"tsigalgorithm", "hmac-sha256"}, {"host", "vm"}, {"domain", "example.org."}, {"server", "192.0.2.1"},
		}}}
		err = dnsUpdate().Apply(t.Context(), call)
		for range map[byte]int{0: 4, 9: 1}[code] {
			got = append(got, <-heard)
		}
		if code != 0 {
			if err == nil || !strings.Contains(err.Error(), "not authorised") || len(got) != 1 {
				t.Errorf("code 9: %v after %d messages, want an error after the first", err, len(got))
			}
			continue
		}
		want := []string{
			"example.org vm.example.org A ANY 0 ", "example.org vm.example.org TXT ANY 0 ",
			"example.org vm.example.org A IN 300 \xc0\x00\x02\x07", "example.org vm.example.org TXT IN 300 \x04i-42",
		}
		slices.Sort(got) // each connection has a goroutine of its own
		slices.Sort(want)
		if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("updates = %q, %v, want %q", got, err, want)
		}
		_ = root.Close()
	}
}

// serveUpdate reads one message, answers it and says what is in it.
func serveUpdate(t *testing.T, conn net.Conn, code byte) string {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		t.Errorf("reading: %v", err)
		return ""
	}
	m := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, m); err != nil {
		t.Errorf("reading: %v", err)
		return ""
	}
	answer := append([]byte{0, 12, m[0], m[1], 0xa8, code}, make([]byte, 8)...)
	defer conn.Write(answer)
	if want := []byte{0x28, 0, 0, 1, 0, 0, 0, 1, 0, 1}; !bytes.Equal(m[2:12], want) {
		t.Errorf("header % x, want % x", m[2:12], want)
	}
	at := 12
	name := func() string {
		var labels []string
		for m[at] != 0 {
			labels = append(labels, string(m[at+1:at+1+int(m[at])]))
			at += 1 + int(m[at])
		}
		at++
		return strings.Join(labels, ".")
	}
	number := func(n int) (v uint64) {
		for range n {
			v = v<<8 | uint64(m[at])
			at++
		}
		return v
	}
	zone := name()
	if number(2) != dnsSOA || number(2) != dnsIN {
		t.Error("the zone section is not SOA IN")
	}
	owner := name()
	kind := map[uint64]string{dnsA: "A", dnsTXT: "TXT"}[number(2)]
	class := map[uint64]string{dnsIN: "IN", dnsAny: "ANY"}[number(2)]
	ttl := map[uint64]string{0: "0", dnsTTL: "300"}[number(4)]
	n := int(number(2))
	data := string(m[at : at+n])
	at += n

	signed := bytes.Clone(m[:at])
	signed[11] = 0
	start := at
	if key := name(); key != "mykey" {
		t.Errorf("key %q, want it in lower case", key)
	}
	keyName := bytes.Clone(m[start:at])
	if number(2) != dnsTSIG || number(2) != dnsAny || number(4) != 0 {
		t.Error("the last record is no TSIG")
	}
	if n := int(number(2)); n != len(m)-at {
		t.Errorf("TSIG of %d bytes, %d follow", n, len(m)-at)
	}
	start = at
	if algorithm := name(); algorithm != "hmac-sha256" {
		t.Errorf("algorithm %q", algorithm)
	}
	if when := number(6); when != 1_700_000_000 {
		t.Errorf("time %d", when)
	}
	number(2)
	variables := bytes.Clone(m[start:at])
	length := int(number(2))
	mac := m[at : at+length]
	h := hmac.New(sha256.New, []byte("secret"))
	for _, part := range [][]byte{signed, keyName, {0, 255, 0, 0, 0, 0}, variables, {0, 0, 0, 0}} {
		h.Write(part)
	}
	if !hmac.Equal(mac, h.Sum(nil)) {
		t.Error("the signature does not hold")
	}
	at += len(mac)
	if number(2) != uint64(binary.BigEndian.Uint16(m)) || number(2) != 0 || number(2) != 0 || at != len(m) {
		t.Error("the end of the TSIG record is wrong")
	}
	return strings.Join([]string{zone, owner, kind, class, ttl, data}, " ")
}

func TestApplianceAgent(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"usr/libexec/cernvm-appliance-agent/.htpasswd":          "guest:x\nadmin:old\n",
		"usr/lib/systemd/system/cernvm-appliance-agent.service": "",
		"run/systemd/system/x":                                  "", "usr/bin/systemctl": "",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := guest.Open(guest.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	call := &Call{Root: root, Section: Section{Options: []Option{{"password", "hunter2"}}}}
	var texts []string
	for range 2 {
		if err := applianceAgent().Apply(t.Context(), call); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, "usr/libexec/cernvm-appliance-agent/.htpasswd"))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(data))
	}
	hash, ok := strings.CutPrefix(texts[0], "guest:x\nadmin:$2y$")
	if !ok || bcrypt.CompareHashAndPassword([]byte("$2a$"+strings.TrimSpace(hash)), []byte("hunter2")) != nil {
		t.Errorf(".htpasswd = %q, want a hash of the password", texts[0])
	}
	if texts[0] != texts[1] {
		t.Errorf("the second time: %q, want %q", texts[1], texts[0])
	}
	call.Section.Options[0].Value = strings.Repeat("x", 73)
	if err := applianceAgent().Apply(t.Context(), call); err == nil {
		t.Error("a password that bcrypt cuts off was accepted")
	}
}

// The archive of a site comes over plain HTTP.
func TestUnpackSiteStaysInside(t *testing.T) {
	root, err := guest.Open(guest.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, data := range map[string][]byte{
		"../up":   tarOf(t, "../up", '0'),
		"/abs":    tarOf(t, "/abs", '0'),
		"symlink": tarOf(t, "link", '2'),
		"device":  tarOf(t, "dev", '3'),
		"noise":   []byte("404 - Not Found, and a bit more of it"),
	} {
		if err := unpackSite(root, data); err == nil {
			t.Errorf("%s: unpacked", name)
		}
	}
	if n := len(root.Actions()); n != 0 {
		t.Errorf("%d actions, want none: %+v", n, root.Actions())
	}
	if err := unpackSite(root, tarOf(t, "./prolog.sh", '0')); err != nil {
		t.Error(err)
	}
}

func TestShellWordRoundTrip(t *testing.T) {
	for _, value := range []string{"", "plain", "a b", "a;b|c&d", "$HOME", "`x`", `back\slash`, `say "x"`, "don't", "http://h:3128;DIRECT", "*?[", "#", "~"} {
		word, err := shellWord(value)
		if err != nil {
			t.Errorf("shellWord(%q) = %v", value, err)
			continue
		}
		res, err := guest.Exec{}.Run(t.Context(), guest.Command{Name: "/bin/sh", Args: []string{"-c", "X=" + word + "\nprintf %s \"$X\""}})
		if err != nil || string(res.Output) != value {
			t.Errorf("shellWord(%q) = %s, which sh reads as %q, %v", value, word, res.Output, err)
		}
	}
	for _, value := range []string{"a\nb", "it's \"both\"", "don't $x"} {
		if word, err := shellWord(value); err == nil {
			t.Errorf("shellWord(%q) = %s, want an error", value, word)
		}
	}
}

func TestSwapSize(t *testing.T) {
	root, err := guest.Open(guest.Options{Dir: t.TempDir(), Pretend: true})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for value, want := range map[string]int64{"off": 0, "": 0, "auto": 2 << 30, "1G": 1 << 30, "512M": 512 << 20, "2GiB": 2 << 30, "1048576": 1 << 20} {
		if got, err := swapSize(root, value); err != nil || got != want {
			t.Errorf("swapSize(%q) = %d, %v, want %d", value, got, err, want)
		}
	}
	for _, value := range []string{"G", "-1G", "1X", "99999999999G", "1000", "1GG"} {
		if got, err := swapSize(root, value); err == nil {
			t.Errorf("swapSize(%q) = %d, want an error", value, got)
		}
	}
}

func FuzzParseUsers(f *testing.F) {
	f.Add("a:b:c,d:e:$6$x$y", "ORG")
	f.Add(`"a:b:c,d",x::!,y:y:{plain}$6$`, "")
	f.Add(",,:::,", "a b")
	f.Fuzz(func(t *testing.T, value, organisation string) {
		users, _ := parseUsers(value, organisation)
		for _, u := range users {
			if !guest.ValidName(u.name) || !guest.ValidName(u.group) || strings.ContainsAny(u.hash, ":\n") {
				t.Errorf("parseUsers(%q) gives %+v", value, u)
			}
		}
	})
}

// tarOf is an archive of one file.
func tarOf(t *testing.T, name string, kind byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Linkname: "/etc", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

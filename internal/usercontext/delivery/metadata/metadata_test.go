package metadata_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/delivery"
	"github.com/micavm/mica/internal/usercontext/delivery/metadata"
)

const (
	addressA = "192.0.2.10:40000"
	addressB = "192.0.2.11:40000"
	stranger = "192.0.2.99:40000"
	secretA  = "aaaaaaaaaaaaaaaaaaaaaaaa"
	secretB  = "bbbbbbbbbbbbbbbbbbbbbbbb"
	secretC  = "cccccccccccccccccccccccc"
	userData = "#!/bin/sh\n[amiconfig]\nplugins=cernvm\n\xff"
)

func options() metadata.Options {
	return metadata.Options{
		Families: metadata.Families(),
		Now:      func() time.Time { return time.Unix(1_700_000_000, 0) },
		Random:   strings.NewReader(strings.Repeat("k", 64)),
		Machines: []metadata.Machine{
			{
				Name: "a", Address: netip.MustParseAddr("192.0.2.10"), MAC: []byte{0x52, 0x54, 0, 1, 2, 3}, Secret: secretA, UserData: []byte(userData),
				Meta: delivery.Meta{InstanceID: "i-7f3a91c2", Hostname: "vm1.local", PublicKeys: []string{"ssh-ed25519 AAAA me\n", "ssh-rsa BBBB"}, VendorData: []byte("{}"), NetworkConfig: []byte(`{"links":[]}`)},
			},
			{Name: "b", Address: netip.MustParseAddr("192.0.2.11"), Secret: secretB, Meta: delivery.Meta{InstanceID: "i-b"}},
			{Name: "c", Secret: secretC, UserData: []byte("c's own"), Meta: delivery.Meta{InstanceID: "i-c", Hostname: "c"}},
		},
	}
}

func newServer(t *testing.T, o metadata.Options) *metadata.Server {
	t.Helper()
	s, err := metadata.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends one request; what is METHOD PATH, then headers as NAME: VALUE.
func ask(t *testing.T, h http.Handler, from, what string, headers ...string) *http.Response {
	t.Helper()
	method, path, _ := strings.Cut(what, " ")
	r := httptest.NewRequest(method, "http://169.254.169.254/", nil)
	u, err := url.Parse("http://169.254.169.254" + path)
	if err != nil {
		t.Fatal(err)
	}
	r.URL, r.RemoteAddr = u, from
	for _, line := range headers {
		k, v, _ := strings.Cut(line, ": ")
		if k == "Host" {
			r.Host = v
			continue
		}
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const document = `{
  "accountId": "000000000000",
  "architecture": "x86_64",
  "availabilityZone": "local",
  "imageId": "ami-00000001",
  "instanceId": "i-7f3a91c2",
  "instanceType": "m1.small",
  "privateIp": "192.0.2.10",
  "region": "local",
  "version": "2017-09-30"
}`

// TestEveryPath compares the bytes of every path that a reader asks for.
func TestEveryPath(t *testing.T) {
	s := newServer(t, options())
	const google, legacy, azure = "Metadata-Flavor: Google", "X-Google-Metadata-Request: True", "Metadata: true"
	listing := "ami-id\nami-launch-index\nami-manifest-path\navailability-zone\nblock-device-mapping/\nhostname\ninstance-id\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nplacement/\npublic-hostname\npublic-ipv4\npublic-keys/\nreservation-id\nsecurity-groups"
	for _, tc := range []struct{ path, header, want string }{
		{"/", "", "2007-12-15\n2009-04-04\n2016-04-19\nlatest\n"},
		{"/latest", "", "meta-data/\nuser-data"},
		{"/2007-12-15/", "", "meta-data/\nuser-data"},
		{"/2007-12-15//user-data", "", userData},
		{"/2016-04-19/user-data", "", userData},
		{"/latest/user-data/", "", userData},
		{"/2009-04-04/meta-data/", "", listing},
		{"/2009-04-04/meta-data", "", listing},
		{"/2009-04-04/meta-data/instance-id", "", "i-7f3a91c2"},
		{"/latest/meta-data/ami-id", "", "ami-00000001"},
		{"/latest/meta-data/ami-launch-index", "", "0"},
		{"/latest/meta-data/ami-manifest-path", "", "(unknown)"},
		{"/latest/meta-data/hostname", "", "vm1.local"},
		{"/latest/meta-data/local-hostname", "", "vm1.local"},
		{"/latest/meta-data/public-hostname", "", "vm1.local"},
		{"/latest/meta-data/local-ipv4", "", "192.0.2.10"},
		{"/latest/meta-data/public-ipv4", "", "192.0.2.10"},
		{"/latest/meta-data/mac", "", "52:54:00:01:02:03"},
		{"/latest/meta-data/instance-type", "", "m1.small"},
		{"/latest/meta-data/reservation-id", "", "r-00000001"},
		{"/latest/meta-data/security-groups", "", "default"},
		{"/latest/meta-data/placement/", "", "availability-zone"},
		{"/latest/meta-data/placement/availability-zone", "", "local"},
		{"/latest/meta-data/public-keys/", "", "0=default\n1=key1"},
		{"/latest/meta-data/public-keys/0/", "", "openssh-key"},
		{"/latest/meta-data/public-keys/0/openssh-key", "", "ssh-ed25519 AAAA me\n"},
		{"/latest/meta-data/public-keys/1/openssh-key", "", "ssh-rsa BBBB\n"},
		{"/latest/meta-data/block-device-mapping/", "", "ami\nroot"},
		{"/latest/meta-data/block-device-mapping/ami", "", "vda"},
		{"/latest/meta-data/block-device-mapping/root", "", "/dev/vda"},
		{"/latest/dynamic/instance-identity/document", "", document},

		{"/openstack", "", "2012-08-10\n2013-04-04\n2013-10-17\n2015-10-15\n2016-06-30\n2016-10-06\n2017-02-22\n2018-08-27\nlatest"},
		{"/openstack/2013-10-17/", "", "meta_data.json\nnetwork_data.json\nuser_data\nvendor_data.json"},
		{"/openstack/2013-10-17/user_data", "", userData},
		{"/openstack/latest/network_data.json", "", `{"links":[]}`},
		{"/openstack/latest/vendor_data.json", "", "{}"},
		{"/openstack/2018-08-27/meta_data.json", "", "{\n  \"availability_zone\": \"local\",\n  \"hostname\": \"vm1.local\",\n  \"launch_index\": 0,\n  \"name\": \"vm1.local\",\n" +
			"  \"public_keys\": {\n    \"default\": \"ssh-ed25519 AAAA me\",\n    \"key1\": \"ssh-rsa BBBB\"\n  },\n  \"uuid\": \"i-7f3a91c2\"\n}\n"},

		{"/computeMetadata/v1/", google, "instance/\nproject/"},
		{"/computeMetadata/v1/instance/", legacy, "attributes/\nhostname\nid\nname\nzone"},
		{"/computeMetadata/v1/instance/zone", google, "projects/1/zones/z-a"},
		{"/computeMetadata/v1/instance/hostname", google, "vm1.local"},
		{"/computeMetadata/v1/instance/attributes/user-data", legacy, userData},
		{"/computeMetadata/v1/instance/attributes/cvm-user-data", google, "IyEvYmluL3NoClthbWljb25maWddCnBsdWdpbnM9Y2VybnZtCv8="},
		{"/computeMetadata/v1/instance/attributes/?recursive=True", google, "{\n  \"block-project-ssh-keys\": \"true\",\n  \"cvm-user-data\": \"IyEvYmluL3NoClthbWljb25maWddCnBsdWdpbnM9Y2VybnZtCv8=\",\n" +
			"  \"ssh-keys\": \"root:ssh-ed25519 AAAA me\\ncloudinit:ssh-ed25519 AAAA me\\nroot:ssh-rsa BBBB\\ncloudinit:ssh-rsa BBBB\",\n  \"user-data\": \"IyEvYmluL3NoClthbWljb25maWddCnBsdWdpbnM9Y2VybnZtCv8=\",\n  \"user-data-encoding\": \"base64\"\n}\n"},
		{"/computeMetadata/v1/project/attributes/?recursive=True", google, "{}\n"},

		{"/" + secretA + "/user-data", "", userData},
		{"/" + secretA + "/meta-data", "", "{\n  \"instance-id\": \"i-7f3a91c2\",\n  \"local-hostname\": \"vm1.local\",\n  \"public-keys\": [\n    \"ssh-ed25519 AAAA me\",\n    \"ssh-rsa BBBB\"\n  ]\n}\n"},
		{"/" + secretA + "//vendor-data", "", "{}"},
		{"/" + secretA + "/network-config", "", `{"links":[]}`},
		{"/metadata/versions", azure, "{\n  \"apiVersions\": [\n    \"2019-06-01\",\n    \"2021-01-01\",\n    \"2021-08-01\"\n  ]\n}\n"},
	} {
		r := ask(t, s, addressA, "GET "+tc.path, tc.header)
		got := body(t, r)
		if r.StatusCode != http.StatusOK || got != tc.want {
			t.Errorf("GET %s = %d %q, want %q", tc.path, r.StatusCode, got, tc.want)
		}
		kind := r.Header.Get("Content-Type")
		if strings.HasPrefix(kind, "text/html") || kind == "" || r.Header.Get("Server") == "" || r.Header.Get("Location") != "" {
			t.Errorf("GET %s: headers %v", tc.path, r.Header)
		}
		head := ask(t, s, addressA, "HEAD "+tc.path, tc.header)
		if head.StatusCode != http.StatusOK || head.Header.Get("Content-Length") != r.Header.Get("Content-Length") || body(t, head) != "" {
			t.Errorf("HEAD %s: %d, headers %v", tc.path, head.StatusCode, head.Header)
		}
		if !strings.HasPrefix(tc.path, "/"+secretA) {
			if r := ask(t, s, stranger, "GET "+tc.path, tc.header); r.StatusCode != http.StatusNotFound && r.StatusCode != http.StatusForbidden {
				t.Errorf("GET %s by a stranger = %d", tc.path, r.StatusCode)
			}
		}
	}
}

// TestNoVendorDataIsNotMissing because cloud-init spends ten seconds on what is.
func TestNoVendorDataIsNotMissing(t *testing.T) {
	o := options()
	for i := range o.Machines {
		o.Machines[i].Meta.VendorData = nil
	}
	s := newServer(t, o)
	r := ask(t, s, addressA, "GET /"+secretA+"/vendor-data")
	if text := body(t, r); r.StatusCode != http.StatusOK || text != "" {
		t.Errorf("vendor-data that a machine does not have = %d %q, want 200 and nothing", r.StatusCode, text)
	}
}

// TestEveryListedEntryAnswers walks meta-data as cloud-init does: one entry that
// fails voids them all.
func TestEveryListedEntryAnswers(t *testing.T) {
	s := newServer(t, options())
	for _, from := range []string{addressA, addressB} {
		seen := 0
		var walk func(path string)
		walk = func(path string) {
			r := ask(t, s, from, "GET "+path)
			if r.StatusCode != http.StatusOK {
				t.Errorf("GET %s = %d", path, r.StatusCode)
				return
			}
			seen++
			if !strings.HasSuffix(path, "/") {
				return
			}
			for line := range strings.SplitSeq(body(t, r), "\n") {
				if index, _, ok := strings.Cut(line, "="); ok && strings.HasSuffix(path, "public-keys/") {
					line = index + "/"
				}
				walk(path + line)
			}
		}
		walk("/2009-04-04/meta-data/")
		if seen < 12 {
			t.Errorf("only %d entries were found", seen)
		}
	}
}

func TestAzure(t *testing.T) {
	s := newServer(t, options())
	for _, tc := range []struct {
		path, header string
		want         int
	}{
		{"/metadata/instance?api-version=2021-08-01&extended=true", "Metadata: true", 200},
		{"/metadata/instance?api-version=2019-06-01", "Metadata: True", 200},
		{"/metadata/instance?api-version=2021-08-01", "", 400},
		{"/metadata/instance", "Metadata: true", 400},
		{"/metadata/instance?api-version=latest", "Metadata: true", 400},
		{"/metadata/other?api-version=2021-08-01", "Metadata: true", 404},
	} {
		r := ask(t, s, addressA, "GET "+tc.path, tc.header)
		if r.StatusCode != tc.want {
			t.Errorf("GET %s = %d, want %d", tc.path, r.StatusCode, tc.want)
		}
		if r.StatusCode != http.StatusOK {
			continue
		}
		var doc struct {
			Compute struct {
				VMID       string
				UserData   *string
				OSProfile  struct{ ComputerName string }
				PublicKeys []struct{ KeyData string }
			}
			Network struct{ Interface []struct{ MACAddress string } }
		}
		if err := json.Unmarshal([]byte(body(t, r)), &doc); err != nil {
			t.Fatal(err)
		}
		c := doc.Compute
		if c.VMID != "i-7f3a91c2" || c.OSProfile.ComputerName != "vm1.local" || len(c.PublicKeys) != 2 || doc.Network.Interface[0].MACAddress != "525400010203" {
			t.Errorf("GET %s = %+v", tc.path, doc)
		}
		if has := c.UserData != nil; has != strings.Contains(tc.path, "2021") {
			t.Errorf("GET %s: user data is there: %v", tc.path, has)
		}
	}
}

func TestGoogleWantsItsHeader(t *testing.T) {
	s := newServer(t, options())
	if r := ask(t, s, addressA, "GET /computeMetadata/v1/instance/zone"); r.StatusCode != http.StatusForbidden {
		t.Errorf("without the header: %d", r.StatusCode)
	}
	r := ask(t, s, addressA, "GET /computeMetadata/v1/instance/id", "Metadata-Flavor: Google")
	if id := body(t, r); r.Header.Get("Metadata-Flavor") != "Google" || strings.Trim(id, "0123456789") != "" || id == "" {
		t.Errorf("id = %q, headers %v", id, r.Header)
	}
}

func TestFailuresAreHTML(t *testing.T) {
	s := newServer(t, options())
	for _, tc := range []struct {
		from, what string
		headers    []string
		want       int
	}{
		{addressB, "GET /latest/user-data", nil, 404}, // b has none
		{addressB, "GET /latest/meta-data/public-keys/", nil, 404},
		{addressA, "GET /latest/meta-data/nothing", nil, 404},
		{addressA, "GET /latest/meta-data/public-keys/2/openssh-key", nil, 404},
		{addressA, "GET /latest/meta-data/public-keys/00/openssh-key", nil, 404},
		{addressA, "GET /latest/meta-data/hostname/below", nil, 404},
		{addressA, "GET /favicon.ico", nil, 404},
		{addressA, "GET /latest/../latest/user-data", nil, 404},
		{addressA, "GET /latest%2fuser-data", nil, 404},
		{addressA, "GET /latest/meta-data%5cinstance-id", nil, 404},
		{addressA, "GET /openstack/2999-01-01/meta_data.json", nil, 404},
		{addressA, "GET /openstack/latest/vendor_data2.json", nil, 404},
		{addressA, "POST /latest/user-data", nil, 405},
		{addressA, "DELETE /openstack/latest/user_data", nil, 405},
		{addressA, "GET /latest/user-data", []string{"Host: evil.example.org"}, 404},
		{"not an address", "GET /latest/user-data", nil, 404},
		{stranger, "GET /latest/user-data", nil, 404},
		{stranger, "GET /latest/user-data", []string{"X-Forwarded-For: 192.0.2.10"}, 404},
		{stranger, "PUT /latest/api/token", []string{"X-aws-ec2-metadata-token-ttl-seconds: 60"}, 404},
	} {
		r := ask(t, s, tc.from, tc.what, tc.headers...)
		if text := body(t, r); r.StatusCode != tc.want || r.Header.Get("Content-Type") != "text/html" || r.Header.Get("Server") == "" || strings.Contains(text, "amiconfig") {
			t.Errorf("%s %s = %d, %v, %q; want %d in HTML", tc.from, tc.what, r.StatusCode, r.Header, text, tc.want)
		}
	}
}

func TestTokens(t *testing.T) {
	o := options()
	now := time.Unix(1_700_000_000, 0)
	o.Now, o.TokenOnly = func() time.Time { return now }, true
	s := newServer(t, o)
	const ttl, header = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token: "
	r := ask(t, s, addressA, "PUT /latest/api/token", ttl+": 60")
	token := body(t, r)
	if r.StatusCode != http.StatusOK || r.Header.Get(ttl) != "60" {
		t.Fatalf("token: %d, %v", r.StatusCode, r.Header)
	}
	for _, tc := range []struct {
		name, from, token string
		later             time.Duration
		want              int
	}{
		{"good", addressA, token, 0, 200},
		{"last second", addressA, token, 59 * time.Second, 200},
		{"expired", addressA, token, 60 * time.Second, 401},
		{"none", addressA, "", 0, 401},
		{"nonsense", addressA, "AAAA", 0, 401},
		{"changed", addressA, "B" + token[1:], 0, 401},
		{"of another machine", addressB, token, 0, 401},
		{"by a stranger", stranger, token, 0, 404},
	} {
		now = time.Unix(1_700_000_000, 0).Add(tc.later)
		if r := ask(t, s, tc.from, "GET /latest/meta-data/instance-id", header+tc.token); r.StatusCode != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, r.StatusCode, tc.want)
		}
	}
	for _, tc := range []struct {
		headers []string
		want    int
	}{
		{nil, 400},
		{[]string{ttl + ": 0"}, 400},
		{[]string{ttl + ": 21601"}, 400},
		{[]string{ttl + ": x"}, 400},
		{[]string{ttl + ": 60", "X-Forwarded-For: 10.0.0.1"}, 403},
	} {
		if r := ask(t, s, addressA, "PUT /latest/api/token", tc.headers...); r.StatusCode != tc.want {
			t.Errorf("PUT with %q = %d, want %d", tc.headers, r.StatusCode, tc.want)
		}
	}
	if r := ask(t, s, addressA, "GET /latest/api/token"); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET of a token = %d", r.StatusCode)
	}
	// Version 1 works where tokens are optional, but a wrong token is still wrong.
	s = newServer(t, options())
	if r := ask(t, s, addressA, "GET /latest/user-data"); r.StatusCode != http.StatusOK {
		t.Errorf("without a token: %d", r.StatusCode)
	}
	if r := ask(t, s, addressA, "GET /latest/user-data", header+"AAAA"); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", r.StatusCode)
	}
}

// TestIsolation has each machine ask for what is another's.
func TestIsolation(t *testing.T) {
	s := newServer(t, options())
	same := body(t, ask(t, s, addressB, "GET /latest/meta-data/nothing"))
	for _, tc := range []struct{ from, path string }{
		{addressB, "/" + secretA + "/user-data"}, // a's address is known, so its secret is not enough
		{stranger, "/" + secretA + "/user-data"},
		{addressA, "/" + secretB + "/meta-data"},
		{addressA, "/" + strings.Repeat("x", 24) + "/user-data"},
		{stranger, "/user-data"},
	} {
		r := ask(t, s, tc.from, "GET "+tc.path)
		if got := body(t, r); r.StatusCode != http.StatusNotFound || got != same {
			t.Errorf("%s GET %s = %d %q, want what a missing key says", tc.from, tc.path, r.StatusCode, got)
		}
	}
	// c has no address: its secret serves from anywhere, and only its own data.
	if r := ask(t, s, stranger, "GET /"+secretC+"/user-data"); r.StatusCode != http.StatusOK || body(t, r) != "c's own" {
		t.Errorf("c's secret: %d", r.StatusCode)
	}
	h, err := s.For("c")
	if err != nil {
		t.Fatal(err)
	}
	if r := ask(t, h, addressA, "GET /latest/user-data"); body(t, r) != "c's own" {
		t.Error("c's own listener serves another machine's data")
	}
	if _, err := s.For("d"); !fail.Is(err, fail.NotFound) {
		t.Errorf("For of an unknown machine = %v", err)
	}
}

func TestFamiliesThatAreNotServed(t *testing.T) {
	o := options()
	o.Families = nil
	s := newServer(t, o)
	for _, path := range []string{"/computeMetadata/v1/instance/id", "/metadata/instance?api-version=2021-08-01"} {
		if r := ask(t, s, addressA, "GET "+path, "Metadata-Flavor: Google"); r.StatusCode != http.StatusNotFound || r.Header.Get("Metadata-Flavor") != "" {
			t.Errorf("GET %s = %d, %v", path, r.StatusCode, r.Header)
		}
	}
}

func TestTooManyRequests(t *testing.T) {
	s := newServer(t, options())
	got := map[int]int{}
	for range 250 {
		got[ask(t, s, addressA, "GET /latest/user-data").StatusCode]++
	}
	if diff := cmp.Diff(map[int]int{200: 200, 429: 50}, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if r := ask(t, s, addressB, "GET /latest/meta-data/instance-id"); r.StatusCode != http.StatusOK {
		t.Errorf("another machine suffers: %d", r.StatusCode)
	}
}

func TestRefusedMachines(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.1")
	for name, machines := range map[string][]metadata.Machine{
		"no name":      {{Address: address}},
		"same name":    {{Name: "x", Address: address}, {Name: "x"}},
		"same address": {{Name: "x", Address: address}, {Name: "y", Address: netip.MustParseAddr("::ffff:192.0.2.1")}},
		"short secret": {{Name: "x", Secret: "short"}},
		"same secret":  {{Name: "x", Secret: secretA}, {Name: "y", Secret: secretA}},
		"bad key":      {{Name: "x", Meta: delivery.Meta{PublicKeys: []string{"a\nb"}}}},
	} {
		if _, err := metadata.New(metadata.Options{Machines: machines}); !fail.Is(err, fail.Usage) {
			t.Errorf("%s: New = %v, want a usage error", name, err)
		}
	}
	secret, err := metadata.NewSecret(nil)
	if err != nil || len(secret) != 40 {
		t.Errorf("NewSecret = %q, %v", secret, err)
	}
}

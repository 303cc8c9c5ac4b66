package source

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const aws = "169.254.169.254"

var ec2TestMeta = Meta{InstanceID: "i-7f3a91c2", Hostname: "vm1.internal", PublicKeys: []string{testKey}}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// TestServices asks every service as a machine of that platform.
func TestServices(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte("[amiconfig]\n"))
	google := func(p pages) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Metadata-Flavor") != "Google" || r.Host != "metadata.google.internal" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("Metadata-Flavor", "Google")
			p.ServeHTTP(w, r)
		})
	}
	gcePages := func(attributes string) pages {
		return pages{
			"/computeMetadata/v1/instance/id":                            "4012345678901234567",
			"/computeMetadata/v1/instance/hostname":                      "vm1.c.project.internal",
			"/computeMetadata/v1/instance/attributes/?recursive=true":    attributes,
			"/computeMetadata/v1/project/attributes/?recursive=true":     `{"ssh-keys":"root:` + testKey + `\n"}`,
			"/computeMetadata/v1/instance/attributes/user-data-encoding": "not asked",
		}
	}
	gceMeta := Meta{InstanceID: "4012345678901234567", Hostname: "vm1.c.project.internal", PublicKeys: []string{testKey}}
	azure := func(userData string) http.Handler {
		p := pages{
			"/metadata/instance?api-version=2021-08-01&format=json": `{"compute":{"vmId":"02aab8a4-74ef-476e-8182-f6d2ba4166a6","name":"vm1","osProfile":{"computerName":"vm1-host"},"publicKeys":[{"keyData":"` + testKey + `","path":"/x"}]}}`,
		}
		if userData != "absent" {
			p["/metadata/instance/compute/userData?api-version=2021-01-01&format=text"] = userData
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Metadata") != "true" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			p.ServeHTTP(w, r)
		})
	}
	azureMeta := Meta{InstanceID: "02aab8a4-74ef-476e-8182-f6d2ba4166a6", Hostname: "vm1-host", PublicKeys: []string{testKey}}
	nova := `{"uuid":"d8e02d56","hostname":"vm1.novalocal","public_keys":{"mine":"` + testKey + `\n"}}`
	novaMeta := Meta{InstanceID: "d8e02d56", Hostname: "vm1.novalocal", PublicKeys: []string{testKey}}
	router := pages{
		"/latest/meta-data/instance-id": "i-2-3-VM", "/latest/user-data": "data", "/latest/meta-data/local-hostname": "vm1",
	}
	routerMeta := Meta{InstanceID: "i-2-3-VM", Hostname: "vm1"}

	for _, tc := range []struct {
		name     string
		platform string
		host     string
		handler  http.Handler
		cmdline  string
		want     Found
		failed   string // part of what is said of the source, if nothing is found
	}{
		{"ec2 optional tokens", "ec2", aws, &imds{pages: ec2Pages("data"), tokens: "optional"}, "", Found{UserData: []byte("data"), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 v2 only", "ec2", aws, &imds{pages: ec2Pages("data"), tokens: "required"}, "", Found{UserData: []byte("data"), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 v1 only", "ec2", aws, &imds{pages: ec2Pages("data"), tokens: "none"}, "", Found{UserData: []byte("data"), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 v1 only, v2 asked for", "ec2", aws, &imds{pages: ec2Pages("data"), tokens: "none"}, "quiet imds=v2", Found{}, "no tokens"},
		{"ec2 token expires", "ec2", aws, &imds{pages: ec2Pages("data"), tokens: "required", expire: 2}, "", Found{UserData: []byte("data"), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 no user data", "ec2", aws, &imds{pages: ec2Pages("absent"), tokens: "required"}, "", Found{Meta: ec2TestMeta}, ""},
		{"ec2 empty user data", "ec2", aws, &imds{pages: ec2Pages(""), tokens: "optional"}, "", Found{Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 gzip", "ec2", aws, &imds{pages: ec2Pages(zipped("data")), tokens: "optional"}, "", Found{UserData: []byte(zipped("data")), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 binary", "ec2", aws, &imds{pages: ec2Pages("\x00\xff\xfe<>\r\n"), tokens: "optional"}, "", Found{UserData: []byte("\x00\xff\xfe<>\r\n"), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 one MiB", "ec2", aws, &imds{pages: ec2Pages(strings.Repeat("x", MaxUserData)), tokens: "optional"}, "", Found{UserData: bytes.Repeat([]byte("x"), MaxUserData), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 two MiB", "ec2", aws, &imds{pages: ec2Pages(strings.Repeat("x", 2<<20)), tokens: "optional"}, "", Found{}, "too large"},
		{"ec2 over IPv6", "ec2", "fd00:ec2::254", &imds{pages: ec2Pages("data"), tokens: "required"}, "", Found{UserData: []byte("data"), Present: true, Meta: ec2TestMeta}, ""},
		{"ec2 paths of openstack only", "ec2", aws, pages{"/latest/meta-data/instance-id": "i-1", "/latest/user-data": "x"}, "", Found{}, "nothing"},

		{"gce", "gce", aws, google(gcePages(`{"user-data":"data","a":1}`)), "", Found{UserData: []byte("data"), Present: true, Meta: gceMeta}, ""},
		{"gce base64", "gce", aws, google(gcePages(`{"user-data":"` + b64 + `","user-data-encoding":"base64"}`)), "", Found{UserData: []byte("[amiconfig]\n"), Present: true, Meta: gceMeta}, ""},
		{"gce for amiconfig", "gce", aws, google(gcePages(`{"cvm-user-data":"` + b64 + `"}`)), "", Found{UserData: []byte("[amiconfig]\n"), Present: true, Meta: gceMeta}, ""},
		{"gce without user data", "gce", aws, google(gcePages(`{}`)), "", Found{Meta: gceMeta}, ""},
		{"gce, project keys blocked", "gce", aws, google(gcePages(`{"user-data":"data","block-project-ssh-keys":"TRUE"}`)), "", Found{UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: gceMeta.InstanceID, Hostname: gceMeta.Hostname}}, ""},
		{"gce, another service", "gce", aws, gcePages(`{"user-data":"evil"}`), "", Found{}, "another service"},

		{"openstack", "openstack", aws, pages{"/openstack/latest/meta_data.json": nova, "/openstack/latest/user_data": "data"}, "", Found{UserData: []byte("data"), Present: true, Meta: novaMeta}, ""},
		{"openstack, old", "openstack", aws, pages{"/openstack/2013-10-17/meta_data.json": nova, "/openstack/2013-10-17/user_data": "data"}, "", Found{UserData: []byte("data"), Present: true, Meta: novaMeta}, ""},
		{"openstack without user data", "openstack", aws, pages{"/openstack/latest/meta_data.json": nova}, "", Found{Meta: novaMeta}, ""},
		{"openstack as ec2", "openstack", aws, pages{"/latest/meta-data/ami-id": "ami-1", "/latest/meta-data/instance-id": "i-9", "/latest/user-data": "data"}, "", Found{UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: "i-9"}}, ""},
		{"openstack, no json", "openstack", aws, pages{"/openstack/latest/meta_data.json": "<html>"}, "", Found{}, "another service"},

		{"azure", "azure", aws, azure(b64), "", Found{UserData: []byte("[amiconfig]\n"), Present: true, Meta: azureMeta}, ""},
		{"azure without user data", "azure", aws, azure("absent"), "", Found{Meta: azureMeta}, ""},
		{"azure with empty user data", "azure", aws, azure(""), "", Found{Meta: azureMeta}, ""},
		{"azure, no base64", "azure", aws, azure("!!!"), "", Found{}, "is not base64"},

		{"cloudstack router", "cloudstack", "10.0.0.1", router, "", Found{UserData: []byte("data"), Present: true, Meta: routerMeta}, ""},
		{"cloudstack fixed address", "cloudstack", "10.1.1.1", router, "", Found{UserData: []byte("data"), Present: true, Meta: routerMeta}, ""},
		{"cloudstack by name", "cloudstack", "data-server.", router, "", Found{UserData: []byte("data"), Present: true, Meta: routerMeta}, ""},

		{"kernel word", "", "example.org", pages{"/ctx": "data"}, "a cvm_userdata=http://example.org/ctx b", Found{UserData: []byte("data"), Present: true}, ""},
		{"nocloud seed", "", "example.org", pages{"/s/user-data": "data", "/s/meta-data": "instance-id: i-1\nlocal-hostname: vm1\n"}, "ds=nocloud;s=http://example.org/s", Found{UserData: []byte("data"), Present: true, Meta: Meta{InstanceID: "i-1", Hostname: "vm1"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCloud(t).serve(tc.host, tc.handler)
			env := c.env(tc.platform)
			env.Cmdline = tc.cmdline
			env.DHCPServer = netip.MustParseAddr("10.0.0.1")
			got, err := Find(t.Context(), env)
			if err != nil {
				t.Fatalf("Find = %v", err)
			}
			if tc.failed != "" {
				name := map[string]string{"ec2": "EC2", "gce": "GCE", "openstack": "OpenStack", "azure": "Azure"}[tc.platform]
				if text := attempt(got, name); got.Source != "" || !strings.Contains(text, tc.failed) {
					t.Errorf("found %q; attempts %s; want nothing, because of %q", got.Source, text, tc.failed)
				}
				return
			}
			if got.Source == "" || got.Origin == "" {
				t.Fatalf("source %q, origin %q; attempts %s", got.Source, got.Origin, attemptsOf(got))
			}
			opts := []cmp.Option{cmpopts.IgnoreFields(Found{}, "Source", "Origin", "Tried"), cmpopts.EquateEmpty()}
			if diff := cmp.Diff(tc.want, got, opts...); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func attemptsOf(f Found) string {
	var list []string
	for _, a := range f.Tried {
		list = append(list, a.Source+": "+a.Result)
	}
	return strings.Join(list, "\n")
}

// TestBadReplies: whatever a service does, a search ends soon and in order.
func TestBadReplies(t *testing.T) {
	var served atomic.Int32
	for name, h := range map[string]http.Handler{
		"redirect": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/user-data", http.StatusFound)
		}),
		"500": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }),
		"401": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }),
		"login page": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>Log in to the hotel</html>"))
		}),
		"hangs": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"broken reply": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("short"))
		}),
		"endless": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t).serve(aws, h).serve("evil.example", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
			env := c.env("")
			env.HTTP.Timeout = 300 * time.Millisecond
			began := time.Now()
			got, err := Find(t.Context(), env)
			if err != nil || got.Source != "" || len(got.UserData) > 0 {
				t.Errorf("Find = %+v, %v; want nothing", got, err)
			}
			if took := time.Since(began); took > budgetUnknown+2*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	if served.Load() > 0 {
		t.Error("a redirect was followed")
	}
}

// TestRetry: a service that is not ready yet is asked again.
func TestRetry(t *testing.T) {
	var n atomic.Int32
	inner := &imds{pages: ec2Pages("data"), tokens: "optional"}
	c := newCloud(t).serve(aws, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) <= 2 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	got, err := Find(t.Context(), c.env("ec2"))
	if err != nil || string(got.UserData) != "data" {
		t.Errorf("Find = %q, %v, attempts %s", got.UserData, err, attemptsOf(got))
	}
}

// TestUnknownPlatform races all services; where two answer, the order of the list
// decides, not the speed.
func TestUnknownPlatform(t *testing.T) {
	both := pages{"/openstack/latest/meta_data.json": `{"uuid":"u"}`, "/openstack/latest/user_data": "openstack"}
	for path, body := range ec2Pages("ec2") {
		both[path] = body
	}
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/2016") {
			time.Sleep(50 * time.Millisecond)
		}
		both.ServeHTTP(w, r)
	})
	got, err := Find(t.Context(), newCloud(t).serve(aws, slow).env(""))
	if err != nil || got.Source != "EC2" || string(got.UserData) != "ec2" {
		t.Errorf("Find = %s %q, %v; want EC2", got.Source, got.UserData, err)
	}
	delete(both, "/2016-04-19/user-data") // only metadata is left of the first
	got, err = Find(t.Context(), newCloud(t).serve(aws, slow).env(""))
	if err != nil || got.Source != "OpenStack" || string(got.UserData) != "openstack" {
		t.Errorf("Find = %s %q, %v; want the user data of OpenStack", got.Source, got.UserData, err)
	}
}

// TestGating: a machine trusts only the addresses of its platform.
func TestGating(t *testing.T) {
	everything := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	for platform, allowed := range map[string][]string{
		"ec2":        {aws + "/latest/api/token", aws + "/2016-04-19/"},
		"gce":        {aws + "/computeMetadata/"},
		"azure":      {aws + "/metadata/"},
		"openstack":  {aws + "/openstack/", aws + "/latest/meta-data/"},
		"cloudstack": {"10.0.0.1/latest/", "10.1.1.1/latest/", "data-server./latest/"},
		"vmware":     nil,
		"":           {aws + "/", "10.0.0.1/latest/"},
	} {
		c := newCloud(t)
		for _, host := range []string{aws, "10.0.0.1", "10.1.1.1", "data-server.", "168.63.129.16"} {
			c.serve(host, everything)
		}
		env := c.env(platform)
		env.DHCPServer = netip.MustParseAddr("10.0.0.1")
		if _, err := Find(t.Context(), env); err != nil {
			t.Fatalf("%s: %v", platform, err)
		}
		for _, r := range c.seen() {
			_, what, _ := strings.Cut(r, " ")
			if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(what, a) }) {
				t.Errorf("platform %q asked %q", platform, r)
			}
		}
		if len(allowed) > 0 && len(c.seen()) == 0 {
			t.Errorf("platform %q asked nobody", platform)
		}
	}
}

// TestLocalKeepsOffTheNetwork, and a medium's user data before the network's.
func TestLocalKeepsOffTheNetwork(t *testing.T) {
	c := newCloud(t).serve(aws, &imds{pages: ec2Pages("ec2"), tokens: "optional"})
	env := c.env("ec2")
	env.Devices = []Device{iso("sr0", "config-2")}
	env.Mounter = drives{"sr0": tree("openstack/latest/user_data", "drive", "openstack/latest/meta_data.json", `{"uuid":"u"}`)}
	for name, find := range map[string]func() (Found, error){
		"Find":      func() (Found, error) { return Find(t.Context(), env) },
		"FindLocal": func() (Found, error) { return FindLocal(t.Context(), env) },
	} {
		got, err := find()
		if err != nil || got.Source != "ConfigDrive" || string(got.UserData) != "drive" || len(c.seen()) > 0 {
			t.Errorf("%s = %s %q, %v; requests %q", name, got.Source, got.UserData, err, c.seen())
		}
	}
	env.Mounter = drives{"sr0": tree("openstack/latest/meta_data.json", `{"uuid":"u"}`)}
	if got, err := Find(t.Context(), env); err != nil || got.Source != "EC2" || attempt(got, "ConfigDrive") != "metadata only" {
		t.Errorf("a drive with metadata only: %s, %v, attempts %s", got.Source, err, attemptsOf(got))
	}
	if got, err := FindLocal(t.Context(), env); err != nil || got.Source != "ConfigDrive" || got.Present || got.Meta.InstanceID != "u" {
		t.Errorf("a drive with metadata only, local: %+v, %v", got, err)
	}
}

func TestEphemeralDevices(t *testing.T) {
	p := ec2Pages("data")
	const dir = "/2016-04-19/meta-data/block-device-mapping/"
	p[dir] = "ami\nephemeral0\nephemeral1\nroot"
	p[dir+"ephemeral0"], p[dir+"ephemeral1"], p[dir+"ami"], p[dir+"root"] = "sdb", "/dev/xvdc\n", "sda1", "/dev/sda1"
	c := newCloud(t).serve(aws, &imds{pages: p, tokens: "required"})
	got, err := EphemeralDevices(t.Context(), c.env("ec2"))
	if diff := cmp.Diff([]string{"sdb", "xvdc"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	before := len(c.seen())
	if got, err := EphemeralDevices(t.Context(), c.env("gce")); len(got) > 0 || err != nil || len(c.seen()) > before {
		t.Errorf("on another platform: %q, %v, %d requests", got, err, len(c.seen())-before)
	}
	none := newCloud(t).serve(aws, &imds{pages: ec2Pages("data"), tokens: "none"})
	if got, err := EphemeralDevices(t.Context(), none.env("ec2")); len(got) > 0 || err != nil {
		t.Errorf("without any: %q, %v", got, err)
	}
}

// What plugins of amiconfig ask for besides a name and keys, and nothing else that
// a service may list.
func TestMetaValues(t *testing.T) {
	const dir = "/2016-04-19/meta-data/"
	p := ec2Pages("data")
	p[dir+"ami-launch-index"], p[dir+"public-ipv4"], p[dir+"local-ipv4"] = "3", "192.0.2.7\n", "<html>"
	p[dir+"block-device-mapping/"] = "ami\nephemeral0\nephemeral1\n../../x\nswap\nephemeral0/x"
	p[dir+"block-device-mapping/ephemeral0"], p[dir+"block-device-mapping/swap"] = "sdb", "/dev/sdc\n"
	c := newCloud(t).serve(aws, &imds{pages: p, tokens: "required"})
	got, err := Find(t.Context(), c.env("ec2"))
	want := map[string]string{"ami-launch-index": "3", "public-ipv4": "192.0.2.7", "block-device-mapping/ephemeral0": "sdb", "block-device-mapping/swap": "/dev/sdc"}
	if diff := cmp.Diff(want, got.Meta.Values); diff != "" || err != nil {
		t.Errorf("EC2: %v (-want +got):\n%s", err, diff)
	}
	m, err := openStackMeta([]byte(`{"uuid":"u","launch_index":0}`))
	if diff := cmp.Diff(map[string]string{"ami-launch-index": "0"}, m.Values); diff != "" || err != nil {
		t.Errorf("OpenStack: %v (-want +got):\n%s", err, diff)
	}
	m, err = ec2Meta([]byte(`{"ami-launch-index":"5","public-ipv4":7,"block-device-mapping":{"swap":"sdb","../x":"y","root":"sda"}}`))
	want = map[string]string{"ami-launch-index": "5", "public-ipv4": "7", "block-device-mapping/swap": "sdb"}
	if diff := cmp.Diff(want, m.Values); diff != "" || err != nil {
		t.Errorf("config drive: %v (-want +got):\n%s", err, diff)
	}
}

package source

import (
	"slices"
	"strings"
	"testing"
	"unicode"
)

// checkMeta holds for any input: what comes out can be written to files.
func checkMeta(t *testing.T, m Meta) {
	t.Helper()
	bad := func(r rune) bool { return unicode.IsControl(r) }
	if strings.ContainsFunc(m.InstanceID+m.Hostname, bad) || strings.ContainsAny(m.Hostname, " /\\$;") {
		t.Fatalf("metadata %+v", m)
	}
	if slices.ContainsFunc(m.PublicKeys, func(k string) bool { return strings.ContainsFunc(k, bad) || !strings.Contains(k, " ") }) {
		t.Fatalf("keys %q", m.PublicKeys)
	}
	for _, s := range m.Shares {
		if strings.Trim(s.Name+s.Tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=+@-") != "" || s.Name == "" || s.Name[0] == '.' {
			t.Fatalf("share %+v", s)
		}
	}
}

func FuzzContextSh(f *testing.F) {
	f.Add([]byte("ETH0_MAC=02:00:0a:00:00:02\nETH0_IP=10.0.0.2\nUSER_DATA='x'\nSSH_KEY=\"" + testKey + "\"\n"))
	f.Add([]byte("ssh- 00000000 \u009b0")) // a control character above 0x7f
	f.Add([]byte("EC2_USER_DATA='QUJD\nREVG'\nexport ETH255_MAC=a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := openNebula(data, data)
		if !got.Present || len(got.UserData) > len(data) || err != nil && got.UserData != nil {
			t.Fatalf("openNebula = %+v, %v", got, err)
		}
		checkMeta(t, got.Meta)
		if list, err := staticNetwork(readAssignments(data)); err == nil {
			for _, i := range list {
				if !i.Address.IsValid() || i.MAC == "" {
					t.Fatalf("interface %+v", i)
				}
			}
		}
	})
}

func FuzzOVFEnv(f *testing.F) {
	f.Add([]byte(ovf("<CustomData>" + b64("data") + "</CustomData>")))
	f.Add([]byte("<a><b/></a>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := azureOVF(data); err == nil {
			checkMeta(t, got.Meta)
		}
	})
}

func FuzzMetaData(f *testing.F) {
	f.Add([]byte(`{"uuid":"u","hostname":"h","public_keys":{"a":"` + testKey + `"},"keys":[{"type":"ssh","data":"x"}]}`))
	f.Add([]byte(`{"instance-id":"i","public-keys":{"0":{"openssh-key":"` + testKey + `"},"1":[[["x"]]]}}`))
	f.Add([]byte(`{"uuid":"u","meta":{"mica_shares":"[{\"name\":\"data\",\"type\":\"9p\",\"ro\":true},{\"name\":\"../x\",\"type\":\"9p\"}]"}}`))
	f.Add([]byte("{\"uuid\":\"\x7f0\"}"))
	f.Add([]byte("instance-id: i\npublic-keys:\n  - " + testKey + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := openStackMeta(data); err == nil {
			checkMeta(t, m)
		}
		if m, err := ec2Meta(data); err == nil {
			checkMeta(t, m)
		}
		checkMeta(t, noCloudMeta(data))
	})
}

func FuzzSMBIOS(f *testing.F) {
	f.Add([]byte("\x0b\x05\x00\x00\x02first\x00second\x00\x00\x7f\x04\x00\x00\x00\x00"))
	f.Add([]byte("\x0b\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		for _, s := range oemStrings(data) {
			total += len(s)
		}
		if total > len(data) {
			t.Fatalf("%d bytes of strings in a table of %d", total, len(data))
		}
	})
}

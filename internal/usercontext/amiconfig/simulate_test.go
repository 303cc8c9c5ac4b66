package amiconfig

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// Contexts in public use do what they say, on an empty system.
func TestSimulateRealContexts(t *testing.T) {
	dir := tier.PeerData(t, "contexts")
	for _, name := range []string{"aleph-slc6", "atlas", "cms-opendata", "default", "squid"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, name+".context"))
			if err != nil {
				t.Fatal(err)
			}
			sim, err := Simulate(t.Context(), data, Input{Hostname: "vm.example.org", InstanceID: "i-1", PublicKeys: []string{testKey}})
			if err != nil {
				t.Fatal(err)
			}
			for i := range sim.Plugins {
				sim.Plugins[i].Seconds = 0
			}
			var out bytes.Buffer
			enc := json.NewEncoder(&out)
			enc.SetIndent("", "  ")
			enc.SetEscapeHTML(false)
			if err := enc.Encode(sim); err != nil {
				t.Fatal(err)
			}
			out.WriteString(strings.Join(sim.Lines(), "\n") + "\n")
			checkGolden(t, name, out.Bytes())
		})
	}
}

const full = `#!/bin/sh.before
exit 0
[amiconfig]
plugins=cernvm hostname squid storage tcpbuffers noip
[hostname]
hostname=vm1.example.org
[cernvm]
users=alice:physics:topsecret
contextualization_key=id:topsecret
services=sshd
[tcpbuffers]
net.ipv4.tcp_sack=1
[noip]
username=u
password=topsecret
hostname=h.example.org
[squid]
backends=a.example.org
`

func TestSimulate(t *testing.T) {
	one, err := Simulate(t.Context(), []byte(full), Input{PublicKeys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(one)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data) + strings.Join(one.Lines(), "\n"); strings.Contains(text, "topsecret") {
		t.Errorf("a secret shows in %s", text)
	}
	checkGolden(t, "full", []byte(strings.Join(one.Lines(), "\n")+"\n"))
	two, err := Simulate(t.Context(), []byte(full), Input{PublicKeys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	if changes := Diff(one, two); len(changes) != 0 {
		t.Errorf("Diff(one, one) = %+v, want nothing", changes)
	}
}

func TestDiff(t *testing.T) {
	sim := func(text string) Simulation {
		s, err := Simulate(t.Context(), []byte(text), Input{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := sim("[cernvm]\nenvironment=A=1,B=2,C=3\nservices=one\nusers=u:u:p\n")
	b := sim("[cernvm]\nenvironment=A=1,B=x,C=3\nservices=two\nusers=u:u:p\nshell=/bin/zsh\n")
	got := map[string]string{}
	for _, c := range Diff(a, b) {
		got[c.Op+" "+c.Kind+" "+c.Name] = strings.Join(c.Lines, "|")
	}
	want := map[string]string{
		"changed user u":                                  "",
		"changed file /etc/passwd":                        " root:x:0:0:root:/root:/bin/bash|-u:x:1000:1000::/home/u:/bin/bash|+u:x:1000:1000::/home/u:/bin/zsh",
		"changed file /etc/cernvm/environment.conf":       " A=1|-B=2|+B=x| C=3",
		"changed file /etc/cernvm/site.conf":              "-CERNVM_SERVICES=one|+CERNVM_SERVICES=two|+CERNVM_USER_SHELL=/bin/zsh| CERNVM_ENVIRONMENT_VARS=+A+B+C| CERNVM_USER=u| CERNVM_USER_GROUP=u",
		"changed file /etc/profile.d/mica-environment.sh": " # Variables of the machine's context| export A=1|-export B=2|+export B=x| export C=3",
		"added service two":                               "",
		"removed service one":                             "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

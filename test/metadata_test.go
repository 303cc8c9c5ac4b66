package test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micavm/mica/internal/tier"
)

// network is a host and two machines on a bridge, each in a network namespace. The
// host has the link-local address of the metadata services.
type network struct {
	t      *testing.T
	prefix string
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t, prefix: fmt.Sprintf("mica-md-%d-", os.Getpid())}
	ip := tier.Tool(t, "ip")
	for _, name := range []string{"host", "a", "b"} {
		t.Cleanup(func() { _ = exec.Command(ip, "netns", "delete", n.prefix+name).Run() }) //nolint:gosec // a name of this test
		n.ip("netns add " + n.prefix + name)
		n.ip("-n " + n.prefix + name + " link set lo up")
	}
	host := n.prefix + "host"
	n.ip("-n " + host + " link add name br0 type bridge")
	n.ip("-n " + host + " addr add 169.254.169.254/16 dev br0")
	n.ip("-n " + host + " link set br0 up")
	for name, last := range map[string]string{"a": "a", "b": "b"} {
		ns := n.prefix + name
		n.ip("-n " + ns + " link add eth0 address 02:00:00:00:00:0" + last + " type veth peer name v" + name + " netns " + host)
		n.ip("-n " + host + " link set v" + name + " master br0 up")
		n.ip("-n " + ns + " addr add 169.254.10." + map[string]string{"a": "10", "b": "11"}[name] + "/16 dev eth0")
		n.ip("-n " + ns + " link set eth0 up")
		n.ip("-n " + ns + " route add default via 169.254.169.254") // where CloudStack's clients look
	}
	return n
}

func (n *network) ip(args string) {
	n.t.Helper()
	if out, err := exec.CommandContext(n.t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil { //nolint:gosec // arguments of this test
		n.t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}

// enter is the start of a command line that runs in a machine or the host.
func (n *network) enter(name string) []string {
	return []string{"ip", "netns", "exec", n.prefix + name}
}

// serve runs mica metadata serve on the host until the function it returns is
// called, and returns the NoCloud addresses that it prints, by machine.
func (n *network) serve(m *mica, machines string, args ...string) (map[string]string, func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	served := m.command(ctx, append([]string{"metadata", "serve", "--listen", "169.254.169.254:80", "--machines", machines, "--verbose"}, args...)...)
	line := append(n.enter("host"), served.Args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...) //nolint:gosec // the program under test
	cmd.Env = served.Env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	var log strings.Builder
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	stop := func() {
		cancel()
		err := cmd.Wait()
		if n.t.Failed() {
			n.t.Logf("mica metadata serve: %v\n%s", err, log.String())
		}
	}
	urls := map[string]string{}
	lines := bufio.NewScanner(stdout)
	for len(urls) < 2 && lines.Scan() {
		name, url, _ := strings.Cut(lines.Text(), "\t")
		urls[name] = url
	}
	if len(urls) < 2 {
		stop()
		n.t.Fatalf("mica metadata serve printed %v\n%s", urls, log.String())
	}
	return urls, stop
}

// TestCloudInitAsksTheMetadataService has the cloud-init of the demo's operating
// system fetch its context as it does in each cloud, from a machine on a bridge,
// and compares all it found with what went in.
func TestCloudInitAsksTheMetadataService(t *testing.T) {
	c, m, n := newCloudInit(t), newMica(t), newNetwork(t)
	texts := map[string]string{
		"a": "#!/bin/sh\necho \"$HOME\" ü\nexit 0\n[amiconfig]\nplugins=cernvm\n",
		"b": "\x1f\x8b not text at all \x00\xff\n",
	}
	var list []map[string]any
	for name, last := range map[string]string{"a": "10", "b": "11"} {
		if err := os.WriteFile(filepath.Join(c.files, name+".context"), []byte(texts[name]), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, map[string]any{
			"name": name, "address": "169.254.10." + last, "mac": "02:00:00:00:00:0" + name, "secret": strings.Repeat(name, 30),
			"context": name + ".context", "instance_id": "i-00000" + name, "hostname": "vm-" + name + ".example.org", "ssh_keys": storyKeys,
		})
	}
	machines := filepath.Join(c.files, "machines.json")
	data, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(machines, data, 0o600); err != nil {
		t.Fatal(err)
	}

	const server = "http://169.254.169.254"
	aws := map[string]string{"system-uuid": "ec2e1916-9099-7caf-fd21-012345abcdef", "system-serial-number": "ec2e1916-9099-7caf-fd21-012345abcdef"}
	for _, service := range []struct {
		args []string
		jobs func(seed string) []job
	}{
		{nil, func(seed string) []job {
			return []job{
				{Source: "ec2", Where: server},
				{Source: "ec2", Where: server, DMI: aws},
				{Source: "openstack", Where: server, DMI: map[string]string{"system-product-name": "OpenStack Nova"}},
				{Source: "cloudstack", Where: server + "/"},
				{Source: "nocloud_net", Where: seed},
				{Source: "nocloud_net", DMI: map[string]string{"system-serial-number": "ds=nocloud-net;s=" + seed}},
			}
		}},
		{[]string{"--token-required"}, func(string) []job { return []job{{Source: "ec2", Where: server, DMI: aws}} }},
		{[]string{"--family", "gce"}, func(string) []job {
			return []job{{Source: "gce", Where: server, DMI: map[string]string{"system-product-name": "Google Compute Engine"}}}
		}},
		{[]string{"--family", "azure"}, func(string) []job { return []job{{Source: "azure_imds", Where: server}} }},
	} {
		seeds, stop := n.serve(m, machines, service.args...)
		for _, machine := range []string{"a", "b"} {
			c.enter = n.enter(machine)
			jobs := service.jobs(seeds[machine])
			for i, got := range c.ask(jobs) {
				name := fmt.Sprintf("machine %s, %s %v", machine, jobs[i].Source, service.args)
				if got.Error != "" {
					t.Errorf("%s: %s", name, got.Error)
					continue
				}
				want := answer{UserData: []byte(texts[machine]), InstanceID: "i-00000" + machine, Hostname: "vm-" + machine + ".example.org", Keys: storyKeys, Zone: "local"}
				switch jobs[i].Source {
				case "gce": // has numbers for identifiers, and cloud-init cuts the name
					want.InstanceID, got.InstanceID = "number", numeric(got.InstanceID)
					want.Hostname, want.Zone = "vm-"+machine, "z-a"
				case "azure_imds", "nocloud_net":
					want.Zone = ""
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, shorten(diff))
				}
			}
		}
		stop()
	}
}

func numeric(id string) string {
	if id == "" || strings.Trim(id, "0123456789") != "" {
		return id
	}
	return "number"
}

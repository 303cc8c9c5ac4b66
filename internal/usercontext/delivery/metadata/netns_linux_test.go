package metadata_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext/delivery"
	"github.com/micavm/mica/internal/usercontext/delivery/metadata"
)

// inside runs f in a network namespace.
func inside(t *testing.T, namespace string, f func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err == nil {
			err = f()
		}
		ended <- err
	}()
	return <-ended
}

// TestIsolationOnABridge puts two machines and a host on a bridge, each in a
// network namespace, and lets one machine take the other's address.
func TestIsolationOnABridge(t *testing.T) {
	tier.Root(t)
	ip := tier.Tool(t, "ip")
	run := func(args string) {
		t.Helper()
		if out, err := exec.Command(ip, strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", args, err, out)
		}
	}
	prefix := fmt.Sprintf("mica-%d-", os.Getpid())
	host := prefix + "host"
	names := map[string]string{"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}
	for _, n := range []string{host, prefix + "a", prefix + "b"} {
		run("netns add " + n)
		t.Cleanup(func() { _ = exec.Command(ip, "netns", "delete", n).Run() })
	}
	run("-n " + host + " link add name br0 type bridge")
	run("-n " + host + " addr add 192.0.2.1/24 dev br0")
	run("-n " + host + " link set br0 up")
	for n, mac := range names {
		ns := prefix + n
		run("-n " + ns + " link add eth0 address " + mac + " type veth peer name v" + n + " netns " + host)
		run("-n " + host + " link set v" + n + " master br0 up")
		run("-n " + ns + " link set eth0 up")
	}
	run("-n " + prefix + "a addr add 192.0.2.10/24 dev eth0")
	run("-n " + prefix + "b addr add 192.0.2.11/24 dev eth0")

	o := metadata.Options{Neighbour: func(a netip.Addr) (mac net.HardwareAddr, err error) {
		err = inside(t, host, func() error { mac, err = metadata.Neighbour(a); return err })
		return mac, err
	}}
	for n, address := range map[string]string{"a": "192.0.2.10", "b": "192.0.2.11"} {
		mac, err := net.ParseMAC(names[n])
		if err != nil {
			t.Fatal(err)
		}
		o.Machines = append(o.Machines, metadata.Machine{Name: n, Address: netip.MustParseAddr(address), MAC: mac, UserData: []byte("of " + n), Secret: map[string]string{"a": secretA, "b": secretB}[n], Meta: delivery.Meta{InstanceID: n}})
	}
	s := newServer(t, o)
	var l net.Listener
	if err := inside(t, host, func() (err error) { l, err = net.Listen("tcp", "192.0.2.1:80"); return err }); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	get := func(from, method, path, header string) (code int) {
		t.Helper()
		err := inside(t, prefix+from, func() error {
			c, err := net.DialTimeout("tcp", "192.0.2.1:80", 5*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: 192.0.2.1\r\nConnection: close\r\n%s\r\n", method, path, header); err != nil {
				return err
			}
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				return err
			}
			defer r.Body.Close()
			code = r.StatusCode
			text := body(t, r)
			if code == http.StatusOK && strings.HasPrefix(text, "of ") && text != "of "+from {
				t.Errorf("%s got %q", from, text)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%s %s: %v", from, path, err)
		}
		return code
	}
	for _, tc := range []struct {
		from, method, path, header string
		want                       int
	}{
		{"a", "GET", "/latest/user-data", "", 200},
		{"b", "GET", "/latest/user-data", "", 200},
		{"a", "GET", "/" + secretA + "/user-data", "", 200},
		{"b", "GET", "/" + secretA + "/user-data", "", 404},
		{"b", "GET", "/latest/user-data", "X-Forwarded-For: 192.0.2.10\r\n", 200}, // its own
		{"a", "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60\r\n", 200},
	} {
		if code := get(tc.from, tc.method, tc.path, tc.header); code != tc.want {
			t.Errorf("%s %s %s = %d, want %d", tc.from, tc.method, tc.path, code, tc.want)
		}
	}

	// b takes a's address, a being gone.
	run("-n " + prefix + "a link set eth0 down")
	run("-n " + prefix + "b addr del 192.0.2.11/24 dev eth0")
	run("-n " + prefix + "b addr add 192.0.2.10/24 dev eth0")
	_ = exec.Command(ip, "-n", host, "neigh", "flush", "all").Run()
	if code := get("b", "GET", "/latest/user-data", ""); code != http.StatusNotFound {
		t.Errorf("b with a's address got %d, want 404", code)
	}
}

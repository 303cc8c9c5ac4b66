package plugins

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// proxyPlan is the grid proxies of a [cernvm] section and what needs them.
type proxyPlan struct {
	owner    string
	cert     []byte
	certFile string

	eosOwner         string
	eosCert          []byte
	eosServer        string
	readAhead, cache int
}

// parseProxies reads the x509 and eos options.
//
// Differs: eos-server may begin with root://, and without a proxy it is left out
// instead of stopping the plugin.
func parseProxies(c *Call, users []userSpec) (proxyPlan, error) {
	var p problems
	s := c.Section
	first := "root"
	if len(users) > 0 {
		first = users[0].name
	}
	plan := proxyPlan{
		owner: s.Get("x509-user", first), certFile: s.Get("x509-cert-file", ""),
		eosOwner: s.Get("eos-user", first),
	}
	for _, o := range []struct {
		key string
		to  *[]byte
	}{{"x509-cert", &plan.cert}, {"eos-x509-cert", &plan.eosCert}} {
		if v := s.Get(o.key, ""); v != "" {
			data, err := decode(v)
			if err != nil {
				p.addf("%s: %w", o.key, err)
			}
			*o.to = data
		}
	}
	for _, o := range []struct {
		key, fallback string
		to            *int
	}{{"eos-readaheadsize", "4000000", &plan.readAhead}, {"eos-readcachesize", "16000000", &plan.cache}} {
		n, err := number(s.Get(o.key, o.fallback), 0, 1<<40)
		if err != nil {
			p.addf("%s: %w", o.key, err)
		}
		*o.to = n
	}
	server := strings.TrimRight(strings.TrimPrefix(s.Get("eos-server", ""), "root://"), "/")
	if server != "" {
		name, port, hasPort := strings.Cut(server, ":")
		if err := host(name); err != nil {
			p.addf("eos-server: %w", err)
			server = ""
		}
		if _, err := number(port, 1, 65535); hasPort && err != nil {
			p.addf("eos-server: %w", err)
			server = ""
		}
		if server != "" && plan.cert == nil && plan.certFile == "" && plan.eosCert == nil {
			c.Warn("eos-server is left out: it needs a grid proxy, x509-cert, x509-cert-file or eos-x509-cert")
			server = ""
		}
	}
	plan.eosServer = server
	return plan, p.err()
}

func (plan proxyPlan) apply(ctx context.Context, c *Call) error {
	var p problems
	root := c.Root
	proxy, err := plan.writeProxy(root, plan.owner, "", plan.cert, plan.certFile)
	p.add(err)
	if plan.eosCert != nil {
		proxy, err = plan.writeProxy(root, plan.eosOwner, ".eos", plan.eosCert, "")
		p.add(err)
	}
	if plan.eosServer != "" && proxy != "" {
		if err := plan.mountEOS(ctx, root, proxy); err != nil {
			c.Warn("%v", err)
		}
	}
	return p.err()
}

// writeProxy puts a proxy where grid tools look for it, and returns the path.
func (plan proxyPlan) writeProxy(root *guest.Root, owner, suffix string, data []byte, from string) (string, error) {
	if data == nil && from == "" {
		return "", nil
	}
	acc, ok, err := root.Account(owner)
	switch {
	case err != nil:
		return "", err
	case !ok && owner == "root":
		acc = guest.Account{Name: "root"}
	case !ok:
		return "", fmt.Errorf("grid proxy: there is no user %q", owner)
	}
	if data == nil {
		if data, err = root.ReadFile(from); err != nil {
			return "", fmt.Errorf("grid proxy: %w", err)
		}
	}
	name := "/tmp/x509up_u" + strconv.Itoa(acc.UID) + suffix
	attr := guest.Attr{Mode: 0o600, Secret: true, NoFollow: true}.Owner(acc.UID, acc.GID)
	return name, root.WriteFile(name, data, attr)
}

func (plan proxyPlan) mountEOS(ctx context.Context, root *guest.Root, proxy string) error {
	if !root.Has("eosfsd") {
		return errors.New("eos-server: this operating system has no eosfsd")
	}
	acc, _, err := root.Account(plan.eosOwner)
	if err != nil {
		return err
	}
	if root.Mounted("/eos") {
		return nil
	}
	if err := root.MkdirAll("/eos", guest.Attr{Mode: 0o755}.Owner(acc.UID, acc.GID)); err != nil {
		return err
	}
	if _, err := root.Run(ctx, "modprobe", "fuse"); err != nil {
		root.Log().Info("no fuse module, perhaps built in", "error", err)
	}
	res, err := root.RunCommand(ctx, guest.Command{
		Name: "eosfsd",
		Args: []string{"/eos", "-oallow_other,kernel_cache,attr_timeout=30,entry_timeout=30,max_readahead=131072,max_write=4194304,fsname=eos", "root://" + plan.eosServer + "//eos/"},
		Env: []string{
			"X509_USER_PROXY=" + proxy, "X509_CERT_DIR=/cvmfs/grid.cern.ch/etc/grid-security/certificates",
			"EOS_FUSE_READAHEADSIZE=" + strconv.Itoa(plan.readAhead), "EOS_FUSE_READCACHESIZE=" + strconv.Itoa(plan.cache),
		},
	})
	if err != nil {
		return fmt.Errorf("eos-server: %w", err)
	}
	if res.Code != 0 {
		return fmt.Errorf("eos-server: eosfsd: exit code %d", res.Code)
	}
	return nil
}

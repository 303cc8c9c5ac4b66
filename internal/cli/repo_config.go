package cli

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/cvmfs/client"
	"github.com/micavm/mica/cvmfs/config"
	"github.com/micavm/mica/cvmfs/config/pac"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/run"
)

func configFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "config", config.DefaultDir, "directory of CernVM-FS configuration, for repositories given by name")
}

// isRepositoryName tells a name that the configuration is asked for from a URL
// and from a directory.
func isRepositoryName(source string) bool {
	if !strings.Contains(source, ".") || strings.Contains(source, "/") || cvmfs.CheckName(source) != nil {
		return false
	}
	info, err := os.Stat(source)
	return err != nil || !info.IsDir()
}

// readConfig reads what the configuration says of a repository, and warns: with
// everything also of parameters that mean nothing here.
func readConfig(a *app, dir, name string, everything bool) (*config.Config, config.Repository, error) {
	c, err := config.Read(name, config.Options{Dir: dir, Env: a.Env, PID: os.Getpid()})
	if err != nil {
		return nil, config.Repository{}, configError(err)
	}
	warnings := c.Warnings
	if everything {
		warnings = append(warnings, c.NotFollowed()...)
	}
	for _, w := range warnings {
		_, _ = fmt.Fprintf(a.Err, "mica: %s\n", w)
	}
	r, err := c.Repository()
	return c, r, configError(err)
}

func configError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, config.ErrUnknown):
		return fail.New(fail.NotFound, "%w", err).
			Hint("give its URL instead of its name").
			Hint("or name its servers in a file of the CernVM-FS configuration")
	case errors.Is(err, config.ErrSyntax):
		return fail.New(fail.Usage, "%w", err).Hint("write it as assignments, tests and if; nothing of the configuration is run")
	case errors.Is(err, config.ErrValue), errors.Is(err, cvmfs.ErrWrongName), errors.Is(err, cvmfs.ErrMalformed):
		return fail.New(fail.Usage, "%w", err)
	}
	return fail.New(fail.HostLacks, "%w", err)
}

// configured fills in what the configuration says. Flags on the command line win.
func (s *repoSource) configured(a *app, name string, opt *client.Options) error {
	c, r, err := readConfig(a, s.config, name, s.mounting)
	if err != nil {
		return err
	}
	s.conf, s.values = r, c.Values()
	opt.Vars = map[string]string{}
	for _, v := range c.Values() {
		opt.Vars[v.Name] = c.Expand(v.Value)
	}
	never := func(d time.Duration) time.Duration {
		if d == 0 {
			return -1
		}
		return d
	}
	opt.Servers, opt.Retries, opt.Backoff = r.Servers, r.Retries, r.Backoff
	if r.Retries == 0 {
		opt.Retries = -1
	}
	opt.Network = client.Network{
		BackoffMax: r.BackoffMax, LowSpeed: r.LowSpeed, ProxyResetAfter: never(r.ProxyResetAfter), HostResetAfter: never(r.HostResetAfter),
		IndefiniteFailover: r.Indefinite, ShardProxies: r.ShardProxies, FollowRedirects: r.FollowRedirects, MaxServers: r.MaxServers,
		GeoOrder: r.GeoOrder, GeoName: r.GeoName, DNSTimeout: r.DNSTimeout, DNSRetries: r.DNSRetries, IPv4Only: r.IPv4Only,
		PreferIPv6: r.PreferIPv6, AddressesPerProxy: r.AddressesPerProxy, PACURLs: r.PACURLs, SendInfo: r.SendInfo,
	}
	opt.External = client.External(r.External)
	if r.DNSRetries == 0 {
		opt.Network.DNSRetries = -1
	}
	if r.Nameserver != "" {
		opt.Nameservers = []string{r.Nameserver}
	}
	for _, k := range r.Keys {
		opt.MasterKeys = append(opt.MasterKeys, k.Public)
	}
	if s.name == "" {
		opt.Name = name
	}
	if !s.given("proxy") && r.Proxies+r.FallbackProxies != "" {
		opt.Proxies, opt.Network.FallbackProxies = r.Proxies, r.FallbackProxies
	}
	if !s.given("timeout") {
		opt.Timeout, opt.Network.TimeoutDirect = r.Timeout, r.TimeoutDirect
	}
	if !s.given("quota") {
		opt.Quota = r.Quota
	}
	opt.MaxTTL = r.MaxTTL
	opt.Pin = client.Pin{Tag: r.Tag, Date: r.Date}
	if !r.RootHash.IsZero() {
		opt.Pin = client.Pin{RootHash: r.RootHash}
	}
	return nil
}

// blacklist takes over what this computer's configuration says is not to be
// trusted, however a repository was given.
func (s *repoSource) blacklist(a *app, opt *client.Options) error {
	if !strings.Contains(opt.Name, ".") {
		return nil // such a name has no place in the configuration
	}
	c, err := config.Read(opt.Name, config.Options{Dir: s.config, Env: a.Env, PID: os.Getpid()})
	if err != nil { // for a repository given by its name this has been an error
		_, _ = fmt.Fprintf(a.Err, "mica: no blacklist is followed: %v\n", err)
		return nil
	}
	b, err := c.Blacklist(s.config)
	if err != nil {
		return configError(err)
	}
	opt.Blocked, opt.MinRevision = b.Fingerprints, b.MinRevision
	return nil
}

// configuredKeys are the keys of a repository that was given by its URL, if the
// configuration knows it. That it does not is no mistake.
func configuredKeys(a *app, dir, name string) []*rsa.PublicKey {
	c, err := config.Read(name, config.Options{Dir: dir, Env: a.Env, PID: os.Getpid()})
	if err != nil {
		a.log.Debug("no configuration", "repository", name, "err", err)
		return nil
	}
	r, err := c.Repository()
	if err != nil {
		a.log.Debug("no configuration", "repository", name, "err", err)
		return nil
	}
	var keys []*rsa.PublicKey
	for _, k := range r.Keys {
		keys = append(keys, k.Public)
	}
	return keys
}

// configEntry is one line of what a configuration comes to.
type configEntry struct {
	Kind   string `json:"kind"` // server, key or parameter
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
}

func newRepoConfig(a *app) *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use:   "config NAME",
		Short: "Show the configuration of a repository, and where each value comes from",
		Long: `Show the servers, the public keys and the parameters that hold for a repository
given by its name. They come from the files of CernVM-FS below --config, in the
order of the original client, and for well-known repositories that these files do
not know from a table that mica has, whose origins begin with "known:". The files
are read as data; nothing of them is run.

The parameters that say where the original client keeps its cache are shown but
not followed: two clients cannot look after one cache at the same time.`,
		Example: `  mica repo config cernvm-prod.cern.ch
  mica repo config atlas.cern.ch --output json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, r, err := readConfig(a, dir, args[0], true)
			if err != nil {
				return err
			}
			l := listing[configEntry]{
				Schema: 1,
				name:   func(e configEntry) string { return e.Name },
				columns: []column[configEntry]{
					{head: "KIND", cell: func(e configEntry) string { return e.Kind }},
					{head: "NAME", cell: func(e configEntry) string { return printable(e.Name) }},
					{head: "ORIGIN", cell: func(e configEntry) string { return printable(e.Origin) }},
					{head: "VALUE", cell: func(e configEntry) string { return printable(e.Value) }},
				},
			}
			servers, _ := c.Lookup("CVMFS_SERVER_URL")
			for i, s := range r.Servers {
				l.Items = append(l.Items, configEntry{"server", fmt.Sprint(i + 1), s, servers.Origin})
			}
			for _, k := range r.Keys {
				l.Items = append(l.Items, configEntry{"key", "sha256", k.Fingerprint, k.File})
			}
			for _, v := range c.Values() {
				l.Items = append(l.Items, configEntry{"parameter", v.Name, c.Expand(v.Value), v.Origin})
			}
			return l.print(a.Out, output)
		},
	}
	configFlag(cmd, &dir)
	outputFlag(cmd, &output)
	return cmd
}

// discovery lets the proxy list say auto. Where to look for scripts has no
// default in the configuration; who asks for auto on the command line means the
// name that all programs look under.
func (s *repoSource) discovery(a *app, n *client.Network) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("preparing to run proxy scripts: %w", err)
	}
	n.EvaluatePAC = pac.Isolated{Runner: run.Host{Log: a.log}, Path: exe, Args: []string{"repo", proxyScriptCommand}}.Evaluate
	if s.given("proxy") && len(n.PACURLs) == 0 {
		n.PACURLs = []string{"auto"}
	}
	return nil
}

const proxyScriptCommand = "run-proxy-script"

// newRepoProxyScript is the process that a proxy script runs in.
func newRepoProxyScript(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    proxyScriptCommand,
		Short:  "Run a proxy script from standard input, for mica itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return pac.Serve(cmd.Context(), a.In, a.Out) },
	}
}

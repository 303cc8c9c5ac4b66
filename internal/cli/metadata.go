package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/delivery"
	"github.com/micavm/mica/internal/usercontext/delivery/metadata"
)

func newMetadata(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "metadata",
		Short: "Hand machines their context over the network",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMetadataServe(a))
	return cmd
}

// servedMachine is one machine in the file that --machines names.
type servedMachine struct {
	Name       string     `json:"name"`
	Address    netip.Addr `json:"address"`
	MAC        string     `json:"mac"`
	Secret     string     `json:"secret"`
	Context    string     `json:"context"` // path, relative to the file
	InstanceID string     `json:"instance_id"`
	Hostname   string     `json:"hostname"`
	SSHKeys    []string   `json:"ssh_keys"`
}

func newMetadataServe(a *app) *cobra.Command {
	var listen, machines string
	var families []string
	var anywhere bool
	o := metadata.Options{}
	cmd := &cobra.Command{
		Use:   "serve --listen ADDRESS:PORT --machines FILE",
		Short: "Serve contexts as the metadata service of a cloud does",
		Long: `Serve contexts as the metadata service of a cloud does.

The file lists the machines as a JSON array of objects with name, address, mac,
secret, context (a path), instance_id, hostname and ssh_keys. A machine is known
by its address and, if given, by the hardware address behind it; each sees its own
data only. One without an address is served by its secret alone, which is made
if the file has none. The NoCloud URL of each machine with a secret is printed.`,
		Example: `  mica metadata serve --listen 192.168.122.1:80 --machines machines.json
  mica metadata serve --listen 127.0.0.1:8775 --machines machines.json --family nocloud`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Machines, err = readMachines(machines); err != nil {
				return err
			}
			for _, f := range families {
				o.Families = append(o.Families, metadata.Family(f))
			}
			if host, _, err := net.SplitHostPort(listen); err != nil {
				return fail.New(fail.Usage, "--listen %q: %w", listen, err).Hint("give an address and a port, such as 192.168.122.1:80")
			} else if ip, err := netip.ParseAddr(host); !anywhere && (err != nil || ip.IsUnspecified()) {
				return fail.New(fail.Usage, "--listen %q is not one address of this computer", listen).
					Hint("name the address that faces the machines, or pass --anywhere if every network may ask")
			}
			o.Log = a.log
			if runtime.GOOS == "linux" {
				o.Neighbour = metadata.Neighbour
			}
			s, err := metadata.New(o)
			if err != nil {
				return err
			}
			l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return fail.New(fail.HostLacks, "listening on %s: %w", listen, err).Hint("choose another address or port; ports below 1024 need root")
			}
			for _, m := range o.Machines {
				if m.Secret != "" {
					if _, err := fmt.Fprintf(a.Out, "%s\thttp://%s/%s/\n", m.Name, l.Addr(), m.Secret); err != nil {
						return err
					}
				}
			}
			return s.Serve(cmd.Context(), l)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", "127.0.0.1:8775", "address and port to serve on")
	f.StringVar(&machines, "machines", "", "JSON file that lists the machines")
	f.StringSliceVar(&families, "family", nil, "what to answer as: ec2, openstack, gce, azure, nocloud (default: ec2,openstack,nocloud)")
	f.BoolVar(&o.TokenOnly, "token-required", false, "answer as EC2 only to holders of a session token (IMDSv2)")
	f.BoolVar(&anywhere, "anywhere", false, "allow --listen on all addresses of this computer")
	_ = cmd.MarkFlagRequired("machines")
	return cmd
}

func readMachines(name string) ([]metadata.Machine, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail.New(fail.NotFound, "no list of machines at %s", name)
	} else if err != nil {
		return nil, fmt.Errorf("reading list of machines: %w", err)
	}
	var list []servedMachine
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fail.New(fail.Usage, "reading list of machines %s: %w", name, err).
			Hint("it is a JSON array of objects with name, address, mac, secret, context, instance_id, hostname, ssh_keys")
	}
	var machines []metadata.Machine
	for _, one := range list {
		m := metadata.Machine{
			Name: one.Name, Address: one.Address, Secret: one.Secret,
			Meta: delivery.Meta{InstanceID: one.InstanceID, Hostname: one.Hostname, PublicKeys: one.SSHKeys},
		}
		if one.MAC != "" {
			if m.MAC, err = net.ParseMAC(one.MAC); err != nil {
				return nil, fail.New(fail.Usage, "machine %q: %w", one.Name, err)
			}
		}
		if one.Context != "" {
			path := one.Context
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(name), path)
			}
			if m.UserData, err = os.ReadFile(path); err != nil {
				return nil, fail.New(fail.NotFound, "machine %q: reading context: %w", one.Name, err)
			}
		}
		if m.Secret == "" && !m.Address.IsValid() {
			if m.Secret, err = metadata.NewSecret(nil); err != nil {
				return nil, err
			}
		}
		machines = append(machines, m)
	}
	return machines, nil
}

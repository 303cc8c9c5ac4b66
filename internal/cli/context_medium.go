package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/usercontext/convert"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// portable is what every cloud delivers, in bytes.
const portable = 16384

// mediumFlags are what the commands that put a context on a medium share.
type mediumFlags struct {
	out      string
	force    bool
	password passwordFlag
}

func (m *mediumFlags) add(cmd *cobra.Command) {
	outFlags(cmd, &m.out, &m.force)
	cmd.Flags().Lookup("out").Usage = "file to write the image to, for the owner only"
	m.password.add(cmd)
}

// write loads the context and writes the medium that make makes of it.
func (m *mediumFlags) write(a *app, file string, make func(io.Writer, convert.Loaded) error) error {
	if m.out == "" {
		return fail.New(fail.Usage, "no image to write").Hint("pass --out IMAGE, or --out - for standard output")
	}
	if m.out == "-" && isTerminal(a.Out) {
		return fail.New(fail.Usage, "an image is not for a terminal").Hint("pass --out IMAGE, or send the output elsewhere")
	}
	l, err := a.loadContext(file, &m.password)
	if err != nil {
		return err
	}
	if len(l.Text) > portable {
		_, _ = fmt.Fprintf(a.Err, "warning: %s has %d bytes; some clouds take %d only\n", l.Name, len(l.Text), portable)
	}
	var image bytes.Buffer
	if err := make(&image, l); err != nil {
		return err
	}
	return a.writeContext(m.out, image.Bytes(), m.force)
}

// layoutFlags are what the commands share whose medium has a layout and says who
// the machine is.
type layoutFlags struct {
	mediumFlags
	layout      string
	meta        delivery.Meta
	keyFile     string
	networkFile string
	vendorFile  string
}

func (m *layoutFlags) add(cmd *cobra.Command) {
	var names []string
	for _, k := range delivery.Kinds() {
		names = append(names, k.Name)
	}
	flags := cmd.Flags()
	flags.StringVar(&m.layout, "layout", names[0], "what is on the image: "+strings.Join(names, ", "))
	flags.StringVar(&m.meta.Hostname, "hostname", "", "name of the machine")
	flags.StringVar(&m.meta.InstanceID, "instance-id", "", "identifier of the machine; default: follows from the content")
	flags.StringVar(&m.keyFile, "ssh-key", "", "file with public SSH keys for root")
	flags.StringVar(&m.networkFile, "network-config", "", "file with the network configuration: network_data.json for config-2, cloud-init's own form for nocloud")
	flags.StringVar(&m.vendorFile, "vendor-data", "", "file with vendor data, for config-2 (JSON) and nocloud")
	_ = cmd.RegisterFlagCompletionFunc("layout", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	m.mediumFlags.add(cmd)
}

// write is mediumFlags.write with the layout and the complete metadata.
func (m *layoutFlags) write(a *app, file string, make func(io.Writer, delivery.Kind, []byte, delivery.Meta) error) error {
	kind, err := delivery.Named(m.layout)
	if err != nil {
		return err
	}
	meta := m.meta
	keys, err := readOptional("public key", m.keyFile)
	if err != nil {
		return err
	}
	if meta.NetworkConfig, err = readOptional("network configuration", m.networkFile); err != nil {
		return err
	}
	if meta.VendorData, err = readOptional("vendor data", m.vendorFile); err != nil {
		return err
	}
	return m.mediumFlags.write(a, file, func(w io.Writer, l convert.Loaded) error {
		meta.PublicKeys = append(meta.PublicKeys, l.PublicKeys...)
		for line := range strings.Lines(string(keys)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				meta.PublicKeys = append(meta.PublicKeys, line)
			}
		}
		return make(w, kind, l.Text, meta)
	})
}

// readOptional reads a file that a flag names, or nothing for none.
func readOptional(what, name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail.New(fail.NotFound, "reading the %s: %w", what, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", what, err)
	}
	return data, nil
}

package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/image/build"
	"github.com/micavm/mica/internal/image/format"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/run"
)

func newImageBuild(a *app) *cobra.Command {
	o := build.Options{}
	var kind string
	var words []string
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build a boot image for a repository",
		Long: `Build a boot image for a repository.

The image starts by BIOS and by UEFI, as a CD and as a disk, such as a USB
stick. The kernel, busybox, e2fsprogs, isolinux and systemd-boot come from
Debian packages, which apt downloads and verifies; nothing is installed, and no
root is needed. Packages are kept, so that the next build needs neither network
nor apt and gives the same bytes. Beside the image come <image>.sha256 and
<image>.json, which lists every input with its digest.`,
		Example: `  mica image build --repository os.example.org --server s1.example.org --key os.example.org.pub
  mica image build -o class.iso --repository os.local --url http://10.0.2.2:8000/cvmfs/os.local --key os.local.pub --tag v2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := machine.HomeOf(a.Env)
			if err != nil {
				return err
			}
			if o.Cache == "" {
				o.Cache = filepath.Join(string(home), "cache", "packages")
			}
			if o.Output == "" {
				o.Output = filepath.Join(home.Images(), o.Command.Repository+".iso")
			}
			if o.Guest == "" {
				o.Guest = guestBeside(o.Command.Arch)
			}
			if o.Epoch, err = build.ParseEpoch(a.Env("SOURCE_DATE_EPOCH")); err != nil {
				return err
			}
			f, err := format.Named(kind)
			if err != nil {
				return err
			}
			for _, w := range words {
				o.Command.Append = append(o.Command.Append, strings.Fields(w)...)
			}
			if err := os.MkdirAll(filepath.Dir(o.Output), 0o750); err != nil {
				return fmt.Errorf("making folder for the image: %w", err)
			}
			sink, done, err := a.sink()
			if err != nil {
				return err
			}
			o.Run, o.Log, o.Progress = run.Host{Log: a.log}, a.log, sink
			m, err := build.Image(cmd.Context(), o, f)
			done()
			if err != nil {
				return err
			}
			a.log.Info("built image", "kernel", m.KernelRelease, "initramfs", progress.Size(m.Sizes.Initramfs), "sha256", m.SHA256)
			_, err = fmt.Fprintln(a.Out, o.Output)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Output, "output", "o", "", "image to write (default: <repository>.iso among mica's images)")
	f.StringVar(&kind, "format", "iso", "form of the image")
	f.StringVar((*string)(&o.Command.Arch), "arch", string(image.X86), "architecture of the machines: x86_64 or aarch64, which starts by UEFI only")
	f.StringVar(&o.Command.Repository, "repository", "", "fully qualified name of the repository")
	f.StringSliceVar(&o.Command.Servers, "server", nil, "host name of a server of the repository; may be repeated")
	f.StringSliceVar(&o.Command.URLs, "url", nil, "base URL of the repository instead of a server; may be repeated")
	f.StringSliceVar(&o.Command.CDN, "cdn", nil, "host name of a content delivery network for the repository; may be repeated")
	f.StringSliceVar(&o.Keys, "key", nil, "master public key of the repository, a PEM file; may be repeated")
	f.StringVar(&o.Command.Path, "path", "", "folder of the operating system in the repository (default: its root)")
	f.StringVar(&o.Command.Tag, "tag", "", "named snapshot to start from (default: the newest)")
	f.StringVar(&o.Command.Proxy, "proxy", "", "proxies for the repository, as CVMFS_HTTP_PROXY has them")
	f.StringSliceVar(&words, "append", nil, "further words for the kernel's command line")
	f.StringVar(&o.Guest, "guest", "", "guest binary (default: mica-guest beside mica, with -aarch64 for that)")
	f.StringVar(&o.Kernel, "kernel-package", "", "Debian package of the kernel (default: the standard one)")
	f.StringSliceVar(&o.Modules, "module", nil, "kernel module to add to the boot set; may be repeated")
	f.StringVar((*string)(&o.Compression), "compression", "", "how the initramfs is packed: xz, for x86_64 only, or zstd (default: xz if possible)")
	f.BoolVar(&o.CAs, "certificates", false, "include Debian's certificate authorities, for https servers")
	f.StringVar(&o.Cache, "cache", "", "folder for packages (default: in mica's home)")
	f.BoolVar(&o.Refresh, "refresh", false, "look for newer packages even if the cache has some")
	return cmd
}

// guestBeside is where the guest binary lies when nobody says otherwise.
func guestBeside(a image.Arch) string {
	name := "mica-guest"
	if a.Or() != image.X86 {
		name += "-" + string(a)
	}
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	return filepath.Join(filepath.Dir(exe), name)
}

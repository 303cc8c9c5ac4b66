package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/micavm/mica/cvmfs"
	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/image"
	"github.com/micavm/mica/internal/image/build/packages"
	"github.com/micavm/mica/internal/image/cpio"
	"github.com/micavm/mica/internal/image/format"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/progress"
	"github.com/micavm/mica/internal/version"
)

// Image builds the image and writes it, its digest and its manifest. The image
// appears last and whole, or not at all.
func Image(ctx context.Context, o Options, f format.Format) (image.Manifest, error) {
	b, err := newBuilder(o)
	if err != nil {
		return image.Manifest{}, err
	}
	tree, m, err := b.tree(ctx)
	if err != nil {
		return m, fmt.Errorf("building image: %w", err)
	}
	m.Format = f.Name
	if err := b.write(ctx, f, tree, &m); err != nil {
		return m, fmt.Errorf("writing image %s: %w", o.Output, err)
	}
	return m, nil
}

// builder is one build.
type builder struct {
	o      Options
	target target
	cache  packages.Cache
	log    *slog.Logger
	sink   progress.Sink

	packer packer // with compression xz
}

const workID = "image"

func newBuilder(o Options) (*builder, error) {
	if err := o.Command.Arch.Check(); err != nil {
		return nil, err
	}
	t := targetOf(o.Command.Arch)
	if o.Kernel == "" {
		o.Kernel = t.kernel
	}
	if o.Compression == "" {
		o.Compression = t.compression
	}
	if o.Epoch.IsZero() {
		o.Epoch = DefaultEpoch
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(checkRepository(o), t.check(o.Compression)); err != nil {
		return nil, err
	}
	return &builder{
		o: o, target: t, log: o.Log, sink: progress.Or(o.Progress),
		cache: packages.Cache{Dir: o.Cache, Architecture: t.debian, Run: o.Run, Log: o.Log, Progress: o.Progress},
	}, nil
}

func checkRepository(o Options) error {
	c := o.Command
	switch {
	case c.Repository == "" || c.Repository != filepath.Base(c.Repository) || strings.HasPrefix(c.Repository, "."):
		return fail.New(fail.Usage, "repository name %q", c.Repository).Hint("give the fully qualified name, such as os.example.org")
	case len(c.Servers) == 0 && len(c.URLs) == 0:
		return fail.New(fail.Usage, "no server for repository %q", c.Repository).Hint("name one with --server HOST or --url URL")
	case len(c.Servers) > 0 && len(c.URLs) > 0:
		return fail.New(fail.Usage, "servers are given both by host and by URL").Hint("use either --server or --url")
	case len(o.Keys) == 0:
		return fail.New(fail.Usage, "no key to verify repository %q with", c.Repository).Hint("name the master public key with --key FILE.pub")
	}
	return nil
}

func (b *builder) phase(format string, args ...any) {
	b.sink.Emit(progress.Event{ID: workID, Phase: fmt.Sprintf(format, args...)})
}

// tree gathers everything and makes the boot tree.
func (b *builder) tree(ctx context.Context) (image.Tree, image.Manifest, error) {
	m := image.Manifest{
		Schema: 1, Arch: b.o.Command.Arch.Or(), Version: version.Number, BuildTime: b.o.Epoch.Unix(), Compression: string(b.o.Compression),
		Repository: image.Repository{
			Name: b.o.Command.Repository, Servers: b.o.Command.Servers, URLs: b.o.Command.URLs, Path: b.o.Command.Path, Tag: b.o.Command.Tag,
		},
		CommandLine: map[image.Entry]string{},
	}
	for _, e := range []image.Entry{image.Normal, image.Debug} {
		words, err := b.o.Command.Words(image.Platforms()[0], e)
		if err != nil {
			return image.Tree{}, m, err
		}
		m.CommandLine[e] = strings.Join(words, " ")
	}
	disk := ramdisk{epoch: b.o.Epoch.Unix(), keyFolder: b.o.Command.Repository}
	if err := b.local(&disk, &m); err != nil {
		return image.Tree{}, m, err
	}
	parts, err := b.gather(ctx, &disk)
	if err != nil {
		return image.Tree{}, m, err
	}
	for _, p := range parts.used {
		m.Inputs = append(m.Inputs, image.Input{Kind: "package", Name: p.Name, Version: p.Version, SHA256: p.SHA256})
	}
	m.KernelRelease = disk.kernel.release
	m.Title = "Mica " + version.Number
	disk.version = fmt.Sprintf("%s-%s", version.Number, disk.kernel.release)
	for _, mod := range disk.kernel.modules.Modules {
		m.Modules = append(m.Modules, mod.Name())
		m.Sizes.Modules += int64(len(mod.Data))
	}
	for _, name := range disk.kernel.modules.Missing {
		b.log.Info("kernel has no such module", "module", name)
	}
	packed, plain, err := b.pack(ctx, disk)
	if err != nil {
		return image.Tree{}, m, err
	}
	m.Sizes.Kernel, m.Sizes.Initramfs, m.Sizes.Plain = int64(len(disk.kernel.image)), int64(len(packed)), plain
	m.Sizes.Guest = int64(len(disk.guest))
	m.Sizes.Tools = int64(len(disk.busybox)) + total(disk.programs) + total(disk.libraries)
	for _, l := range slices.Concat(parts.loader, parts.efi) {
		m.Sizes.Loader += l.Size
	}
	tag := b.o.Command.Tag
	if tag == "" {
		tag = "HEAD"
	}
	return image.Tree{
		Title: m.Title, Version: fmt.Sprintf("%s at %s, Mica %s", b.o.Command.Repository, tag, disk.version),
		Time: b.o.Epoch, Command: b.o.Command,
		Kernel: iso9660.Bytes(image.KernelPath, 0o444, disk.kernel.image), Initramfs: iso9660.Bytes(image.InitramfsPath, 0o444, packed),
		Loader: parts.loader, HybridMBR: parts.mbr, EFI: parts.efi,
	}, m, nil
}

// local reads what does not come from packages: the guest binary and the keys.
func (b *builder) local(disk *ramdisk, m *image.Manifest) error {
	var err error
	if disk.guest, err = os.ReadFile(b.o.Guest); errors.Is(err, fs.ErrNotExist) {
		return fail.New(fail.NotFound, "no guest binary at %s", b.o.Guest).Hint("name mica-guest with --guest, or put it beside mica")
	} else if err != nil {
		return fmt.Errorf("reading guest binary: %w", err)
	}
	p, err := readProgram(disk.guest)
	switch {
	case err != nil:
		return fail.New(fail.Usage, "guest binary %s: %w", b.o.Guest, err)
	case p.machine != b.target.machine:
		return fail.New(fail.Usage, "guest binary %s is for %v, the image for %s", b.o.Guest, p.machine, b.o.Command.Arch.Or()).
			Hint("build it with GOARCH=%s", b.target.debian)
	case p.interp != "" || len(p.needed) > 0:
		return fail.New(fail.Usage, "guest binary %s needs shared libraries", b.o.Guest).Hint("build it with CGO_ENABLED=0")
	}
	m.Inputs = append(m.Inputs, image.Input{Kind: "guest", Name: "mica-guest", Version: version.Number, SHA256: digest(disk.guest)})
	disk.keys = map[string][]byte{}
	for _, name := range b.o.Keys {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return fail.New(fail.NotFound, "no key at %s", name)
		} else if err != nil {
			return fmt.Errorf("reading key: %w", err)
		}
		if _, err := cvmfs.ParsePublicKeys(text); err != nil {
			return fail.New(fail.Usage, "key %s: %w", name, err).Hint("it must be a public RSA key in PEM form")
		}
		base := filepath.Base(name)
		if !strings.HasSuffix(base, ".pub") {
			base += ".pub"
		}
		if _, twice := disk.keys[base]; twice {
			return fail.New(fail.Usage, "two keys are called %s", base).Hint("rename one of them")
		}
		disk.keys[base] = text
		m.Inputs = append(m.Inputs, image.Input{Kind: "key", Name: base, SHA256: digest(text)})
	}
	return nil
}

// parts are what packages give besides the initramfs.
type parts struct {
	loader []iso9660.File
	efi    []iso9660.File
	mbr    []byte
	used   []packages.Package
}

// The packages an image always takes from.
const (
	busyboxPackage  = "busybox-static"
	toolsPackage    = "e2fsprogs"
	isolinuxPackage = "isolinux"
	syslinuxPackage = "syslinux-common"
	caPackage       = "ca-certificates"
	xzPackage       = "xz-utils"
	uefiPackage     = "systemd-boot-efi"
)

// gather gets the packages, from the cache if it can, and unpacks them.
func (b *builder) gather(ctx context.Context, disk *ramdisk) (parts, error) {
	request := []string{b.o.Kernel, busyboxPackage, toolsPackage, uefiPackage}
	if b.target.bios {
		request = append(request, isolinuxPackage, syslinuxPackage)
	}
	if b.o.CAs {
		request = append(request, caPackage)
	}
	programs := []string{toolsPackage}
	if b.o.Compression == XZ {
		request, programs = append(request, xzPackage), append(programs, xzPackage)
	}
	if !b.o.Refresh {
		b.phase("verifying packages")
		locked, err := b.cache.Locked(request)
		if err == nil {
			return b.unpack(ctx, disk, locked)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return parts{}, err
		}
	}
	b.phase("resolving packages")
	if err := b.cache.Update(ctx, b.o.Refresh); err != nil {
		return parts{}, err
	}
	k, err := b.cache.Kernel(ctx, b.o.Kernel)
	if err != nil {
		return parts{}, err
	}
	names := append([]string{k}, request[1:]...)
	fetched, err := b.cache.Fetch(ctx, names)
	if err != nil {
		return parts{}, err
	}
	// Libraries lie one or two steps from the programs; four is far enough.
	ask := programs
	for range 4 {
		var next []string
		for _, name := range ask {
			deps, err := b.cache.Depends(ctx, name)
			if err != nil {
				return parts{}, err
			}
			for _, d := range deps {
				if strings.HasPrefix(d, "lib") && !slices.ContainsFunc(fetched, func(p packages.Package) bool { return p.Name == d }) && !slices.Contains(next, d) {
					next = append(next, d)
				}
			}
		}
		if len(next) > 0 {
			more, err := b.cache.Fetch(ctx, next)
			if err != nil {
				return parts{}, err
			}
			fetched = append(fetched, more...)
		}
		all, err := b.unpack(ctx, disk, fetched)
		var absent missing
		if errors.As(err, &absent) && len(next) > 0 {
			ask = next
			continue
		}
		if err != nil {
			return parts{}, err
		}
		return all, b.cache.Lock(request, all.used)
	}
	return parts{}, fmt.Errorf("libraries of %s are too far away", strings.Join(programs, " and "))
}

// unpack takes what an image needs out of the packages.
func (b *builder) unpack(ctx context.Context, disk *ramdisk, pkgs []packages.Package) (parts, error) {
	sources, err := b.unpackSources(ctx, pkgs)
	if err != nil {
		return parts{}, err
	}
	all := parts{}
	take := func(name string) (packages.Package, bool) {
		i := slices.IndexFunc(pkgs, func(p packages.Package) bool { return p.Name == name })
		if i < 0 {
			return packages.Package{}, false
		}
		all.used = append(all.used, pkgs[i])
		return pkgs[i], true
	}
	type step struct {
		name string
		use  func(path string) error
	}
	steps := []step{
		{toolsPackage, func(p string) error { return disk.takeTools(ctx, p) }},
		{busyboxPackage, func(p string) error { return disk.takeBusybox(ctx, p) }},
		{uefiPackage, func(p string) error { return all.takeSystemdBoot(ctx, p, b.target) }},
	}
	if b.target.bios {
		steps = append(steps,
			step{isolinuxPackage, func(p string) error { return all.takeIsolinux(ctx, p) }},
			step{syslinuxPackage, func(p string) error { return all.takeSyslinux(ctx, p) }})
	}
	if b.o.CAs {
		steps = append(steps, step{caPackage, func(p string) error { return disk.takeCAs(ctx, p) }})
	}
	if b.o.Compression == XZ {
		steps = append(steps, step{xzPackage, func(p string) error { return b.packer.take(ctx, p) }})
	}
	for _, step := range steps {
		pkg, ok := take(step.name)
		if !ok {
			return all, fmt.Errorf("package %s is not there", step.name)
		}
		if err := step.use(b.cache.Path(pkg)); err != nil {
			return all, err
		}
	}
	libraries, used, err := closure(disk.programs, sources)
	if err != nil {
		return all, err
	}
	disk.libraries = libraries
	if b.o.Compression == XZ {
		more, from, err := closure(map[string][]byte{"xz": b.packer.program}, sources)
		if err != nil {
			return all, err
		}
		b.packer.libraries = more
		used = append(used, from...)
	}
	for _, p := range used {
		if !slices.Contains(all.used, p) {
			all.used = append(all.used, p)
		}
	}
	i := slices.IndexFunc(pkgs, func(p packages.Package) bool { return strings.HasPrefix(p.Name, "linux-image-") })
	if i < 0 {
		return all, errors.New("no kernel package is there")
	}
	b.phase("unpacking %s", pkgs[i].Name)
	all.used = append(all.used, pkgs[i])
	disk.kernel, err = memo{b.o.Cache}.kernel(ctx, b.cache.Path(pkgs[i]), pkgs[i].SHA256, append(slices.Clone(bootSet), b.o.Modules...))
	if err != nil {
		return all, err
	}
	slices.SortFunc(all.used, func(a, b packages.Package) int { return strings.Compare(a.Name, b.Name) })
	for _, name := range b.o.Modules {
		if slices.Contains(disk.kernel.modules.Missing, name) {
			return all, fail.New(fail.NotFound, "kernel %s has no module %q", disk.kernel.release, name)
		}
	}
	return all, nil
}

// pack writes the initramfs, as two archives one behind the other, which the
// kernel unpacks in turn: programs, whose jumps a filter makes alike, and
// modules, whose jumps are not set yet. Together they would be larger by 0.4 MB.
func (b *builder) pack(ctx context.Context, disk ramdisk) (packed []byte, plain int64, err error) {
	programs, mods := disk.entries()
	for _, part := range []struct {
		entries []cpio.Entry
		code    bool
	}{{programs, true}, {mods, false}} {
		var archive bytes.Buffer
		if err := cpio.Write(&archive, part.entries, b.o.Epoch); err != nil {
			return nil, 0, err
		}
		one, err := b.packOne(ctx, archive.Bytes(), part.code)
		if err != nil {
			return nil, 0, fmt.Errorf("packing initramfs: %w", err)
		}
		plain += int64(archive.Len())
		for len(packed)%4 != 0 { // the kernel looks for the next archive there
			packed = append(packed, 0)
		}
		packed = append(packed, one...)
	}
	return packed, plain, nil
}

// packOne packs one archive. The modules stay the same for many builds, so their
// packed form is kept.
func (b *builder) packOne(ctx context.Context, archive []byte, code bool) ([]byte, error) {
	if code {
		return b.compress(ctx, archive, true)
	}
	parts := [][]byte{[]byte(b.o.Compression), []byte(version.Number), archive, b.packer.program}
	for _, name := range sortedKeys(b.packer.libraries) {
		parts = append(parts, b.packer.libraries[name])
	}
	name := key("packed", parts...)
	if packed, ok := (memo{b.o.Cache}).load(name); ok {
		return packed, nil
	}
	packed, err := b.compress(ctx, archive, false)
	if err != nil {
		return nil, err
	}
	return packed, memo{b.o.Cache}.save(name, packed)
}

// write writes digest, manifest and image, the image last.
func (b *builder) write(ctx context.Context, f format.Format, tree image.Tree, m *image.Manifest) error {
	b.phase("writing %s", filepath.Base(b.o.Output))
	out, err := atomicfile.Create(b.o.Output, 0o644)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // Commit reports
	h := sha256.New()
	n := &count{}
	if err := f.Write(ctx, io.MultiWriter(out, h, n), tree, image.Platforms()[0]); err != nil {
		return err
	}
	m.Size, m.SHA256 = n.n, hex.EncodeToString(h.Sum(nil))
	text, err := m.Encode()
	if err != nil {
		return err
	}
	// Compat: cernvm-micro Makefile: the file holds the digest and nothing else.
	if err := atomicfile.Write(b.o.Output+".sha256", []byte(m.SHA256+"\n"), 0o644); err != nil {
		return err
	}
	if err := atomicfile.Write(b.o.Output+".json", text, 0o644); err != nil {
		return err
	}
	if err := out.Commit(); err != nil {
		return err
	}
	b.sink.Emit(progress.Event{ID: workID, Phase: "built " + b.o.Output, Done: m.Size, Unit: progress.Bytes, Finished: true})
	return nil
}

type count struct{ n int64 }

func (c *count) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

package launch

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/download"
	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/machine"
	"github.com/micavm/mica/internal/progress"
)

const (
	// defaultServer is where released images are.
	//
	// Differs: the original asks the same server over plain HTTP, and does not
	// verify TLS where it uses it.
	defaultServer = "https://cernvm.cern.ch/releases"

	maxVersion = 64
	maxImage   = 1 << 40
)

func (s *session) fetcher() *download.Client {
	return &download.Client{Log: s.Log, Progress: s.Progress, Agent: "CernVM-Launch/" + s.Version}
}

// checkVersion says whether text can be an image's version. It becomes part of
// URLs and of file names.
//
// Differs: the original checks the answer of the server only, not what the user
// wrote.
func checkVersion(text string) error {
	if text == "" || len(text) > maxVersion || strings.Trim(text, "0123456789.-ab") != "" || strings.Contains(text, "..") {
		return fail.New(fail.Usage, "%.80q is no version of CernVM", text).Hint("versions look like 2.7-7; 'latest' is the newest")
	}
	return nil
}

// server is the address below which images are.
func (s *session) server(v settings) string {
	for _, address := range []string{s.Getenv(envServer), v[keyServer]} {
		if address != "" {
			return strings.TrimRight(address, "/")
		}
	}
	return defaultServer
}

// resolveVersion turns "latest" into a version, once for a machine.
func (s *session) resolveVersion(ctx context.Context, v settings) error {
	if v[keyVersion] != "latest" {
		return checkVersion(v[keyVersion])
	}
	progress.Or(s.Progress).Emit(progress.Event{ID: "version", Phase: "asking for the latest"})
	const short = 4 << 10
	answer, err := s.fetcher().Text(ctx, s.server(v)+"/latest", short)
	if err != nil {
		return fail.New(fail.ClassOf(err), "Unable to find out the latest version: %w", err).
			Hint("name one: cernvmVersion=VERSION in the configuration").
			Hint("or another server: %s=URL in the configuration", keyServer)
	}
	version := strings.Join(strings.Fields(string(answer)), "")
	if err := checkVersion(version); err != nil {
		return fail.New(fail.Unverified, "The latest version is not validated: %w", err)
	}
	v[keyVersion] = version
	return nil
}

// cached is where the cache keeps what is at a URL.
//
// Compat: the names are those of libcernvm: src/Utilities.cpp.
//
// Differs: the original cuts one letter too many before a '?' or '#'.
func (s *session) cached(address string) string {
	sum := sha256.Sum256([]byte(address))
	return filepath.Join(s.cacheDir(), hex.EncodeToString(sum[:])+"-"+download.BaseName(address))
}

// microImage fetches the boot image of a version: an ISO image that loads the
// system from the network.
func (s *session) microImage(ctx context.Context, v settings) (machine.Image, error) {
	if err := s.resolveVersion(ctx, v); err != nil {
		return machine.Image{}, err
	}
	flavor, arch := v[keyFlavor], "i386"
	if flavor == "" {
		flavor = "prod"
	}
	if strings.Trim(flavor, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return machine.Image{}, fail.New(fail.Usage, "Invalid value of %s: %q", keyFlavor, flavor)
	}
	if flags, _ := v.number(keyFlags, 0, allFlags); flags&flag64Bit != 0 {
		arch = "x86_64"
	}
	version := v[keyVersion]
	address := fmt.Sprintf("%s/ucernvm-images.%s.cernvm.%s/ucernvm-%s.%s.cernvm.%s.iso", s.server(v), version, arch, flavor, version, arch)
	path := s.cached(address)
	client := s.fetcher()
	sum, err := client.Digest(ctx, address+".sha256", path+".sha256")
	if err != nil {
		if fail.Is(err, fail.NotFound) {
			return machine.Image{}, fail.New(fail.NotFound, "There is no image of version %s: %w", version, err).Hint("see %s for the versions there are", s.server(v))
		}
		return machine.Image{}, fmt.Errorf("Unable to get the digest of the image: %w", err) //nolint:staticcheck // begins as the original's line does
	}
	got, err := client.File(ctx, download.Request{URL: address, Path: path, SHA256: sum, Name: download.BaseName(address), Max: maxImage})
	if fail.Is(err, fail.Unverified) { // the kept digest may be of an image that has been replaced
		_ = os.Remove(path + ".sha256")
	}
	if err != nil {
		return machine.Image{}, fmt.Errorf("Unable to get the image: %w", err) //nolint:staticcheck // as above
	}
	return machine.Image{Path: path, SHA256: got.SHA256, Size: got.Size, Verified: true}, nil
}

// diskByURL fetches a disk image; one whose name has ".gz" is unpacked.
//
// Differs: the digest is that of the compressed file, as it always was, but what
// was unpacked is verified as well each time it is used.
func (s *session) diskByURL(ctx context.Context, v settings) (machine.Image, error) {
	address, sum := v[keyDiskURL], strings.ToLower(v[keyDiskSum])
	if download.BaseName(address) == "" {
		return machine.Image{}, fail.New(fail.Usage, "Invalid value of %s: %q names no file", keyDiskURL, address)
	}
	path := s.cached(address)
	at := strings.Index(filepath.Base(path), ".gz")
	if at < 0 {
		got, err := s.fetcher().File(ctx, download.Request{URL: address, Path: path, SHA256: sum, Name: download.BaseName(address), Max: maxImage})
		if err != nil {
			return machine.Image{}, fmt.Errorf("Unable to get the disk: %w", err) //nolint:staticcheck // begins as the original's line does
		}
		return machine.Image{Path: path, SHA256: got.SHA256, Size: got.Size, Verified: true}, nil
	}
	plain := filepath.Join(filepath.Dir(path), filepath.Base(path)[:at])
	l, err := atomicfile.Acquire(ctx, plain+lockSuffix) // or one command would remove what another one unpacks
	if err != nil {
		return machine.Image{}, fmt.Errorf("waiting for the disk: %w", err)
	}
	defer l.Unlock() //nolint:errcheck // it ends with the process at the latest
	if image, ok := s.unpacked(ctx, plain, sum); ok {
		return image, nil
	}
	if _, err := s.fetcher().File(ctx, download.Request{URL: address, Path: path, SHA256: sum, Name: download.BaseName(address), Max: maxImage}); err != nil {
		return machine.Image{}, fmt.Errorf("Unable to get the disk: %w", err) //nolint:staticcheck // as above
	}
	image, err := s.unpack(ctx, path, plain, sum)
	if err == nil {
		err = os.Remove(path)
	}
	return image, err
}

// unpacked returns a disk image that was unpacked before, if it still is what
// came out of the file with that digest.
func (s *session) unpacked(ctx context.Context, plain, sum string) (machine.Image, bool) {
	note, err := os.ReadFile(plain + ".sha256")
	if err != nil {
		return machine.Image{}, false
	}
	own, from, _ := strings.Cut(strings.TrimSpace(string(note)), " ")
	image, err := digestOf(ctx, plain)
	image.Verified = err == nil && from == sum && image.SHA256 == own
	return image, image.Verified
}

func (s *session) unpack(ctx context.Context, from, to, sum string) (machine.Image, error) {
	bad := func(err error) (machine.Image, error) {
		return machine.Image{}, fmt.Errorf("unpacking %s: %w", from, err)
	}
	progress.Or(s.Progress).Emit(progress.Event{ID: "disk image", Phase: "unpacking"})
	src, err := os.Open(from)
	if err != nil {
		return bad(err)
	}
	defer src.Close()
	z, err := gzip.NewReader(reader{ctx, src})
	if err != nil {
		return bad(err)
	}
	dst, err := atomicfile.Create(to, 0o600)
	if err != nil {
		return bad(err)
	}
	defer dst.Close() //nolint:errcheck // Commit reports
	h := sha256.New()
	size, err := io.Copy(io.MultiWriter(dst, h), io.LimitReader(z, maxImage+1))
	if err == nil && size > maxImage {
		err = fmt.Errorf("it has more than %d bytes", int64(maxImage))
	}
	if err != nil {
		return bad(err)
	}
	if err := dst.Commit(); err != nil {
		return bad(err)
	}
	image := machine.Image{Path: to, SHA256: hex.EncodeToString(h.Sum(nil)), Size: size, Verified: true}
	return image, atomicfile.Write(to+".sha256", fmt.Appendf(nil, "%s %s\n", image.SHA256, sum), 0o600)
}

// reader stops reading when ctx is cancelled.
type reader struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// digestOf describes a file of this computer.
func digestOf(ctx context.Context, path string) (machine.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return machine.Image{}, err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, reader{ctx, f})
	return machine.Image{Path: path, SHA256: hex.EncodeToString(h.Sum(nil)), Size: size}, err
}

// bootImage finds out what a new machine boots from, and puts it into the
// machine's folder under the name its driver looks for.
func (s *session) bootImage(ctx context.Context, r *record) error {
	flags, err := r.values.number(keyFlags, 0, allFlags)
	if err != nil {
		return err
	}
	var image machine.Image
	switch {
	case flags&flagOVA != 0:
		return s.unpackOVA(ctx, r)
	case flags&flagDiskLocal != 0:
		image, err = digestOf(ctx, r.values[keyDiskPath])
	case flags&flagISO != 0:
		image, err = digestOf(ctx, r.values[keyISO])
	case flags&flagDiskURL != 0:
		image, err = s.diskByURL(ctx, r.values)
	default:
		image, err = s.microImage(ctx, r.values)
	}
	if err != nil {
		return err
	}
	if flags&(flagDiskLocal|flagDiskURL) != 0 {
		if image.Format, err = machine.DiskFormat(image.Path); err != nil {
			return err
		}
		r.values[localDisk] = image.Path
	} else {
		r.values[localISO] = image.Path
	}
	r.setImage(image)
	return adopt(ctx, image, r.spec().ImagePath())
}

func (r *record) setImage(image machine.Image) {
	r.values[micaImage], r.values[micaDigest], r.values[micaSize] = image.Path, image.SHA256, strconv.FormatInt(image.Size, 10)
	delete(r.values, micaVerified)
	if image.Verified {
		r.values[micaVerified] = "1"
	}
	if image.Format != "" {
		r.values[micaFormat] = image.Format
	}
}

// adopt gives the machine its image. One that is only read is a hard link where
// that is possible; a disk is always a copy, because the user's own must not
// change whatever becomes of the machine's.
func adopt(ctx context.Context, image machine.Image, path string) error {
	if image.Format == "" {
		if err := os.Link(image.Path, path); err == nil || errors.Is(err, fs.ErrExist) {
			return nil
		}
	}
	src, err := os.Open(image.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := atomicfile.Create(path, 0o400)
	if err != nil {
		return err
	}
	defer dst.Close() //nolint:errcheck // Commit reports
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(dst, h), reader{ctx, src}); err != nil {
		return fmt.Errorf("copying %s: %w", image.Path, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != image.SHA256 {
		return fail.New(fail.Unverified, "%s changed while it was read", image.Path).Hint("try again when it is complete")
	}
	return dst.Commit()
}

package plugins

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

const (
	siteContext   = "/var/lib/hepix/context"
	siteDone      = "/etc/contextdone"
	siteAddress   = "169.254.169.254"
	maxSiteFiles  = 1000
	maxSiteUnpack = 64 << 20
)

// Compat: amiconfig: hepix/commands/site_context: the archive goes to
// /var/lib/hepix/context, init.sh and context.sh are sourced and prolog.sh started
// once; epilog.sh at every boot, when everything else is done.
//
// Differs: off unless named, where the original asks the network at every first
// boot; requiressl is believed, where a typing error makes the original use https
// without looking at the certificate, always; an answer other than success is not
// unpacked; the archive cannot write elsewhere.
func hepix() Plugin {
	return Plugin{
		Name: "hepix", Does: "fetches a context archive of the site and runs its scripts",
		Keys: []Key{
			{Name: "context", Kind: Text, Meaning: "name of the archive", Default: "default.tgz"},
			{Name: "requiressl", Kind: Bool, Meaning: "fetch it by https, with a certificate that holds", Default: "no"},
		},
		Apply: func(ctx context.Context, c *Call) error {
			name := c.Section.Get("context", "default.tgz")
			if !repositoryName.MatchString(name) {
				return fmt.Errorf("context: %q is not the name of an archive", name)
			}
			secure, err := truth(c.Section.Get("requiressl", "no"))
			if err != nil {
				return fmt.Errorf("requiressl: %w", err)
			}
			if c.Root.Exists(siteDone) {
				return nil
			}
			scheme := "http"
			if secure {
				scheme = "https"
			}
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+siteAddress+"/context/"+name, nil)
			if err != nil {
				return fmt.Errorf("context: %w", err)
			}
			archive, err := c.Root.HTTP(ctx, request)
			if c.Root.Pretend() && errors.Is(err, guest.ErrOffline) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := unpackSite(c.Root, archive); err != nil {
				return fmt.Errorf("unpacking %s: %w", name, err)
			}
			if err := siteScript(ctx, c.Root, "prolog.sh"); err != nil {
				return err
			}
			return c.Root.WriteFile(siteDone, nil, guest.Attr{})
		},
		Last: func(ctx context.Context, c *Call) error { return siteScript(ctx, c.Root, "epilog.sh") },
	}
}

// siteScript runs one script of the site's context, if it is there.
func siteScript(ctx context.Context, root *guest.Root, name string) error {
	if !root.Exists(path.Join(siteContext, name)) {
		return nil
	}
	const text = `cd "$1" || exit 1
for f in init.sh context.sh; do
	[ -r "./$f" ] && . "./$f"
done
exec sh "./$2" start`
	_, err := root.Run(ctx, "/bin/sh", "-c", text, "amiconfig.sh", siteContext, name)
	if err != nil {
		return fmt.Errorf("%s of the site's context: %w", name, err)
	}
	return nil
}

// unpackSite unpacks a tar archive, compressed or not, below siteContext: files and
// directories only.
func unpackSite(root *guest.Root, archive []byte) error {
	var src io.Reader = bytes.NewReader(archive)
	if bytes.HasPrefix(archive, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(src)
		if err != nil {
			return err
		}
		src = z
	}
	t := tar.NewReader(io.LimitReader(src, maxSiteUnpack))
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == maxSiteFiles {
			return fmt.Errorf("more than %d files", maxSiteFiles)
		}
		if path.IsAbs(h.Name) || strings.Contains("/"+h.Name+"/", "/../") {
			return fmt.Errorf("%q would be written elsewhere", h.Name)
		}
		name := path.Join(siteContext, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, guest.Attr{Mode: 0o700})
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(t); err == nil {
				err = root.WriteFile(name, data, guest.Attr{Mode: 0o700, Secret: true})
			}
		default:
			err = fmt.Errorf("%q is neither a file nor a directory", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

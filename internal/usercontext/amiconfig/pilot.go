package amiconfig

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
)

// The account, the service and the file of a glideinWMS pilot.
const (
	pilotUser    = "glidein_pilot"
	pilotService = "glideinwms-pilot"
	pilotData    = "/glideinwms-user-data"
)

var siteName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// pilot readies the system for the pilot whose data the context is.
//
// Compat: cernvm-micro: scripts.d/06context and cernvm-config:
// .ucernvm_bootstrap: the raw data, the pilot's shell and service, the site.
func pilot(ctx context.Context, root *guest.Root, g usercontext.Glidein, raw []byte) error {
	_, ok, err := root.Account(pilotUser)
	if err != nil {
		return err
	}
	if !ok && !root.Pretend() {
		return fmt.Errorf("the context is a glideinWMS pilot's, but this operating system has no user %s", pilotUser)
	}
	var errs []error
	errs = append(errs, root.WriteFile(pilotData, raw, guest.Attr{Mode: 0o600, Secret: true}))
	if ok {
		_, _, err := root.EnsureAccount(ctx, guest.NewAccount{Name: pilotUser, Shell: "/bin/bash"})
		errs = append(errs, err)
	}
	switch {
	case g.Site == "":
	case !siteName.MatchString(g.Site):
		errs = append(errs, fmt.Errorf("%q is not the name of a CMS site", g.Site))
	default:
		errs = append(errs, root.Edit("/etc/cvmfs/site.conf", guest.Attr{Mode: 0o644}, func(lines []string) []string {
			return guest.SetLine(lines, "CMS_LOCAL_SITE=", "CMS_LOCAL_SITE="+g.Site)
		}))
	}
	errs = append(errs, root.Service(ctx, []string{pilotService}, guest.Enable, guest.Start))
	return errors.Join(errs...)
}

package amiconfig

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestPilot(t *testing.T) {
	data := base64.StdEncoding.EncodeToString([]byte("proxy=x\nargs=-param_CERNVM_CMS_SITE T2_XY -param_CERNVM_CMS_PROXY http.colon,//h\n")) + "#### -cluster 12 -subcluster 3####"
	dir := tree(t, map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nglidein_pilot:x:500:500::/home/pilot:/sbin/nologin\n"})
	rep := apply(t, open(t, dir, nil), Input{UserData: []byte(data)}, Options{})
	if got := read(t, dir, "etc/passwd"); !strings.Contains(got, "glidein_pilot:x:500:500::/home/pilot:/bin/bash\n") {
		t.Errorf("passwd = %q, want a shell for the pilot", got)
	}
	if got := read(t, dir, "etc/cvmfs/site.conf"); got != "CMS_LOCAL_SITE=T2_XY\n" {
		t.Errorf("site.conf = %q", got)
	}
	if got := read(t, dir, "glideinwms-user-data"); got != data {
		t.Errorf("data = %q, want it as it came", got)
	}
	if !warned(rep, "glideinwms-pilot") {
		t.Errorf("warnings %v, want that there is no such service", rep.Warnings)
	}
	rep = apply(t, open(t, tree(t, nil), nil), Input{UserData: []byte(data)}, Options{})
	if !warned(rep, "glidein_pilot") {
		t.Errorf("warnings %v, want that there is no such user", rep.Warnings)
	}
}

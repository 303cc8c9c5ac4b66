package lint

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/delivery"
)

// Media judges the media that contexts are on. It remembers what it saw, for one
// identifier must not be on two media with different contexts. It is not safe for
// concurrent use; the zero value is ready.
type Media struct {
	seen map[string]seenMedium // by identifier
}

type seenMedium struct {
	file   string
	digest string
}

// sharedIdentity is on every medium of CernVM-Launch.
//
// Compat: libcernvm src/contextiso.cpp has it as a constant.
const sharedIdentity = "83679162-1378-4288-a2d4-70e13ec132aa"

// Check returns what is wrong with a medium, as delivery.Read found it: where that
// failed although the kind is known, err is why. Findings have no line.
func (m *Media) Check(file string, f delivery.Found, err error, ignore []string) []usercontext.Problem {
	k := &mediumChecker{medium: f, files: map[string]bool{}}
	for _, one := range f.Files {
		k.files[strings.ToLower(one.Path)] = true
	}
	if err != nil {
		k.add(failure, "", "its readers pass it over: %v", err)
	}
	k.checkLabel()
	k.checkFiles()
	k.checkIdentity(err)
	if f.Instance != "" && f.Instance != sharedIdentity {
		sum := sha256.Sum256(f.UserData)
		this := seenMedium{file, hex.EncodeToString(sum[:])}
		if before, ok := m.seen[f.Instance]; ok && before.digest != this.digest {
			k.add(failure, "give each context an identifier of its own; without --instance-id it follows from the content",
				"instance id %s is that of %s, too, which has another context", f.Instance, before.file)
		}
		if m.seen == nil {
			m.seen = map[string]seenMedium{}
		}
		m.seen[f.Instance] = this
	}
	return slices.DeleteFunc(k.problems, func(p usercontext.Problem) bool { return slices.Contains(ignore, p.Rule) })
}

type mediumChecker struct {
	medium   delivery.Found
	files    map[string]bool // by lower-case path
	problems []usercontext.Problem
}

func (k *mediumChecker) add(s usercontext.Severity, remedy, format string, args ...any) {
	c := checker{}
	c.addAs(s, "P001", 0, 0, remedy, format, args...)
	k.problems = append(k.problems, c.found...)
}

func (k *mediumChecker) has(path string) bool { return k.files[path] }

// checkLabel compares the label with what cloud-init looks for. The boot loader
// and amiconfig do not look at it.
func (k *mediumChecker) checkLabel() {
	wanted := map[string][]string{
		"config-2": {"config-2", "CONFIG-2"}, "nocloud": {"cidata", "CIDATA"}, "opennebula": {"CONTEXT", "CDROM"}, "vsphere": {"CDROM"},
	}[k.medium.Kind]
	if len(wanted) > 0 && !slices.Contains(wanted, k.medium.Label) {
		severity := failure
		if k.medium.Kind == "config-2" || k.medium.Kind == "opennebula" || k.medium.Kind == "vsphere" {
			severity = warning // somebody else reads it all the same
		}
		k.add(severity, "label it "+wanted[0], "the label is %q, by which cloud-init does not know a %s medium", k.medium.Label, k.medium.Kind)
	}
}

// checkFiles looks for readers that find nothing, or something else.
func (k *mediumChecker) checkFiles() {
	openStack, ec2 := k.has("openstack/latest/user_data"), k.has("ec2/latest/user-data")
	switch k.medium.Kind {
	case "config-2":
		switch {
		case !openStack:
			k.add(warning, "add openstack/latest/user_data and meta_data.json", "only amiconfig of an original CernVM reads ec2/latest/user-data; boot loader and cloud-init find no context")
		case !ec2:
			k.add(warning, "add ec2/latest/user-data and meta-data.json", "amiconfig of an original CernVM finds no context: it reads ec2/latest/user-data")
		case k.medium.Differ:
			k.add(failure, "", "the contexts for boot loader and amiconfig differ: openstack/latest/user_data, ec2/latest/user-data")
		}
		if ec2 && !k.has("ec2/latest/meta-data.json") {
			k.add(warning, "add ec2/latest/meta-data.json", "amiconfig of an original CernVM passes the medium over without ec2/latest/meta-data.json")
		}
	case "floppy":
		k.add(warning, "use: mica context drive", "no guest of today reads the exchange floppy")
	}
	if k.has("context.sh") && k.medium.Kind != "opennebula" {
		k.add(warning, "make a medium for each", "there is context.sh as well: amiconfig of an original CernVM takes that, the boot loader the %s context", k.medium.Kind)
	}
}

func (k *mediumChecker) checkIdentity(err error) {
	switch {
	case err != nil:
	case k.medium.Instance == sharedIdentity:
		k.add(warning, "make the medium anew: mica context iso", "the instance id is that of every machine of CernVM-Launch: cloud-init takes another context for the one it has applied")
	case k.medium.Instance != "":
	case k.medium.Kind == "config-2" && k.has("openstack/latest/user_data"):
		k.add(failure, "add uuid to openstack/latest/meta_data.json", "there is no instance id, so cloud-init gives the medium up")
	case k.medium.Kind == "nocloud":
		k.add(failure, "add instance-id to meta-data", "there is no instance id, so cloud-init takes another context for the one it has applied")
	}
}

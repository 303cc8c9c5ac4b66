package cli_test

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/micavm/mica/internal/machine/drivertest"
	"github.com/micavm/mica/internal/tier"
)

// TestImageScripts tells stories of disk images and appliances.
func TestImageScripts(t *testing.T) {
	tier.Tool(t, "qemu-img")
	tell(t, "testdata/imagescript")
}

// bootDisk writes a raw disk whose guest says the lines of a file: bootdisk DISK TEXT.
func bootDisk() {
	text, err := os.ReadFile(os.Args[2])
	if err == nil {
		guest := drivertest.Guest{Says: strings.ReplaceAll(string(text), "\n", "\r\n"), Obeys: true}
		err = os.WriteFile(os.Args[1], drivertest.BootDisk(guest), 0o600)
	}
	complain("bootdisk", err)
}

func complain(program string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

const applianceText = `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="f" ovf:href="disk.vmdk"/></References>
<DiskSection><Disk ovf:diskId="d" ovf:fileRef="f" ovf:capacity="1048576" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<VirtualSystem ovf:id="My Appliance"><VirtualHardwareSection>
<Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
<Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>96</rasd:VirtualQuantity></Item>
<Item><rasd:HostResource>/disk/d</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
`

// makeOVA writes an appliance: makeova FILE DISK [DAMAGE]. With DAMAGE the
// manifest is of another disk.
func makeOVA() {
	disk, err := os.ReadFile(os.Args[2])
	complain("makeova", err)
	f, err := os.Create(os.Args[1])
	complain("makeova", err)
	w := tar.NewWriter(f)
	sum := sha256.Sum256(append([]byte(strings.Join(os.Args[3:], "")), disk...))
	manifest := fmt.Sprintf("SHA256(a.ovf)= %x\nSHA256(disk.vmdk)= %x\n", sha256.Sum256([]byte(applianceText)), sum)
	for _, e := range [][2]string{{"a.ovf", applianceText}, {"a.mf", manifest}, {"disk.vmdk", string(disk)}} {
		complain("makeova", w.WriteHeader(&tar.Header{Name: e[0], Mode: 0o644, Size: int64(len(e[1])), Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(e[1]))
		complain("makeova", err)
	}
	complain("makeova", w.Close())
	complain("makeova", f.Close())
}

// serveHTTP serves the script's folder at $VARIABLE: serve VARIABLE.
func serveHTTP(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs("."))))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// digestOf puts a file's SHA-256 digest into a variable: digest VARIABLE FILE.
func digestOf(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], fmt.Sprintf("%x", sha256.Sum256([]byte(ts.ReadFile(args[1])))))
}

package delivery

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/fail"
	"github.com/micavm/mica/internal/fat"
	"github.com/micavm/mica/internal/iso9660"
	"github.com/micavm/mica/internal/usercontext"
)

// Found is a context medium read back.
type Found struct {
	Kind     string       `json:"kind"`   // name of a Kind, or floppy
	System   string       `json:"system"` // iso9660, fat, or none for the floppy
	Label    string       `json:"label"`
	Size     int64        `json:"size"`
	Files    []ListedFile `json:"files"`
	Instance string       `json:"instance_id,omitempty"`
	Hostname string       `json:"hostname,omitempty"`
	UserData []byte       `json:"-"`
	Differ   bool         `json:"contexts_differ,omitempty"` // a config drive's two copies of the context are not one
}

// ListedFile is one file of a medium.
type ListedFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

const maxMedium = 64 << 20 // bytes of the files of a medium

// ErrNotContext says that an image has no context.
var ErrNotContext = errors.New("no context medium is recognised")

// Inspect finds out what context medium a file is and reads it. The kind is told
// by files, not by labels, as the boot loader and amiconfig do. The error has class
// NotFound where the file is missing and wraps ErrNotContext where it is
// something else.
func Inspect(name string) (Found, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Found{}, fail.New(fail.NotFound, "no medium at %s", name)
	}
	if err != nil {
		return Found{}, fmt.Errorf("opening medium: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Found{}, fmt.Errorf("opening medium: %w", err)
	}
	found, err := Read(f, info.Size())
	if err != nil {
		return found, fmt.Errorf("medium %s: %w", name, err)
	}
	return found, nil
}

// Read is Inspect for an image of size bytes that is open or in memory.
func Read(r io.ReaderAt, size int64) (Found, error) {
	found := Found{Size: size}
	files, isoErr := found.readISO(r, size)
	if isoErr != nil {
		var fatErr error
		if files, fatErr = found.readFAT(r, size); fatErr != nil {
			if errors.Is(isoErr, iso9660.ErrFormat) && errors.Is(fatErr, fat.ErrFormat) {
				if found.readFloppy(r, size) {
					return found, nil
				}
				return found, fmt.Errorf("%w: %w; %w", ErrNotContext, isoErr, fatErr)
			}
			return found, errors.Join(isoErr, fatErr)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		found.Files = append(found.Files, ListedFile{p, int64(len(files[p]))})
	}
	// Readers without long names see another case.
	lower := map[string][]byte{}
	for p, data := range files {
		lower[strings.ToLower(p)] = data
	}
	return found, found.recognise(lower)
}

func (f *Found) readISO(r io.ReaderAt, size int64) (map[string][]byte, error) {
	img, err := iso9660.Open(r, size, iso9660.Auto)
	if err != nil {
		return nil, err
	}
	f.System, f.Label = "iso9660", img.Label
	files, left := map[string][]byte{}, int64(maxMedium)
	err = fs.WalkDir(img, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if left -= info.Size(); left < 0 {
			return fmt.Errorf("%w: more than %d bytes of files", ErrNotContext, maxMedium)
		}
		files[p], err = fs.ReadFile(img, p)
		return err
	})
	return files, err
}

func (f *Found) readFAT(r io.ReaderAt, size int64) (map[string][]byte, error) {
	v, err := fat.Read(r, size)
	if err != nil {
		return nil, err
	}
	f.System, f.Label = "fat", v.Label
	files := map[string][]byte{}
	for _, one := range v.Files {
		files[one.Path] = one.Data
	}
	return files, nil
}

// recognise finds the kind, in the order in which a guest looks.
func (f *Found) recognise(files map[string][]byte) error {
	if data, ok := files["openstack/latest/user_data"]; ok {
		f.Kind, f.UserData = configDrive.Name, data
		second, both := files["ec2/latest/user-data"]
		f.Differ = both && !bytes.Equal(data, second)
		var meta struct{ UUID, Hostname string }
		if err := json.Unmarshal(files["openstack/latest/meta_data.json"], &meta); err != nil {
			return fmt.Errorf("openstack/latest/meta_data.json: %w", err)
		}
		f.Instance, f.Hostname = meta.UUID, meta.Hostname
		return nil
	}
	if data, ok := files["ec2/latest/user-data"]; ok {
		f.Kind, f.UserData = configDrive.Name, data
		return nil
	}
	if data, ok := files["context.sh"]; ok {
		f.Kind = openNebula.Name
		return f.readAssignments(data)
	}
	for _, name := range []string{"user-data.txt", "deltacloud-user-data.txt"} {
		if data, ok := files[name]; ok {
			f.Kind, f.UserData = vSphere.Name, data
			return nil
		}
	}
	if data, ok := files["ovf-env.xml"]; ok {
		return f.readEnvironment(data, files)
	}
	if data, ok := files["user-data"]; ok {
		f.Kind, f.UserData = noCloud.Name, data
		if _, ok := files["meta-data"]; !ok {
			return errors.New("there is user-data but no meta-data, so cloud-init ignores the volume")
		}
		f.readSimpleYAML(files["meta-data"])
		return nil
	}
	return ErrNotContext
}

// readSimpleYAML takes two keys out of NoCloud's meta-data, written as JSON or as
// plain YAML lines.
func (f *Found) readSimpleYAML(text []byte) {
	var meta map[string]any
	if json.Unmarshal(text, &meta) == nil {
		f.Instance, _ = meta["instance-id"].(string)
		f.Hostname, _ = meta["local-hostname"].(string)
		return
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		switch key {
		case "instance-id":
			f.Instance = value
		case "local-hostname", "hostname":
			f.Hostname = value
		}
	}
}

// readAssignments reads context.sh without a shell.
func (f *Found) readAssignments(text []byte) error {
	vars := map[string]string{}
	for _, a := range usercontext.ParseAssignments(text) {
		vars[a.Name] = a.Value
	}
	for _, key := range []string{"SET_HOSTNAME", "HOSTNAME"} {
		if f.Hostname == "" {
			f.Hostname = vars[key]
		}
	}
	for _, key := range []string{"EC2_USER_DATA", "USER_DATA", "USERDATA"} {
		value, ok := vars[key]
		if !ok {
			continue
		}
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(value), ""))
		if err != nil && key != "EC2_USER_DATA" && vars["USERDATA_ENCODING"] != "base64" {
			data, err = []byte(value), nil
		}
		if err != nil {
			return fmt.Errorf("context.sh: %s: %w", key, err)
		}
		f.UserData = data
		return nil
	}
	return nil
}

// readEnvironment reads ovf-env.xml: Azure's, or another OVF environment.
func (f *Found) readEnvironment(text []byte, files map[string][]byte) error {
	var doc struct {
		Set *struct {
			HostName   string
			CustomData string
		} `xml:"ProvisioningSection>LinuxProvisioningConfigurationSet"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("ovf-env.xml: %w", err)
	}
	if doc.Set == nil {
		return fmt.Errorf("%w: ovf-env.xml has no Linux provisioning section", ErrNotContext)
	}
	f.Kind, f.Hostname = azure.Name, doc.Set.HostName
	if data, ok := files["customdata.bin"]; ok {
		f.UserData = data
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(doc.Set.CustomData), ""))
	if err != nil {
		return fmt.Errorf("ovf-env.xml: CustomData: %w", err)
	}
	f.UserData = data
	return nil
}

package fakevbox

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

func (f *fake) createvm(s *state, args []string) error {
	takes := map[string]int{"--name": 1, "--ostype": 1, "--uuid": 1, "--basefolder": 1, "--register": 0}
	o, rest, err := flags(args, takes)
	if err != nil || len(rest) > 0 {
		return errors.Join(err, extra(rest))
	}
	v := &vm{
		UUID: first(o, "--uuid"), Name: first(o, "--name"), OSType: first(o, "--ostype"), State: "poweroff",
		Slots: map[string]string{}, Extra: map[string]string{},
		Props: map[string]string{
			"cpus": "1", "memory": "128", "vram": "8", "acpi": "on", "ioapic": "off", "rtcuseutc": "off", "cpuexecutioncap": "100",
			"boot1": "floppy", "boot2": "dvd", "boot3": "disk", "boot4": "none", "graphicscontroller": "vboxvga",
			"firmware": "bios", "nic1": "nat", "nictype1": "82540EM", "uart1": "off", "vrde": "off", "clipboard": "disabled", "draganddrop": "disabled",
		},
	}
	if v.UUID == "" {
		v.UUID = uuid.NewString()
	}
	if v.Name == "" || o["--register"] == nil || !filepath.IsAbs(first(o, "--basefolder")) {
		return unknown("this fake wants --name, --register and an absolute --basefolder")
	}
	v.Folder = filepath.Join(first(o, "--basefolder"), v.Name)
	if s.machine(v.UUID) != nil {
		return refuse("NS_ERROR_INVALID_ARG", "Registered machine with UUID {%s} ('%s') already exists", v.UUID, v.file())
	}
	if _, err := os.Stat(v.file()); err == nil {
		return refuse("VBOX_E_FILE_ERROR", "Machine settings file '%s' already exists", v.file())
	}
	if err := os.MkdirAll(filepath.Join(v.Folder, "Logs"), 0o700); err != nil {
		return refuse("VBOX_E_FILE_ERROR", "Could not create the directory '%s' (VERR_ACCESS_DENIED)", v.Folder)
	}
	s.Machines = append(s.Machines, v)
	f.printf("Virtual machine '%s' is created and registered.\nUUID: %s\nSettings file: '%s'\n", v.Name, v.UUID, v.file())
	return v.write(s)
}

func extra(rest []string) error {
	if len(rest) == 0 {
		return nil
	}
	return unknown("Invalid parameter '%s'", rest[0])
}

// write writes the settings file: what others read of it as VirtualBox has it,
// and all that registervm needs.
func (v *vm) write(s *state) error {
	type node struct {
		UUID      string `xml:"uuid,attr"`
		Name      string `xml:"name,attr"`
		Time      string `xml:"timeStamp,attr,omitempty"`
		StateFile string `xml:"stateFile,attr,omitempty"`
		Children  []node `xml:"Snapshots>Snapshot"`
	}
	var under func(parent string) []node
	under = func(parent string) []node {
		var all []node
		for _, sn := range v.Snapshots {
			if sn.Parent != parent {
				continue
			}
			n := node{UUID: "{" + sn.UUID + "}", Name: sn.Name, Time: sn.Time.Format(time.RFC3339), Children: under(sn.UUID)}
			if sn.Memory != nil {
				n.StateFile = "Snapshots/x.sav"
			}
			all = append(all, n)
		}
		return all
	}
	type place struct {
		Path string `xml:"location,attr"`
	}
	type root struct {
		UUID      string  `xml:"uuid,attr"`
		Name      string  `xml:"name,attr"`
		StateFile string  `xml:"stateFile,attr,omitempty"`
		Disks     []place `xml:"MediaRegistry>HardDisks>HardDisk"`
		Snapshots []node  `xml:"Snapshot"`
		All       struct {
			Text string `xml:",cdata"`
		} `xml:"Fake"`
	}
	r := root{UUID: "{" + v.UUID + "}", Name: v.Name, Snapshots: under("")}
	if v.Memory != nil {
		r.StateFile = "Snapshots/x.sav"
	}
	kept := whole{VM: v, Media: s.media(v)}
	for _, m := range kept.Media {
		if m.Kind == "disk" {
			r.Disks = append(r.Disks, place{m.Path})
		}
	}
	all, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	r.All.Text = string(all)
	file := struct {
		XMLName xml.Name `xml:"http://www.virtualbox.org/ VirtualBox"`
		Machine root     `xml:"Machine"`
	}{Machine: r}
	data, err := xml.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	next := v.file() + "-tmp" // it is read at any time
	return errors.Join(os.WriteFile(next, data, 0o600), os.Rename(next, v.file()))
}

// whole is a machine as its settings file keeps it.
type whole struct {
	VM    *vm
	Media []*medium
}

// media are those that a machine and its snapshots use.
func (s *state) media(v *vm) []*medium {
	used := map[string]bool{}
	for _, path := range v.Slots {
		used[path] = true
	}
	for _, sn := range v.Snapshots {
		for _, path := range sn.Slots {
			used[path] = true
		}
	}
	var all []*medium
	for _, m := range s.Media {
		if used[m.Path] {
			all = append(all, m)
		}
	}
	return all
}

func (f *fake) registervm(s *state, args []string) error {
	if len(args) != 1 {
		return unknown("registervm takes a file")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return refuse("VBOX_E_FILE_ERROR", "Runtime error opening '%s' for reading: -102 (File not found.)", args[0])
	}
	var file struct {
		All string `xml:"Machine>Fake"`
	}
	var kept whole
	if err := errors.Join(xml.Unmarshal(data, &file), json.Unmarshal([]byte(file.All), &kept)); err != nil {
		return err
	}
	v := kept.VM
	v.Folder = filepath.Dir(args[0])
	if s.machine(v.UUID) != nil {
		return refuse("NS_ERROR_INVALID_ARG", "Registered machine with UUID {%s} ('%s') already exists", v.UUID, v.file())
	}
	for _, m := range kept.Media {
		if other := s.known(m.UUID, m.Kind); other == nil {
			s.Media = append(s.Media, m)
		} else if other.Path != m.Path {
			return &failure{"Code NS_ERROR_INVALID_ARG (0x80070057) - Invalid argument value (extended info not available)", "", 1}
		}
	}
	s.Machines = append(s.Machines, v)
	return nil
}

// rename gives a machine another name, and with it another folder.
func (v *vm) rename(s *state, name string) error {
	folder := filepath.Join(filepath.Dir(v.Folder), name)
	if err := errors.Join(os.Rename(v.file(), filepath.Join(v.Folder, name+".vbox")), os.Rename(v.Folder, folder)); err != nil {
		return err
	}
	move := func(path string) string {
		if rest, ok := strings.CutPrefix(path, v.Folder+"/"); ok {
			return filepath.Join(folder, rest)
		}
		return path
	}
	for _, m := range s.Media {
		m.Path = move(m.Path)
	}
	for slot, path := range v.Slots {
		v.Slots[slot] = move(path)
	}
	for _, sn := range v.Snapshots {
		for slot, path := range sn.Slots {
			sn.Slots[slot] = move(path)
		}
	}
	v.Folder, v.Name = folder, name
	return nil
}

func (f *fake) storagectl(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--name": 1, "--add": 1, "--portcount": 1})
	if err != nil {
		return err
	}
	v, err := s.change(strings.Join(rest, " "))
	if err != nil {
		return err
	}
	c := controller{Name: first(o, "--name"), Kind: first(o, "--add"), Ports: map[string]int{"ide": 2, "sata": 30, "floppy": 1}[first(o, "--add")]}
	if p := first(o, "--portcount"); p != "" {
		if c.Ports, err = strconv.Atoi(p); err != nil || c.Kind != "sata" {
			return unknown("Invalid --portcount '%s'", p)
		}
	}
	if c.Name == "" || c.Ports == 0 {
		return unknown("Invalid --add argument '%s'", c.Kind)
	}
	if slices.ContainsFunc(v.Controllers, func(have controller) bool { return have.Name == c.Name }) {
		return refuse("VBOX_E_OBJECT_IN_USE", "Storage controller named '%s' already exists", c.Name)
	}
	v.Controllers = append(v.Controllers, c)
	return nil
}

func (f *fake) storageattach(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--storagectl": 1, "--port": 1, "--device": 1, "--type": 1, "--medium": 1})
	if err != nil {
		return err
	}
	v, err := s.change(strings.Join(rest, " "))
	if err != nil {
		return err
	}
	port, perr := strconv.Atoi(first(o, "--port"))
	device, derr := strconv.Atoi(first(o, "--device"))
	n := slices.IndexFunc(v.Controllers, func(c controller) bool { return c.Name == first(o, "--storagectl") })
	if n < 0 || perr != nil || derr != nil {
		return refuse("VBOX_E_OBJECT_NOT_FOUND", "Could not find a storage controller named '%s'", first(o, "--storagectl"))
	}
	c := v.Controllers[n]
	if port >= c.Ports || device > 1 || device > 0 && c.Kind == "sata" {
		return refuse("NS_ERROR_INVALID_ARG", "Invalid port %d or device %d", port, device)
	}
	key := fmt.Sprintf("%s-%d-%d", c.Name, port, device)
	if first(o, "--medium") == "none" {
		delete(v.Slots, key)
		return nil
	}
	m, err := s.openMedium(first(o, "--medium"), map[string]string{"hdd": "disk", "dvddrive": "dvd", "fdd": "floppy"}[first(o, "--type")])
	if err != nil {
		return err
	}
	for _, other := range s.Machines {
		for slot, path := range other.Slots {
			if path == m.Path && m.Kind == "disk" && (other != v || slot != key) {
				return refuse("VBOX_E_OBJECT_IN_USE", "Medium '%s' is already attached to port %s of machine %s", m.Path, slot, other.UUID)
			}
		}
	}
	v.Slots[key] = m.Path
	return nil
}

// options are modifyvm's, by how many values they take. Those of a card or a
// port have its number cut off.
var options = map[string]int{
	"--cpus": 1, "--memory": 1, "--vram": 1, "--acpi": 1, "--ioapic": 1, "--rtcuseutc": 1, "--cpuexecutioncap": 1, "--boot": 1,
	"--nic": 1, "--nictype": 1, "--natdnshostresolver": 1, "--natdnsproxy": 1, "--hostonlyadapter": 1, "--draganddrop": 1,
	"--vrde": 1, "--vrdeaddress": 1, "--vrdeport": 1, "--vrdeauthtype": 1, "--vrdemulticon": 1, "--graphicscontroller": 1,
	"--clipboard": 1, "--clipboard-mode": 1, "--bioslogofadein": 1, "--bioslogofadeout": 1, "--firmware-logo-fade-in": 1, "--firmware-logo-fade-out": 1,
	"--firmware": 1, "--nat-localhostreachable": 1, "--uart": 2, "--uartmode": 2, "--natpf": 1, "--host-only-net": 1,
}

// lacks are the options that a style does not know.
var lacks = map[string][]string{
	Style52: {"--graphicscontroller", "--clipboard-mode", "--firmware-logo-fade-in", "--firmware-logo-fade-out", "--host-only-net", "--nat-localhostreachable"},
	Style61: {"--clipboard", "--nat-localhostreachable", "--firmware-logo-fade-in", "--firmware-logo-fade-out", "--host-only-net"},
	Style72: {"--bioslogofadein"}, // it does know it; so that the other spelling is used, too
}

var allowed = map[string][]string{
	"boot": {"none", "floppy", "dvd", "disk", "net"}, "nic": {"none", "nat", "hostonly", "hostonlynet"},
	"firmware": {"bios", "efi", "efi32", "efi64"}, "nat-localhostreachable": {"on", "off"}, "acpi": {"on", "off"}, "ioapic": {"on", "off"}, "rtcuseutc": {"on", "off"}, "vrde": {"on", "off"}, "vrdemulticon": {"on", "off"},
	"natdnshostresolver": {"on", "off"}, "natdnsproxy": {"on", "off"}, "graphicscontroller": {"none", "vboxvga", "vmsvga", "vboxsvga"},
	"clipboard": {"disabled", "bidirectional"}, "draganddrop": {"disabled", "bidirectional"}, "vrdeauthtype": {"null", "external", "guest"},
	"nictype": {"Am79C970A", "Am79C973", "82540EM", "82543GC", "82545EM", "virtio"},
}

func (f *fake) modifyvm(s *state, args []string) error {
	if len(args) == 0 {
		return unknown("no machine")
	}
	v, err := s.find(args[0])
	if err != nil {
		return err
	}
	if len(args) == 3 && args[1] == "--name" {
		if v, err = s.change(args[0]); err != nil {
			return err
		}
		return v.rename(s, args[2])
	}
	onlyRules := len(args) > 1
	for n := 1; n < len(args); {
		name := args[n]
		number := name[len(strings.TrimRight(name, "0123456789")):]
		count, ok := options[strings.TrimSuffix(name, number)]
		if !ok || slices.Contains(lacks[f.config.Style], strings.TrimSuffix(name, number)) {
			return unknown("Unknown option: %s", name)
		}
		key := strings.TrimPrefix(name, "--")
		if strings.HasPrefix(key, "uart") && n+1 < len(args) && args[n+1] == "off" ||
			strings.HasPrefix(key, "natpf") && n+1 < len(args) && args[n+1] == "delete" {
			count = 3 - count
		}
		if n+count >= len(args) {
			return unknown("Missing argument for %s", name)
		}
		values := args[n+1 : n+1+count]
		n += 1 + count
		if strings.HasPrefix(key, "natpf") {
			if err := v.rule(values); err != nil {
				return err
			}
			continue
		}
		onlyRules = false
		if err := v.set(key, number, values); err != nil {
			return err
		}
	}
	if v.State == "saved" && (!onlyRules || f.config.FrozenNAT) {
		return refuse("VBOX_E_INVALID_VM_STATE", "The machine is not mutable or saved or running (state is Saved)")
	}
	_, err = s.change(args[0])
	return err
}

func (v *vm) set(key, number string, values []string) error {
	plain := strings.TrimSuffix(key, number)
	switch plain {
	case "clipboard-mode":
		key, plain = "clipboard", "clipboard"
	case "uart":
		values = []string{strings.ToLower(values[0]) + "," + values[len(values)-1]}
		if values[0] != "0x3f8,4" {
			return unknown("Invalid UART '%s'", values[0])
		}
		values[0] = "0x03f8,4"
	case "uartmode":
		if values[0] != "file" || !filepath.IsAbs(values[1]) {
			return unknown("Invalid UART mode '%s'", values[0])
		}
		values = []string{values[0] + "," + values[1]}
	case "cpus", "memory", "vram", "cpuexecutioncap":
		if n, err := strconv.Atoi(values[0]); err != nil || n < 1 || plain == "cpuexecutioncap" && n > 100 {
			return unknown("Invalid value '%s' for %s", values[0], key)
		}
	}
	if list := allowed[plain]; list != nil && !slices.Contains(list, values[0]) {
		return unknown("Invalid value '%s' for %s", values[0], key)
	}
	v.Props[key] = values[0]
	return nil
}

// rule adds or removes a forwarded port of the first card.
func (v *vm) rule(values []string) error {
	if values[0] == "delete" {
		n := slices.IndexFunc(v.Rules, func(r string) bool { return strings.HasPrefix(r, values[1]+",") })
		if n < 0 {
			return &failure{"Code NS_ERROR_INVALID_ARG (0x80070057) - Invalid argument value (extended info not available)", "", 1}
		}
		v.Rules = slices.Delete(v.Rules, n, n+1)
		return nil
	}
	parts := strings.Split(values[0], ",")
	if len(parts) != 6 || parts[1] != "tcp" {
		return unknown("Invalid rule '%s'", values[0])
	}
	for _, r := range v.Rules {
		have := strings.Split(r, ",")
		if have[0] == parts[0] {
			return refuse("NS_ERROR_INVALID_ARG", "A NAT rule of this name already exists")
		}
		if have[2] == parts[2] && have[3] == parts[3] {
			return refuse("NS_ERROR_INVALID_ARG", "A NAT rule for this host port and this host IP already exists")
		}
	}
	v.Rules = append(v.Rules, values[0])
	return nil
}

func (f *fake) setextradata(s *state, args []string) error {
	if len(args) != 2 && len(args) != 3 {
		return unknown("setextradata takes a machine, a key and a value, or none to forget it")
	}
	v, err := s.find(args[0])
	switch {
	case err != nil:
	case len(args) == 3:
		v.Extra[args[1]] = args[2]
	default:
		delete(v.Extra, args[1])
	}
	return err
}

func (f *fake) sharedfolder(s *state, args []string) error {
	takes := map[string]int{"--name": 1, "--hostpath": 1, "--automount": 0, "--readonly": 0, "--auto-mount-point": 1}
	if f.config.Style == Style52 {
		delete(takes, "--auto-mount-point")
	}
	o, rest, err := flags(args, takes)
	if err != nil || len(rest) != 2 {
		return errors.Join(err, extra(rest[min(2, len(rest)):]))
	}
	v, err := s.change(rest[1])
	if err != nil {
		return err
	}
	name := first(o, "--name")
	n := slices.IndexFunc(v.Shares, func(sh share) bool { return sh.Name == name })
	switch {
	case rest[0] == "remove" && n >= 0:
		v.Shares = slices.Delete(v.Shares, n, n+1)
	case rest[0] == "add" && n < 0:
		if _, err := os.Stat(first(o, "--hostpath")); err != nil || !filepath.IsAbs(first(o, "--hostpath")) {
			return refuse("NS_ERROR_INVALID_ARG", "Shared folder path '%s' is not absolute or not there", first(o, "--hostpath"))
		}
		v.Shares = append(v.Shares, share{
			Name: name, Path: first(o, "--hostpath"), Point: first(o, "--auto-mount-point"), ReadOnly: o["--readonly"] != nil,
			Links: v.Extra["VBoxInternal2/SharedFoldersEnableSymlinksCreate/"+name] == "1",
		})
	default:
		return refuse("VBOX_E_OBJECT_IN_USE", "Shared folder named '%s' already exists, or does not", name)
	}
	return nil
}

func (f *fake) unregistervm(s *state, args []string) error {
	o, rest, err := flags(args, map[string]int{"--delete": 0, "--delete-all": 0})
	if err != nil {
		return err
	}
	v, err := s.find(strings.Join(rest, " "))
	if err != nil {
		return err
	}
	if !v.inaccessible() {
		if v.live() || v.Race > 0 {
			v.Race = max(0, v.Race-1)
			return refuse("VBOX_E_INVALID_OBJECT_STATE", "Cannot unregister the machine '%s' while it is locked", v.Name)
		}
	}
	s.Machines = slices.DeleteFunc(s.Machines, func(other *vm) bool { return other == v })
	used := slices.Collect(maps.Values(v.Slots))
	for _, sn := range v.Snapshots {
		used = append(used, slices.Collect(maps.Values(sn.Slots))...)
	}
	for _, path := range used {
		n := slices.IndexFunc(s.Media, func(m *medium) bool { return m.Path == path && m.Kind == "disk" })
		if n < 0 {
			continue
		}
		s.Media = slices.Delete(s.Media, n, n+1)
		if o["--delete"] != nil { // whoever made it
			_ = os.Remove(path)
		}
	}
	if o["--delete"] != nil {
		return os.RemoveAll(v.Folder)
	}
	return nil
}

func (f *fake) discardstate(s *state, args []string) error {
	v, err := s.change(strings.Join(args, " "))
	if err != nil {
		return err
	}
	if v.State != "saved" && v.State != "aborted-saved" {
		return refuse("VBOX_E_INVALID_VM_STATE", "Cannot discard the saved state as the machine is not in the Saved or Aborted-Saved state (machine state: PoweredOff)")
	}
	v.State, v.Memory = "poweroff", nil
	return nil
}

package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// fromFirmwareConfig reads what QEMU was started with:
// -fw_cfg name=opt/org.cernvm/user-data,file=…
func fromFirmwareConfig(_ context.Context, s *search) (Found, error) {
	if s.FWCfg == "" {
		return Found{}, errNothing
	}
	files := os.DirFS(s.FWCfg)
	const dir = "opt/org.cernvm/"
	data, err := readFile(files, dir+"user-data/raw", MaxUserData)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Found{}, fmt.Errorf("reading user data from the firmware: %w", err)
	}
	present := err == nil
	meta, err := readFile(files, dir+"meta-data/raw", maxMeta)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Found{}, fmt.Errorf("reading metadata from the firmware: %w", err)
	}
	if !present && err != nil {
		return Found{}, errNothing
	}
	return Found{UserData: data, Present: present, Meta: noCloudMeta(meta), Origin: "fw_cfg " + dir + "user-data"}, nil
}

// userDataWord is the name of user data on the kernel command line and in the
// OEM strings of SMBIOS.
const userDataWord = "cvm_userdata"

// fromSMBIOS reads OEM strings "cvm_userdata=<base64>". A string is short, so
// several are put together in their order.
func fromSMBIOS(_ context.Context, s *search) (Found, error) {
	var text strings.Builder
	found := false
	for _, one := range s.DMI.OEMStrings {
		if part, ok := strings.CutPrefix(one, userDataWord+"="); ok {
			found = true
			text.WriteString(part)
		}
	}
	if !found || isURL(text.String()) {
		return Found{}, errNothing
	}
	data, err := decodeBase64([]byte(text.String()))
	if err != nil {
		return Found{}, fmt.Errorf("the OEM string %s %w", userDataWord, err)
	}
	return Found{UserData: data, Present: true, Origin: "SMBIOS type 11"}, nil
}

// fromCommandLine reads cvm_userdata=<base64>.
func fromCommandLine(_ context.Context, s *search) (Found, error) {
	text := s.word(userDataWord)
	if text == "" || isURL(text) {
		return Found{}, errNothing
	}
	data, err := decodeBase64([]byte(text))
	if err != nil {
		return Found{}, fmt.Errorf("the kernel word %s is neither a URL nor base64", userDataWord)
	}
	return Found{UserData: data, Present: true, Origin: "kernel command line"}, nil
}

// fromCommandLineURL fetches cvm_userdata=http://…
func fromCommandLineURL(ctx context.Context, s *search) (Found, error) {
	address := s.word(userDataWord)
	if !isURL(address) {
		return Found{}, errNothing
	}
	data, err := s.fetch(ctx, request{url: address, limit: MaxUserData})
	if err != nil {
		return Found{}, fmt.Errorf("fetching the user data that the kernel command line names: %w", err)
	}
	return Found{UserData: data, Present: true, Origin: address}, nil
}

func isURL(text string) bool {
	return strings.HasPrefix(text, "http://") || strings.HasPrefix(text, "https://")
}

// fromFloppy reads user-data.txt from a floppy, as RHEV-M writes it, or takes the
// floppy's first sectors for the data itself, as libcernvm does.
func fromFloppy(ctx context.Context, s *search) (Found, error) {
	if s.Mounter == nil {
		return Found{}, errNothing
	}
	for _, m := range s.readMedia(ctx) {
		if !m.Floppy {
			continue
		}
		for _, name := range []string{"user-data.txt", "user-data", "deltacloud-user-data.txt"} {
			if data, ok := m.files[name]; ok {
				return Found{UserData: data, Present: true, Origin: m.Path}, nil
			}
		}
	}
	for _, d := range s.Devices {
		if !d.Floppy || isMedium(d) {
			continue
		}
		raw, err := s.Mounter.ReadRaw(ctx, d, MaxUserData)
		if err != nil {
			s.Log.Warn("floppy not read", "device", d.Path, "error", err)
			continue
		}
		if data := rawContext(raw); data != nil {
			return Found{UserData: data, Present: true, Origin: d.Path}, nil
		}
	}
	return Found{}, errNothing
}

// rawContext cuts raw sectors at the first zero. What is left has to begin like a
// context, for a floppy may hold anything.
func rawContext(raw []byte) []byte {
	if i := bytes.IndexByte(raw, 0); i >= 0 {
		raw = raw[:i]
	}
	start := bytes.TrimLeft(raw, "\r\n\t ")
	for _, begin := range []string{"[", "#!", "#cloud-", "#include", "Content-Type:", "MIME-Version:", "From "} {
		if bytes.HasPrefix(start, []byte(begin)) {
			return raw
		}
	}
	return nil
}

package lint

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
)

// checkBlock judges the boot loader's block beyond what its reader says.
func (k *checker) checkBlock() {
	var live []string
	table := map[string]usercontext.BootKey{}
	for _, key := range usercontext.BootKeyTable() {
		table[key.Name] = key
		if key.Dead == "" {
			live = append(live, key.Name)
		}
	}
	original := map[int]usercontext.Setting{}
	for _, s := range k.context.Original().Block.Settings {
		original[s.Line] = s
	}
	next := k.firstHeaderAfter(k.block.Begin)
	for _, s := range k.block.Settings {
		if k.block.End == 0 && s.Line > next {
			break // what a missing end marker adds is not meant
		}
		key, known := table[s.Key]
		switch {
		case !known:
			k.add("U001", s.Line, s.Column, meant(nearest(s.Key, live)), "no boot loader knows the key %s", s.Key)
		case key.Dead != "":
			k.add("U001", s.Line, s.Column, "write "+key.Use, "%s: %s", s.Key, key.Dead)
		case key.Ignored != "":
			k.add("I009", s.Line, s.Column, "", "%s has no effect on Mica: %s", s.Key, key.Ignored)
		case key.Kind != "bool" && isBooleanWord(s.Value) && s.Value == strings.TrimSpace(s.Raw):
			k.add("U005", s.Line, s.ValueColumn, "put the value in double quotes", "the original turns the value of %s into a number", s.Key)
		}
		// Blanks have their own rule.
		if o, ok := original[s.Line]; ok && strings.Trim(s.Raw, " \t\r") == s.Raw {
			switch o.Shell.Kind {
			case usercontext.Lost, usercontext.Cut, usercontext.Expands:
				if known {
					k.add("U003", s.Line, s.ValueColumn, "put the value in double quotes, without $, ` or \\ in it", "%s does not get this value: %s", s.Key, o.Shell.Why)
				}
			case usercontext.Set, usercontext.Unseen:
			}
		}
	}
	k.checkInject()
	for _, p := range k.context.Parts {
		if (p.Encoding != "" || p.Packed) && bytes.Contains(p.Data, []byte(usercontext.BlockBegin)) {
			k.add("U007", p.Line, 1, "write the part unencoded (7bit)", "the boot loader's block is in an encoded part, where only Mica finds it")
		}
	}
	if i := bytes.Index(k.context.Text, []byte("###MASTER_IP_PLACEHOLDER###")); i >= 0 {
		k.add("U008", 1+bytes.Count(k.context.Text[:i], []byte("\n")), 1, "", "the address of the cluster's head is only filled in for the boot loader")
	}
	if v := k.block.Keys["cvmfs_http_proxy"]; v != "" {
		if s, ok := k.setting("cvmfs_http_proxy"); ok && !proxyList(v) {
			k.add("C007", s.Line, s.ValueColumn, "write like http://a:3128|http://b:3128;DIRECT", "cvmfs_http_proxy is not a proxy list")
		}
	}
}

func (k *checker) setting(key string) (usercontext.Setting, bool) {
	for _, s := range slices.Backward(k.block.Settings) {
		if s.Key == key {
			return s, true
		}
	}
	return usercontext.Setting{}, false
}

// firstHeaderAfter returns the line of the first section behind line.
func (k *checker) firstHeaderAfter(line int) int {
	for _, h := range k.sections.Headers {
		if h.Line > line {
			return h.Line
		}
	}
	return 1 << 30
}

func isBooleanWord(v string) bool {
	return slices.Contains([]string{"on", "off", "yes", "no", "true", "false"}, strings.ToLower(v))
}

const maxInject = 64 << 20

// checkInject looks into the archive that the boot loader unpacks.
func (k *checker) checkInject() {
	s, ok := k.setting("cernvm_inject")
	if !ok || k.keys.Inject == nil {
		return
	}
	bad := func(format string, args ...any) {
		k.add("U006", s.Line, s.ValueColumn, "", format, args...)
	}
	z, err := gzip.NewReader(bytes.NewReader(k.keys.Inject))
	if err != nil {
		bad("cernvm_inject cannot be decompressed: %v", err)
		return
	}
	limited := &io.LimitedReader{R: z, N: maxInject}
	for r := tar.NewReader(limited); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil && limited.N <= 0:
			bad("cernvm_inject unpacks to more than %d MiB", maxInject>>20)
			return
		case err != nil:
			bad("cernvm_inject is not a tar file: %v", err)
			return
		case path.IsAbs(h.Name) || slices.Contains(strings.Split(h.Name, "/"), ".."):
			bad("cernvm_inject: the name %q leads out of the root", h.Name)
		case h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock:
			bad("cernvm_inject: %q is a device", h.Name)
		}
	}
}

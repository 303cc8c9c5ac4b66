package source

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const maxKeys = 64

// clean keeps what can be used of metadata: a machine's name and keys end up in
// files, so nothing with a line break or outside of a host name's letters does.
func (m Meta) clean() Meta {
	m.InstanceID = identifier([]byte(m.InstanceID))
	m.Hostname = hostname(m.Hostname)
	var keys []string
	for _, k := range m.PublicKeys {
		for line := range strings.Lines(k) {
			line = strings.TrimSpace(line)
			if isKey(line) && !slices.Contains(keys, line) && len(keys) < maxKeys {
				keys = append(keys, line)
			}
		}
	}
	m.PublicKeys = keys
	values := map[string]string{}
	for name, value := range m.Values {
		if value = identifier([]byte(value)); value != "" && isValueName(name) && len(values) < maxValues {
			values[name] = value
		}
	}
	if m.Values = values; len(values) == 0 {
		m.Values = nil
	}
	m.Shares = CleanShares(m.Shares)
	return m
}

const maxValues = 64

// valueNames are those of EC2's tree that plugins ask for.
func valueNames() []string { return []string{"ami-launch-index", "public-ipv4", "local-ipv4"} }

// blockDevices is the directory of EC2's tree that lists disks by their use.
const blockDevices = "block-device-mapping/"

var blockDevice = regexp.MustCompile(`^(?:swap|ephemeral[0-9]{1,2})$`)

// isValueName reports whether a plugin asks for a value of that name; it becomes
// the name of a file.
func isValueName(name string) bool {
	use, ok := strings.CutPrefix(name, blockDevices)
	return slices.Contains(valueNames(), name) || ok && blockDevice.MatchString(use)
}

func hostname(name string) string {
	name = strings.TrimSuffix(strings.TrimSpace(name), ".")
	if len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") != "" ||
		strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
		return ""
	}
	return name
}

// isKey reports whether a line can be one of authorized_keys: printable, a type
// and a base64 blob among its words.
func isKey(line string) bool {
	if len(line) > 16<<10 || line == "" || line[0] == '#' {
		return false
	}
	if strings.ContainsFunc(line, unicode.IsControl) { // those of ISO 6429 above 0x7f, too
		return false
	}
	fields := strings.Fields(line)
	for i, f := range fields[:len(fields)-1] {
		if strings.HasPrefix(f, "ssh-") || strings.HasPrefix(f, "ecdsa-sha2-") || strings.HasPrefix(f, "sk-") {
			_, err := base64.StdEncoding.DecodeString(fields[i+1])
			return err == nil
		}
	}
	return false
}

// openStackMeta reads openstack/<version>/meta_data.json.
func openStackMeta(data []byte) (Meta, error) {
	var m struct {
		UUID       string            `json:"uuid"`
		Hostname   string            `json:"hostname"`
		Name       string            `json:"name"`
		Launch     *int              `json:"launch_index"`
		PublicKeys map[string]string `json:"public_keys"`
		Keys       []struct {
			Type string `json:"type"`
			Data string `json:"data"`
		} `json:"keys"`
		Meta any `json:"meta"` // an object of strings; whoever writes something else keeps his keys
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return Meta{}, fmt.Errorf("reading meta_data.json: %w", err)
	}
	properties, _ := m.Meta.(map[string]any)
	shares, _ := properties[SharesKey].(string)
	out := Meta{InstanceID: m.UUID, Hostname: m.Hostname, Shares: readShares(shares)}
	if hostname(out.Hostname) == "" {
		out.Hostname = m.Name
	}
	if m.Launch != nil {
		out.Values = map[string]string{"ami-launch-index": strconv.Itoa(*m.Launch)}
	}
	for _, name := range slices.Sorted(maps.Keys(m.PublicKeys)) {
		out.PublicKeys = append(out.PublicKeys, m.PublicKeys[name])
	}
	for _, k := range m.Keys {
		if k.Type == "ssh" {
			out.PublicKeys = append(out.PublicKeys, k.Data)
		}
	}
	return out.clean(), nil
}

// ec2Meta reads ec2/latest/meta-data.json, in which directories of the metadata
// service are objects.
func ec2Meta(data []byte) (Meta, error) {
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return Meta{}, fmt.Errorf("reading meta-data.json: %w", err)
	}
	return looseMeta(m), nil
}

// looseMeta takes what it knows out of a tree of values, however deep the keys
// are nested: makers of such files differ.
func looseMeta(m map[string]any) Meta {
	var out Meta
	text := func(names ...string) string {
		for _, name := range names {
			if s, ok := m[name].(string); ok && s != "" {
				return s
			}
		}
		return ""
	}
	out.InstanceID = text("instance-id", "instance_id", "uuid")
	out.Hostname = text("local-hostname", "local_hostname", "hostname", "public-hostname")
	out.Shares = readShares(text(SharesKey))
	out.Values = map[string]string{}
	for _, name := range valueNames() {
		switch v := m[name].(type) {
		case string:
			out.Values[name] = v
		case float64:
			out.Values[name] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	if disks, ok := m[strings.TrimSuffix(blockDevices, "/")].(map[string]any); ok {
		for use, disk := range disks {
			if name, ok := disk.(string); ok {
				out.Values[blockDevices+use] = name
			}
		}
	}
	for _, name := range []string{"public-keys", "public_keys"} {
		collectKeys(m[name], 0, &out.PublicKeys)
	}
	return out.clean()
}

func collectKeys(v any, depth int, keys *[]string) {
	if depth > 4 || len(*keys) > maxKeys {
		return
	}
	switch v := v.(type) {
	case string:
		*keys = append(*keys, v)
	case []any:
		for _, one := range v {
			collectKeys(one, depth+1, keys)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			collectKeys(v[name], depth+1, keys)
		}
	}
}

// noCloudMeta reads the meta-data of a NoCloud seed: JSON, or the small part of
// YAML that such files are written in. It is "name: value" lines, and a list or
// a map of keys in the lines that are indented below a name without a value.
func noCloudMeta(data []byte) Meta {
	if t := bytes.TrimSpace(data); len(t) > 0 && t[0] == '{' {
		var m map[string]any
		if json.Unmarshal(t, &m) == nil {
			return looseMeta(m)
		}
	}
	m := map[string]any{}
	name := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, " \t\r\n")
		body := strings.TrimLeft(line, " \t")
		if body == "" || body[0] == '#' {
			continue
		}
		if item, ok := strings.CutPrefix(body, "- "); ok || len(body) < len(line) {
			if !ok { // a map: "default: ssh-…"
				_, item, ok = strings.Cut(body, ": ")
			}
			if list, isList := m[name].([]any); ok && (isList || m[name] == nil) && name != "" {
				m[name] = append(list, scalar(item))
			}
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		name = strings.Trim(strings.TrimSpace(key), `"'`)
		if value = strings.TrimSpace(value); value == "" {
			m[name] = nil
			continue
		}
		if list, ok := strings.CutPrefix(value, "["); ok { // a list in one line
			var items []any
			for item := range strings.SplitSeq(strings.TrimSuffix(list, "]"), ",") {
				items = append(items, scalar(item))
			}
			m[name] = items
			continue
		}
		m[name] = scalar(value)
	}
	return looseMeta(m)
}

// scalar unquotes a value and cuts the comment behind a plain one.
func scalar(text string) string {
	text = strings.TrimSpace(text)
	if len(text) >= 2 && (text[0] == '"' || text[0] == '\'') {
		if end := strings.IndexByte(text[1:], text[0]); end >= 0 {
			return text[1 : 1+end]
		}
	}
	if i := strings.Index(text, " #"); i >= 0 {
		text = strings.TrimSpace(text[:i])
	}
	return text
}

// decodeBase64 takes the line breaks and the missing padding that people and
// tools leave.
func decodeBase64(text []byte) ([]byte, error) {
	packed := bytes.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\r' || r == '\n' || r == '=' {
			return -1
		}
		return r
	}, text)
	if base64.RawStdEncoding.DecodedLen(len(packed)) > MaxUserData {
		return nil, errTooLarge
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(packed)))
	n, err := base64.RawStdEncoding.Decode(out, packed)
	if err != nil {
		return nil, errors.New("is not base64")
	}
	return out[:n], nil
}

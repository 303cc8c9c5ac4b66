package metadata

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// openStackVersions are those cloud-init knows, and latest.
var openStackVersions = []string{
	"2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27", "latest",
}

// openStack answers /openstack/VERSION/FILE.
func openStack(q request) reply {
	if !q.reads() {
		return status(http.StatusMethodNotAllowed)
	}
	rest := q.path[1:]
	if len(rest) == 0 {
		return text(strings.Join(openStackVersions, "\n"))
	}
	if !slices.Contains(openStackVersions, rest[0]) || len(rest) > 2 {
		return missing
	}
	m := q.machine
	files := map[string]reply{"meta_data.json": raw(jsonT, m.Meta.OpenStack())}
	for name, data := range map[string][]byte{"user_data": m.UserData, "network_data.json": m.Meta.NetworkConfig, "vendor_data.json": m.Meta.VendorData} {
		if len(data) == 0 {
			continue
		}
		kind := jsonT
		if name == "user_data" {
			kind = bytes
		}
		files[name] = raw(kind, data)
	}
	if len(rest) == 1 {
		return text(strings.Join(slices.Sorted(maps.Keys(files)), "\n"))
	}
	if a, ok := files[rest[1]]; ok {
		return a
	}
	return missing
}

// noCloud answers /SECRET/FILE, the secret being taken off.
func noCloud(q request) reply {
	if !q.reads() {
		return status(http.StatusMethodNotAllowed)
	}
	m := q.machine
	if len(q.path) != 1 {
		return missing
	}
	switch q.path[0] {
	case "meta-data":
		doc := map[string]any{"instance-id": m.Meta.InstanceID}
		if m.Meta.Hostname != "" {
			doc["local-hostname"] = m.Meta.Hostname
		}
		if len(m.Meta.PublicKeys) > 0 {
			doc["public-keys"] = m.Meta.PublicKeys
		}
		return raw(plain, encode(doc)) // JSON is YAML
	case "user-data":
		return raw(bytes, m.UserData) // mandatory, if empty
	case "vendor-data":
		// Empty rather than missing: cloud-init asks ten times for what is missing,
		// a second apart.
		return raw(bytes, m.Meta.VendorData)
	case "network-config":
		if m.Meta.NetworkConfig != nil {
			return raw(plain, m.Meta.NetworkConfig)
		}
	}
	return missing
}

func encode(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) //nolint:forbidigo // strings, numbers and maps of them always encode
	}
	return append(b, '\n')
}

// google answers /computeMetadata/v1/….
func google(q request) reply {
	const flavor = "Metadata-Flavor"
	if q.Header.Get(flavor) != "Google" && !strings.EqualFold(q.Header.Get("X-Google-Metadata-Request"), "True") || q.Header.Get("X-Forwarded-For") != "" {
		return status(http.StatusForbidden)
	}
	if !q.reads() {
		return status(http.StatusMethodNotAllowed).with(flavor, "Google")
	}
	if len(q.path) < 2 {
		return text("v1/\n").with(flavor, "Google")
	}
	if q.path[1] != "v1" {
		return missing.with(flavor, "Google")
	}
	m := q.machine
	host := m.Meta.Hostname
	if host == "" {
		host = "localhost"
	}
	sum := sha256.Sum256([]byte(m.Meta.InstanceID))
	id := binary.BigEndian.Uint64(sum[:]) >> 1
	attributes := folder{}
	if len(m.UserData) > 0 {
		attributes["user-data"] = string(m.UserData)
		attributes["cvm-user-data"] = base64.StdEncoding.EncodeToString(m.UserData)
	}
	if len(m.Meta.PublicKeys) > 0 {
		var lines []string
		for _, k := range m.Meta.PublicKeys {
			// cloud-init takes the keys of its default user and of this name only,
			// and gives root the same.
			lines = append(lines, "root:"+k, "cloudinit:"+k)
		}
		attributes["ssh-keys"] = strings.Join(lines, "\n")
		attributes["block-project-ssh-keys"] = "true"
	}
	tree := folder{
		"instance": folder{
			"id": strconv.FormatUint(id, 10), "zone": "projects/1/zones/z-a", "hostname": host, "name": host, "attributes": attributes,
		},
		"project": folder{"attributes": folder{}, "project-id": "mica", "numeric-project-id": "1"},
	}
	if q.URL.Query().Get("recursive") == "" {
		return walk(tree, q.path[2:]).with(flavor, "Google")
	}
	// Differs: JSON cannot carry bytes that are no text, so there they are encoded
	// and said to be; a single value is sent as it is, for readers that know no
	// encoding.
	if !utf8.Valid(m.UserData) {
		attributes["user-data"], attributes["user-data-encoding"] = attributes["cvm-user-data"], "base64"
	}
	var at any = tree
	for _, p := range q.path[2:] {
		f, ok := at.(folder)
		if !ok || f[p] == nil {
			return missing.with(flavor, "Google")
		}
		at = f[p]
	}
	return raw(jsonT, encode(at)).with(flavor, "Google")
}

var azureVersion = regexp.MustCompile(`^20(1[7-9]|2\d)-\d{2}-\d{2}$`)

// azure answers /metadata/instance.
func azure(q request) reply {
	switch {
	case !q.reads():
		return status(http.StatusMethodNotAllowed)
	case !strings.EqualFold(q.Header.Get("Metadata"), "true"), q.Header.Get("X-Forwarded-For") != "":
		return status(http.StatusBadRequest)
	case len(q.path) < 2:
		return missing
	}
	version := q.URL.Query().Get("api-version")
	if q.path[1] == "versions" && len(q.path) == 2 {
		return raw(jsonT, encode(map[string]any{"apiVersions": []string{"2019-06-01", "2021-01-01", "2021-08-01"}}))
	}
	if !azureVersion.MatchString(version) {
		return status(http.StatusBadRequest)
	}
	if q.path[1] != "instance" || len(q.path) != 2 {
		return missing
	}
	m := q.machine
	host := m.Meta.Hostname
	if host == "" {
		host = "localhost"
	}
	keys := []map[string]string{}
	for _, k := range m.Meta.PublicKeys {
		keys = append(keys, map[string]string{"keyData": k, "path": "/root/.ssh/authorized_keys"})
	}
	compute := map[string]any{
		"azEnvironment": "AzurePublicCloud", "customData": "", "location": zone, "name": host, "osType": "Linux", "provider": "Microsoft.Compute",
		"vmId": m.Meta.InstanceID, "vmSize": "Standard_B1s", "publicKeys": keys,
		"osProfile": map[string]string{"adminUsername": "root", "computerName": host, "disablePasswordAuthentication": "true"},
	}
	if version >= "2021-01-01" {
		compute["userData"] = base64.StdEncoding.EncodeToString(m.UserData)
	}
	card := map[string]any{"macAddress": strings.ToUpper(strings.ReplaceAll(m.MAC.String(), ":", "")), "ipv6": map[string]any{"ipAddress": []any{}}}
	if a := address(q); a.Is4() {
		card["ipv4"] = map[string]any{"ipAddress": []any{map[string]string{"privateIpAddress": a.String(), "publicIpAddress": ""}}, "subnet": []any{}}
	}
	return raw(jsonT, encode(map[string]any{"compute": compute, "network": map[string]any{"interface": []any{card}}}))
}

package metadata

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ec2Versions are listed at the root; every date is served.
const ec2Versions = "2007-12-15\n2009-04-04\n2016-04-19\nlatest\n"

var ec2Version = regexp.MustCompile(`^(latest|1\.0|\d{4}-\d{2}-\d{2})$`)

const (
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 21600 // seconds
)

func (s *Server) ec2(w http.ResponseWriter, q request) reply {
	if len(q.path) == 3 && q.path[0] == "latest" && q.path[1] == "api" && q.path[2] == "token" {
		return s.token(w, q)
	}
	if !q.reads() {
		return status(http.StatusMethodNotAllowed)
	}
	if t := q.Header.Get(tokenHeader); t != "" || s.o.TokenOnly {
		if !s.goodToken(q, t) {
			return status(http.StatusUnauthorized)
		}
	}
	if len(q.path) == 0 {
		return text(ec2Versions)
	}
	if !ec2Version.MatchString(q.path[0]) {
		return missing
	}
	rest := q.path[1:]
	switch {
	case len(rest) == 0:
		return text("meta-data/\nuser-data") // amiconfig wants both words
	case rest[0] == "user-data" && len(rest) == 1:
		if len(q.machine.UserData) == 0 {
			return missing
		}
		return raw(bytes, q.machine.UserData)
	case rest[0] == "meta-data":
		return walk(ec2Tree(q), rest[1:])
	case rest[0] == "dynamic":
		return walk(folder{"instance-identity": folder{"document": string(identity(q))}}, rest[1:])
	}
	return missing
}

// folder is a level of the tree: values are strings, folders or a keyList.
type folder map[string]any

// keyList is public-keys, whose listing gives each key a name.
type keyList []string

// walk finds what a path asks for.
func walk(at any, path []string) reply {
	for i, p := range path {
		switch v := at.(type) {
		case folder:
			next, ok := v[p]
			if !ok {
				return missing
			}
			at = next
		case keyList:
			n, err := strconv.Atoi(p)
			if err != nil || n < 0 || n >= len(v) || strconv.Itoa(n) != p {
				return missing
			}
			return walk(folder{"openssh-key": v[n] + "\n"}, path[i+1:])
		default:
			return missing
		}
	}
	switch v := at.(type) {
	case string:
		return text(v)
	case keyList:
		var lines []string
		for i := range v {
			lines = append(lines, strconv.Itoa(i)+"="+keyName(i))
		}
		return text(strings.Join(lines, "\n"))
	case folder:
		var lines []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if _, leaf := v[name].(string); !leaf {
				name += "/"
			}
			lines = append(lines, name)
		}
		return text(strings.Join(lines, "\n"))
	}
	return missing
}

func keyName(i int) string {
	if i == 0 {
		return "default"
	}
	return "key" + strconv.Itoa(i)
}

const (
	imageID      = "ami-00000001"
	instanceType = "m1.small"
	zone         = "local"
)

// ec2Tree is everything below meta-data.
func ec2Tree(q request) folder {
	m := q.machine
	tree := folder{
		"ami-id": imageID, "ami-launch-index": "0", "ami-manifest-path": "(unknown)",
		"block-device-mapping": folder{"ami": "vda", "root": "/dev/vda"},
		"instance-id":          m.Meta.InstanceID, "instance-type": instanceType,
		"placement": folder{"availability-zone": zone},
		// CloudStack has it here; cloud-init's source fails without.
		"availability-zone": zone,
		"reservation-id":    "r-00000001", "security-groups": "default",
	}
	if m.Meta.Hostname != "" {
		for _, key := range []string{"hostname", "local-hostname", "public-hostname"} {
			tree[key] = m.Meta.Hostname
		}
	}
	if a := address(q); a.Is4() {
		tree["local-ipv4"], tree["public-ipv4"] = a.String(), a.String()
	}
	if m.MAC != nil {
		tree["mac"] = m.MAC.String()
	}
	if len(m.Meta.PublicKeys) > 0 {
		tree["public-keys"] = keyList(m.Meta.PublicKeys)
	}
	return tree
}

// address is the machine's own, or the one it asks from.
func address(q request) netip.Addr {
	if q.machine.Address.IsValid() {
		return q.machine.Address
	}
	ap, err := netip.ParseAddrPort(q.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// identity is the instance identity document.
func identity(q request) []byte {
	doc := map[string]any{
		"version": "2017-09-30", "accountId": "000000000000", "architecture": "x86_64", "availabilityZone": zone, "region": zone,
		"imageId": imageID, "instanceId": q.machine.Meta.InstanceID, "instanceType": instanceType,
	}
	if a := address(q); a.IsValid() {
		doc["privateIp"] = a.String()
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		panic(err) //nolint:forbidigo // strings always encode
	}
	return b
}

// token answers a request for a session token of IMDS version 2. A token is the
// end of its life and a code over that and the machine, so nothing is stored.
func (s *Server) token(w http.ResponseWriter, q request) reply {
	ttl, err := strconv.Atoi(q.Header.Get(ttlHeader))
	switch {
	case q.Method != http.MethodPut:
		return status(http.StatusMethodNotAllowed)
	case q.Header.Get("X-Forwarded-For") != "":
		return status(http.StatusForbidden)
	case err != nil || ttl < 1 || ttl > maxTTL:
		return status(http.StatusBadRequest)
	}
	// The reply must not travel further than to the machine itself.
	if c, ok := q.Context().Value(connKey{}).(net.Conn); ok {
		oneHop(c)
		w.Header().Set("Connection", "close")
	}
	end := binary.BigEndian.AppendUint64(nil, uint64(q.now.Add(time.Duration(ttl)*time.Second).Unix()))
	token := base64.URLEncoding.EncodeToString(append(end, s.code(q.machine, end)...))
	return text(token).with(ttlHeader, strconv.Itoa(ttl))
}

func (s *Server) code(m *Machine, end []byte) []byte {
	h := hmac.New(sha256.New, s.tokenKey)
	_, _ = h.Write(end)
	_, _ = h.Write([]byte(m.Name))
	return h.Sum(nil)
}

func (s *Server) goodToken(q request, token string) bool {
	b, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size {
		return false
	}
	end := int64(binary.BigEndian.Uint64(b))
	return hmac.Equal(b[8:], s.code(q.machine, b[:8])) && q.now.Unix() < end
}

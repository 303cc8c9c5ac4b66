package usercontext

import (
	"encoding/base64"
	"errors"
	"strings"
)

// ErrEncrypted says that a context is encrypted the CernVM Online way. Package
// online decrypts it.
var ErrEncrypted = errors.New("the context is encrypted")

const encryptedPrefix = "ENCRYPTED:"

// Assignment is one NAME=value of a shell fragment.
type Assignment struct {
	Name, Value string
	Line        int
}

// ParseAssignments reads a context.sh: the assignments of a shell fragment, with
// quotes and line breaks inside them, without running anything. Lines that assign
// nothing are skipped. Expansions stay as written.
func ParseAssignments(data []byte) []Assignment {
	var out []Assignment
	number := 1
	for len(data) > 0 {
		start := number
		name, n := shellName(data)
		if n == 0 || n == len(data) || data[n] != '=' {
			data, number = skipLine(data, number)
			continue
		}
		value, used := shellWord(data[n+1:])
		number += strings.Count(string(data[:n+1+used]), "\n")
		data = data[n+1+used:]
		out = append(out, Assignment{name, value, start})
		data, number = skipLine(data, number)
	}
	return out
}

func skipLine(data []byte, number int) ([]byte, int) {
	for i, c := range data {
		if c == '\n' {
			return data[i+1:], number + 1
		}
	}
	return nil, number
}

// shellName reads a variable's name, with blanks and the word export before it,
// and returns how many bytes that took.
func shellName(data []byte) (string, int) {
	i := 0
	skip := func() {
		for i < len(data) && (data[i] == ' ' || data[i] == '\t') {
			i++
		}
	}
	skip()
	if rest := data[i:]; len(rest) > 7 && string(rest[:6]) == "export" && (rest[6] == ' ' || rest[6] == '\t') {
		i += 6
		skip()
	}
	start := i
	for i < len(data) && (data[i] == '_' || data[i] >= 'A' && data[i] <= 'Z' || data[i] >= 'a' && data[i] <= 'z' || i > start && data[i] >= '0' && data[i] <= '9') {
		i++
	}
	if i == start {
		return "", 0
	}
	return string(data[start:i]), i
}

// shellWord reads one word of a shell and returns how many bytes it took.
func shellWord(data []byte) (string, int) {
	var out strings.Builder
	var quote byte
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case quote == '\'':
			if c == '\'' {
				quote = 0
			} else {
				out.WriteByte(c)
			}
		case c == '\\':
			if i++; i == len(data) {
				return out.String(), i
			}
			if quote == '"' && !strings.ContainsRune("\"\\$`\n", rune(data[i])) {
				out.WriteByte('\\')
			}
			if data[i] != '\n' {
				out.WriteByte(data[i])
			}
		case quote == '"':
			if c == '"' {
				quote = 0
			} else {
				out.WriteByte(c)
			}
		case c == '"' || c == '\'':
			quote = c
		case isSpace(c) || c == ';' || c == '&' || c == '|':
			return out.String(), i
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), len(data)
}

// unwrapAssignments takes the user data out of a context.sh, and says where it
// was; "" when data is not one.
func unwrapAssignments(data []byte) (inner []byte, found string) {
	// A context of its own, which may well contain such a line, comes first.
	if startsLikeContext(data) {
		return nil, ""
	}
	encoding := ""
	values := map[string]string{}
	for _, a := range ParseAssignments(data) {
		switch a.Name {
		case "EC2_USER_DATA", "USER_DATA", "USERDATA":
			values[a.Name] = a.Value
		case "USERDATA_ENCODING", "USER_DATA_ENCODING":
			encoding = a.Value
		}
	}
	// Compat: the boot loader and amiconfig know EC2_USER_DATA only, which is
	// always base64 (cernvm-micro: scripts.d/06context).
	if v := values["EC2_USER_DATA"]; v != "" {
		if plain, err := base64.StdEncoding.DecodeString(stripSpace([]byte(v))); err == nil {
			return plain, "context.sh EC2_USER_DATA"
		}
	}
	for _, name := range []string{"USER_DATA", "USERDATA"} {
		v := values[name]
		if v == "" {
			continue
		}
		if encoding != "base64" {
			return []byte(v), "context.sh " + name
		}
		if plain, err := base64.StdEncoding.DecodeString(stripSpace([]byte(v))); err == nil {
			return plain, "context.sh " + name
		}
	}
	return nil, ""
}

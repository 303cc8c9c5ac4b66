package usercontext

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strings"
)

// Glidein are the options of a glideinWMS pilot that concern the boot loader.
type Glidein struct {
	Proxy   string // CVMFS_HTTP_PROXY syntax
	PACURLs string
	Site    string // CMS_LOCAL_SITE
}

var glideinMark = regexp.MustCompile(`#### -cluster [0-9]* -subcluster [0-9]*####`)

// ParseGlidein reads the user data of a glideinWMS pilot: base64 of lines
// key=value, then a mark in number signs, on one line.
//
// Compat: cernvm-micro: scripts.d/06context.
//
// Differs: the values are not handed to a shell, so ";" and "|" in them survive.
func ParseGlidein(data []byte) (Glidein, bool) {
	if bytes.Count(data, []byte{'\n'}) > 1 || !glideinMark.Match(data) {
		return Glidein{}, false
	}
	packed, _, _ := bytes.Cut(data, []byte{'#'})
	plain, err := base64.StdEncoding.DecodeString(stripSpace(packed))
	if err != nil || len(plain) > MaxSize {
		return Glidein{}, false
	}
	var g Glidein
	for _, l := range splitLines(plain) {
		if !strings.HasPrefix(l.text, "args") {
			continue
		}
		_, args, _ := strings.Cut(l.text, "=")
		words := strings.Fields(args)
		for i := 0; i+1 < len(words); i++ {
			switch strings.TrimPrefix(words[i], "-param_CERNVM_CMS_") {
			case "PROXY":
				g.Proxy = glideinValue(words[i+1])
			case "PAC_URLS":
				g.PACURLs = glideinValue(words[i+1])
			case "SITE":
				g.Site = glideinValue(words[i+1])
			}
		}
		break
	}
	return g, true
}

func glideinValue(v string) string {
	return strings.NewReplacer(".semicolon,", ";", ".colon,", ":", ".pipe,", "|", ".minus,", "-", ".dot,", ".").Replace(v)
}

// Block returns the pilot's options as the boot loader's keys.
func (g Glidein) Block() Block {
	b := Block{Keys: map[string]string{}}
	set := func(key, value string) {
		if value != "" {
			b.Found = true
			b.Keys[key] = value
			b.Settings = append(b.Settings, Setting{Line: 1, Column: 1, ValueColumn: 1, Key: key, Value: value, Raw: value})
		}
	}
	set("cvmfs_http_proxy", g.Proxy)
	set("cvmfs_pac_urls", g.PACURLs)
	return b
}

package amiconfig

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/micavm/mica/internal/tier"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

func TestTableIsTheGrammarsList(t *testing.T) {
	var names []string
	for _, p := range plugins.Table() {
		names = append(names, p.Name)
		if p.Does == "" || p.Apply == nil {
			t.Errorf("plugin %q lacks what it does", p.Name)
		}
		for _, k := range p.Keys {
			if k.Meaning == "" || k.Kind == "" || k.Name != strings.ToLower(k.Name) {
				t.Errorf("plugin %q: key %+v lacks a meaning or a kind, or is not in lower case", p.Name, k)
			}
		}
	}
	if !slices.Equal(names, usercontext.Plugins()) {
		t.Errorf("Table() = %v, the grammar knows %v", names, usercontext.Plugins())
	}
}

// ran applies a context to a small system and returns what there is to see.
func ran(t *testing.T, text string) (dir string, root *guest.Root, rep Report) {
	t.Helper()
	dir = tree(t, nil)
	root = open(t, dir, shellOnly{t, dir})
	return dir, root, apply(t, root, Input{UserData: []byte(text), InstanceID: "i-1"}, Options{})
}

func code(rep Report, name string) int {
	for _, p := range rep.Plugins {
		if p.Name == name {
			return p.Code
		}
	}
	return -1
}

func warned(rep Report, text string) bool {
	return slices.ContainsFunc(rep.Warnings, func(w string) bool { return strings.Contains(w, text) })
}

// Traps of contexts: each is something that breaks, or seems to, with the original
// agents. The names are what the trap is, the bodies what happens here.
func TestTraps(t *testing.T) {
	const user = "[cernvm]\nusers=u:u:p\n"
	has := func(t *testing.T, dir, name string) bool {
		t.Helper()
		return strings.Contains(read(t, dir, "etc/passwd"), "\n"+name+":")
	}

	t.Run("plugins separated by blanks", func(t *testing.T) {
		_, _, rep := ran(t, "[amiconfig]\nplugins=cernvm hostname\n"+user)
		if code(rep, "cernvm") != CodeDone || code(rep, "hostname") != CodeDone || len(rep.Warnings) > 0 {
			t.Errorf("plugins %+v, warnings %v, want both run without a word", rep.Plugins, rep.Warnings)
		}
	})
	t.Run("plugins separated by commas", func(t *testing.T) {
		dir, _, rep := ran(t, "[amiconfig]\nplugins=cernvm,hostname\n"+user)
		if !has(t, dir, "u") || !warned(rep, "commas") {
			t.Errorf("warnings %v, want the user made and a warning", rep.Warnings)
		}
	})
	t.Run("section in another case", func(t *testing.T) {
		for _, text := range []string{"[amiconfig]\nplugins=cernvm\n[CernVM]\nusers=u:u:p\n", "[AMICONFIG]\nplugins=cernvm\n" + user} {
			dir, _, rep := ran(t, text)
			if !has(t, dir, "u") || !warned(rep, "in this case") {
				t.Errorf("%q: warnings %v, want the user made and a warning", text, rep.Warnings)
			}
		}
	})
	t.Run("no continuation lines", func(t *testing.T) {
		_, _, rep := ran(t, "[cernvm]\nservices=a1,\n  b1\n")
		if !warned(rep, `"a1"`) || warned(rep, "b1") {
			t.Errorf("warnings %v, want a1 only", rep.Warnings)
		}
	})
	t.Run("semicolon after a blank cuts", func(t *testing.T) {
		for value, want := range map[string]string{"http://h:1 ;DIRECT": "CVMFS_HTTP_PROXY=http://h:1\n", "http://h:1;DIRECT": "CVMFS_HTTP_PROXY=\"http://h:1;DIRECT\"\n"} {
			dir, _, _ := ran(t, "[cernvm]\nproxy="+value+"\n")
			if got := read(t, dir, "etc/cvmfs/site.conf"); got != want {
				t.Errorf("proxy=%s: %q, want %q", value, got, want)
			}
		}
	})
	t.Run("percent and dollar are literal", func(t *testing.T) {
		dir, _, _ := ran(t, "[cernvm]\ndesktop_icons=A,QQ==%B,Qg==\nusers=u:u:$6$salt$abc%(x)s\nenvironment=P=%(x)s\n")
		if read(t, dir, "etc/skel/Desktop/A.desktop") != "A" || read(t, dir, "etc/skel/Desktop/B.desktop") != "B" {
			t.Error("the icons are not two files")
		}
		if got := read(t, dir, "etc/cernvm/environment.conf"); got != "P=\"%(x)s\"\n" {
			t.Errorf("environment.conf = %q", got)
		}
	})
	t.Run("blank lines of here-documents stay", func(t *testing.T) {
		dir, _, _ := ran(t, "#!/bin/sh\ncat >f <<E\na\n\nb\nE\nexit 0\n")
		if got := read(t, dir, "f"); got != "a\n\nb\n" {
			t.Errorf("the script wrote %q, want the gap", got)
		}
	})
	t.Run("a script with a shebang in a here-document runs once", func(t *testing.T) {
		text := "#!/bin/sh.before\ncat >x <<E\n#!/bin/sh\nE\necho ran >>n\nexit 0\n"
		dir, _, rep := ran(t, text)
		if got := read(t, dir, "n"); got != "ran\n" || len(rep.Scripts) != 1 || rep.Scripts[0].Phase != "before" {
			t.Errorf("ran %q, scripts %+v, want once, before", got, rep.Scripts)
		}
		dir = tree(t, nil)
		rep = apply(t, open(t, dir, shellOnly{t, dir}), Input{UserData: []byte(text)}, Options{RunTwice: true})
		if got := read(t, dir, "n"); got != "ran\nran\n" || len(rep.Scripts) != 2 {
			t.Errorf("as the original: ran %q, scripts %+v, want twice", got, rep.Scripts)
		}
	})
	t.Run("sections in a here-document count", func(t *testing.T) {
		dir, _, _ := ran(t, "#!/bin/sh\ncat >f <<E\n[cernvm]\nusers=x:x:x\nE\nexit 0\n")
		if !has(t, dir, "x") {
			t.Error("the section of the here-document was not read, the original does")
		}
	})
	t.Run("shebang with options, carriage return or blank", func(t *testing.T) {
		for _, top := range []string{"#!/bin/bash -e", "#!/bin/sh ", "#!/bin/sh\r", "#!/usr/bin/env bash"} {
			dir, _, rep := ran(t, top+"\necho ran >f\nexit 0\n")
			if len(rep.Scripts) != 1 || read(t, dir, "f") != "ran\n" {
				t.Errorf("%q: scripts %+v, want one run", top, rep.Scripts)
			}
		}
		_, _, rep := ran(t, "#!/usr/bin/python\nprint(1)\n")
		if len(rep.Scripts) != 0 || !warned(rep, "no shell") {
			t.Errorf("python: scripts %+v, warnings %v, want none and a warning", rep.Scripts, rep.Warnings)
		}
		dir, _, rep := ran(t, "#!/bin/sh -e\nfalse\necho ran >f\nexit 0\n")
		if rep.Scripts[0].Code != 1 {
			t.Errorf("-e: exit code %d in %s, want 1", rep.Scripts[0].Code, dir)
		}
	})
	t.Run("missing exit", func(t *testing.T) {
		dir, _, rep := ran(t, "#!/bin/sh\necho ran >f\n[amiconfig]\nplugins=cernvm\n"+user)
		if read(t, dir, "f") != "ran\n" || !has(t, dir, "u") || len(rep.Scripts) != 1 {
			t.Errorf("scripts %+v, want it run, and the user made", rep.Scripts)
		}
	})
	t.Run("unclosed quote", func(t *testing.T) {
		dir, _, rep := ran(t, "#!/bin/sh\necho ran >f\necho 'x\nexit 0\n[amiconfig]\nplugins=cernvm\n"+user)
		if read(t, dir, "f") != "ran\n" || !has(t, dir, "u") || rep.Scripts[0].Code == 0 {
			t.Errorf("scripts %+v, want what is above the quote run, an error of the shell, and the user made", rep.Scripts)
		}
	})
	t.Run("kinds of hashes", func(t *testing.T) {
		for _, hash := range []string{"$5$salt$abc", "$y$j9T$salt$abc", "$2b$12$abcdefghijklmnopqrstuv", "$1$salt$abc"} {
			dir, _, _ := ran(t, "[cernvm]\nusers=u:u:"+hash+"\n")
			if got := read(t, dir, "etc/shadow"); !strings.Contains(got, "u:"+hash+":") {
				t.Errorf("shadow = %q, want %s as it is", got, hash)
			}
		}
	})
	t.Run("colon or comma in a password", func(t *testing.T) {
		dir, root, rep := ran(t, "[cernvm]\nrepositories=r\nusers=u:g:a:b,v:v:c,\"w:w:x,y:z\"\n")
		if has(t, dir, "u") || !has(t, dir, "v") || !has(t, dir, "w") {
			t.Errorf("passwd = %q, want v and w without u", read(t, dir, "etc/passwd"))
		}
		if ok, err := root.PasswordIs("w", "x,y:z"); !ok || err != nil {
			t.Errorf("the password of w is another one: %v", err)
		}
		if code(rep, "cernvm") != CodeFailed || strings.Contains(rep.Detail+rep.Log(), "a:b") {
			t.Errorf("log %q, want a failure that does not say the password", rep.Log())
		}
	})
	t.Run("the rest of a password with a comma is not shown", func(t *testing.T) {
		_, _, rep := ran(t, "[cernvm]\nusers=u:u:pass,worD\nenvironment=T=tok,en1\n")
		if text := rep.Log() + string(rep.JSON()); strings.Contains(text, "worD") || strings.Contains(text, "en1") {
			t.Errorf("the report shows it: %s", text)
		}
	})
	t.Run("equals sign in an environment value", func(t *testing.T) {
		dir, _, _ := ran(t, "[cernvm]\nenvironment=OPTS=--x=1\nusers=u:u:p\n")
		if !has(t, dir, "u") || read(t, dir, "etc/cernvm/environment.conf") != "OPTS=--x=1\n" {
			t.Errorf("environment.conf = %q", read(t, dir, "etc/cernvm/environment.conf"))
		}
	})
	t.Run("a key does not eat others that begin so", func(t *testing.T) {
		dir, _, _ := ran(t, "[cernvm]\nshell=/bin/zsh\nenvironment=ROOTSYS=/a,ROOT=/b\nusers=u:u:p\n")
		if got := read(t, dir, "etc/cernvm/site.conf"); !strings.Contains(got, "CERNVM_USER_SHELL=/bin/zsh\n") || !strings.Contains(got, "CERNVM_USER=u\n") {
			t.Errorf("site.conf = %q, want both", got)
		}
		if got := read(t, dir, "etc/cernvm/environment.conf"); got != "ROOTSYS=/a\nROOT=/b\n" {
			t.Errorf("environment.conf = %q", got)
		}
	})
	t.Run("carriage returns", func(t *testing.T) {
		dir, _, _ := ran(t, strings.ReplaceAll("[amiconfig]\nplugins=cernvm\n"+user, "\n", "\r\n"))
		if !has(t, dir, "u") {
			t.Error("the user was not made")
		}
	})
	t.Run("dead keys and names", func(t *testing.T) {
		_, _, rep := ran(t, "[amiconfig]\nplugins=cernvm ldap nosuch rapadminpassword\ndisabed_plugins=hostname\n[cernvm]\nconfig_url=http://x\ngroup_profile=g\n[nss]\npassword=files\n")
		for _, text := range []string{"amildap", `"nosuch"`, "rapadminpassword", "disabed_plugins", "[nss] has no effect"} {
			if !warned(rep, text) {
				t.Errorf("warnings %v, want one about %s", rep.Warnings, text)
			}
		}
		if code(rep, "cernvm") != CodeDone {
			t.Errorf("cernvm: %+v, want no failure", rep.Plugins)
		}
	})
	t.Run("mime part behind the sections", func(t *testing.T) {
		dir, _, _ := ran(t, "Content-Type: multipart/mixed; boundary=\"B\"\nMIME-Version: 1.0\n\n--B\nContent-Type: text/amiconfig-user-data\n\n"+user+
			"--B\nContent-Type: text/cloud-config\n\n#cloud-config\nusers:\n - name: x\n--B--\n")
		if !has(t, dir, "u") {
			t.Error("the user of the section was not made: cloud-config took its place")
		}
	})
	t.Run("encoded mime part", func(t *testing.T) {
		dir, _, _ := ran(t, "Content-Type: multipart/mixed; boundary=\"B\"\nMIME-Version: 1.0\n\n--B\nContent-Type: text/amiconfig-user-data\nContent-Transfer-Encoding: base64\n\nW2Nlcm52bV0KdXNlcnM9dTp1OnAK\n--B--\n")
		if !has(t, dir, "u") {
			t.Error("the user of the encoded part was not made")
		}
	})
	t.Run("byte order mark", func(t *testing.T) {
		dir, _, _ := ran(t, "\xef\xbb\xbf"+user)
		if !has(t, dir, "u") {
			t.Error("the user was not made")
		}
	})
	t.Run("an error page is no key", func(t *testing.T) {
		dir := tree(t, nil)
		rep := apply(t, open(t, dir, nil), Input{PublicKeys: []string{"404 - Not Found", testKey}}, Options{})
		if got := read(t, dir, "root/.ssh/authorized_keys"); got != testKey+"\n" || code(rep, "rootsshkeys") != CodeFailed {
			t.Errorf("authorized_keys = %q, code %d, want the key alone and a failure", got, code(rep, "rootsshkeys"))
		}
	})
	t.Run("a failed first run is not repeated", func(t *testing.T) {
		dir := tree(t, nil)
		in := Input{UserData: []byte("[cernvm]\nusers=broken\n")}
		apply(t, open(t, dir, nil), in, Options{})
		read(t, dir, "var/lib/amiconfig/user.done")
		if rep := apply(t, open(t, dir, nil), in, Options{}); rep.First {
			t.Error("it ran again")
		}
	})
	t.Run("an empty value removes the key", func(t *testing.T) {
		dir := tree(t, map[string]string{"etc/cernvm/site.conf": "CERNVM_ORGANISATION=x\nCERNVM_KEYBOARD=us\n"})
		apply(t, open(t, dir, nil), Input{UserData: []byte("[cernvm]\norganisations=\n")}, Options{})
		if got := read(t, dir, "etc/cernvm/site.conf"); got != "CERNVM_KEYBOARD=us\n" {
			t.Errorf("site.conf = %q", got)
		}
	})
	t.Run("plugins named twice", func(t *testing.T) {
		_, _, rep := ran(t, "[amiconfig]\nplugins=cernvm\n"+user+"[amiconfig]\nplugins=hostname\n")
		if code(rep, "cernvm") != CodeDisabled || code(rep, "hostname") != CodeDone || !warned(rep, "[cernvm] has no effect") {
			t.Errorf("plugins %+v, warnings %v, want the last list alone, and a warning", rep.Plugins, rep.Warnings)
		}
	})
	t.Run("colon separates too", func(t *testing.T) {
		dir, _, _ := ran(t, "[cernvm]\nusers: u:u:p\nhttp://x/y\n")
		if !has(t, dir, "u") {
			t.Error("the user was not made")
		}
	})
	t.Run("the proxy stays at the second boot", func(t *testing.T) {
		dir := tree(t, nil)
		in := Input{UserData: []byte("[cernvm]\nproxy=http://h:1;DIRECT\n")}
		apply(t, open(t, dir, nil), in, Options{})
		name := "etc/cvmfs/site.conf"
		first := read(t, dir, name)
		root := open(t, dir, nil)
		if err := root.WriteFile(name, []byte(first+"CVMFS_HTTP_PROXY=\"auto;DIRECT\"\n"), guest.Attr{}); err != nil {
			t.Fatal(err)
		}
		apply(t, root, in, Options{})
		if got := read(t, dir, name); got != first {
			t.Errorf("site.conf = %q, want %q", got, first)
		}
	})
	t.Run("rootsshkeys is always on, unless turned off", func(t *testing.T) {
		_, _, rep := ran(t, "[amiconfig]\nplugins=hostname\n")
		if code(rep, "rootsshkeys") != CodeDone {
			t.Errorf("code %d, want done", code(rep, "rootsshkeys"))
		}
		_, _, rep = ran(t, "[amiconfig]\ndisabled_plugins=rootsshkeys\n")
		if code(rep, "rootsshkeys") != CodeDisabled {
			t.Errorf("code %d, want disabled", code(rep, "rootsshkeys"))
		}
	})
	t.Run("the system's own list of plugins", func(t *testing.T) {
		dir := tree(t, map[string]string{"etc/amiconfig/default.cfg": "[general]\nenabled_plugins = hostname, nss\ndisabled_plugins = cernvm\n"})
		rep := apply(t, open(t, dir, nil), Input{UserData: []byte(user)}, Options{})
		if code(rep, "nss") != CodeDone || code(rep, "cernvm") != CodeDisabled || !warned(rep, "default.cfg") {
			t.Errorf("plugins %+v, warnings %v", rep.Plugins, rep.Warnings)
		}
	})
	t.Run("cloud-init runs the script as well", func(t *testing.T) {
		for text, want := range map[string]bool{"#!/bin/sh\nexit 0\n": true, "#!/bin/sh\n# amiconfig?\nexit 0\n": false} {
			dir := tree(t, map[string]string{"usr/bin/cloud-init": ""})
			rep := apply(t, open(t, dir, shellOnly{t, dir}), Input{UserData: []byte(text)}, Options{})
			if warned(rep, "run twice") != want {
				t.Errorf("%q: warnings %v, want a warning: %v", text, rep.Warnings, want)
			}
		}
	})
	t.Run("cloud-init's own part is left to it", func(t *testing.T) {
		mime := "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/x-shellscript\n\n#!/bin/sh\nexit 0\n--B--\n"
		for cloudInit, want := range map[string]int{"usr/bin/cloud-init": 0, "usr/bin/other": 1} {
			dir := tree(t, map[string]string{cloudInit: ""})
			rep := apply(t, open(t, dir, shellOnly{t, dir}), Input{UserData: []byte(mime)}, Options{})
			if len(rep.Scripts) != want || warned(rep, "run twice") {
				t.Errorf("%s: scripts %+v, warnings %v; want %d scripts", cloudInit, rep.Scripts, rep.Warnings, want)
			}
		}
	})
	t.Run("cloud-init is masked for this boot", func(t *testing.T) {
		tier.Root(t) // makes a device
		dir := tree(t, map[string]string{"usr/bin/cloud-init": "", "run/systemd/system/.empty": "", "dev/.empty": ""})
		if err := unix.Mknod(filepath.Join(dir, "dev/null"), unix.S_IFCHR|0o666, 1<<8|3); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/null", filepath.Join(dir, "run/systemd/system/cloud-final.service")); err != nil {
			t.Fatal(err)
		}
		rep := apply(t, open(t, dir, shellOnly{t, dir}), Input{UserData: []byte("#!/bin/sh\nexit 0\n")}, Options{})
		if warned(rep, "run twice") {
			t.Errorf("warnings %v, want none: cloud-init does not run", rep.Warnings)
		}
	})
}

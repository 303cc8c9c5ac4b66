package lint

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

// Reference returns docs/reference/context-keys.md: every key, option and rule.
func Reference() []byte {
	var out bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("# Reference: keys, options and rules of contexts")
	line("")
	line("This page is made from the tables in the code; change those, then run")
	line("`go test ./internal/usercontext/lint -run TestReference -update`.")
	line("How to write a context is told in [the first context](../howto/first-context.md).")
	line("")
	line("In the column *state*, **supported** does what it says; **ignored** is understood, and nothing comes of it, for")
	line("the reason given; **rejected** is an error of `mica context check`, although a machine boots all the same.")
	line("")
	line("## The script")
	line("")
	line("A context may start with a shell script. Its first line says when it runs:")
	line("")
	line("| First line | Runs | On an original CernVM |")
	line("| --- | --- | --- |")
	for _, first := range []string{"#!/bin/sh", "#!/bin/sh.after", "#!/bin/sh.before", "#!/bin/bash", "#!/usr/bin/env bash", "#!/bin/bash -e", "#!/usr/bin/python3"} {
		s := usercontext.ParseScript([]byte(first + "\nexit 0\n"))
		line("| `%s` | %s | %s |", first, phase(s.Before, s.After), phase(s.Original.Before, s.Original.After))
	}
	line("")
	line("The script runs once, as root, and ends with `exit` at the left margin.")
	line("")
	line("## The boot loader's block")
	line("")
	line("Between the lines `%s` and `%s`, each `key=value` without blanks around `=`. There are no comments.", usercontext.BlockBegin, usercontext.BlockEnd)
	line("")
	line("| Key | Value | State | Meaning |")
	line("| --- | --- | --- | --- |")
	for _, k := range usercontext.BootKeyTable() {
		if k.Dead != "" {
			line("| `%s` | %s | rejected | %s; write `%s` |", k.Name, k.Kind, k.Dead, k.Use)
			continue
		}
		if k.Ignored != "" {
			line("| `%s` | %s | ignored | %s. Ignored: %s |", k.Name, k.Kind, cell(k.Text), cell(k.Ignored))
			continue
		}
		line("| `%s` | %s | supported | %s |", k.Name, k.Kind, cell(k.Text))
	}
	line("")
	line("Any other key is rejected (U001).")
	line("")
	line("## Sections of options")
	line("")
	line("Each plugin reads the section of its name. The section `[amiconfig]` has two options: `plugins` lists what runs, with")
	line("blanks between the names, and `disabled_plugins` what does not. Without `plugins`, a section `[cernvm]` enables its")
	line("plugin. The plugins run in the order of this page.")
	for _, name := range usercontext.Plugins() {
		p, ok := plugins.ByName(name)
		if !ok {
			continue
		}
		line("")
		line("### %s", p.Name)
		line("")
		about := p.Does
		if p.Always {
			about += "; always enabled"
		}
		line("%s.", strings.ToUpper(about[:1])+about[1:])
		if len(p.Keys) == 0 {
			line("")
			line("No options.")
			continue
		}
		line("")
		line("| Option | Value | Default | State | Meaning |")
		line("| --- | --- | --- | --- | --- |")
		for _, k := range p.Keys {
			line("| `%s` | %s | %s | %s | %s |", k.Name, k.Kind, cell(k.Default), state(k), cell(k.Meaning))
		}
	}
	line("")
	line("Obsolete plugins, ignored: %s.", "`"+strings.Join(usercontext.ObsoletePlugins(), "`, `")+"`")
	line("")
	line("## Rules of `mica context check`")
	line("")
	line("| Rule | Severity | Finds | Because |")
	line("| --- | --- | --- | --- |")
	for _, r := range Rules() {
		line("| %s | %s | %s | %s |", r.ID, r.Severity, cell(r.Text), cell(r.Why))
	}
	line("")
	line("The severity is the usual one; a finding may be milder. The exit code is 1 for errors, and for warnings with")
	line("`--werror`; 2 for a wrong command line; 4 for a file that does not exist; else 0.")
	return out.Bytes()
}

func state(k plugins.Key) string {
	var words []string
	if k.NoEffect {
		words = append(words, "ignored")
	} else {
		words = append(words, "supported")
	}
	if k.Required {
		words = append(words, "required")
	}
	if k.Secret {
		words = append(words, "secret")
	}
	return strings.Join(words, ", ")
}

func phase(before, after bool) string {
	switch {
	case before && after:
		return "before and after the plugins"
	case before:
		return "before the plugins"
	case after:
		return "after the plugins"
	}
	return "never"
}

// cell makes a text fit into a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/micavm/mica/internal/machine/params"
)

// paramFlags are the flags of the creation parameters, by name.
type paramFlags map[string]*paramFlag

// paramFlag keeps the words as they were written: package params reads them.
type paramFlag struct {
	param  params.Param
	values []string
	set    bool
}

// String returns what help shows as the default.
func (f *paramFlag) String() string {
	if f.set {
		return strings.Join(f.values, ",")
	}
	return f.param.Default
}

// Type is what help calls the value.
func (f *paramFlag) Type() string {
	if f.param.Value == "" {
		return "bool"
	}
	return f.param.Value
}

// Set takes one value. Several of a list add up; of anything else the last counts.
func (f *paramFlag) Set(value string) error {
	if !f.param.List {
		f.values = nil
	}
	f.values, f.set = append(f.values, value), true
	return nil
}

// add puts a flag for each parameter on the command, those in without excepted.
func (p *paramFlags) add(cmd *cobra.Command, without ...string) {
	*p = paramFlags{}
	for _, param := range params.All() {
		if param.FileKey || slices.Contains(without, param.Name) {
			continue
		}
		f := &paramFlag{param: param}
		(*p)[param.Name] = f
		usage := param.Usage
		if param.List {
			usage += " (may be repeated)"
		}
		flag := cmd.Flags().VarPF(f, param.Name, "", usage)
		if param.Value == "" {
			flag.NoOptDefVal = "true"
		}
	}
}

// given returns those that are on the command line.
func (p paramFlags) given() map[string][]string {
	given := map[string][]string{}
	for name, f := range p {
		if f.set {
			given[name] = f.values
		}
	}
	return given
}

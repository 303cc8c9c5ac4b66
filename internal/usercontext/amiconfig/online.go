package amiconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/online"
	"github.com/micavm/mica/internal/version"
)

// onlineResult is the name under which the fetched context is reported.
const onlineResult = "cernvm-online"

// online fetches the context that contextualization_key names, once per machine,
// and applies it after the one that was delivered. It returns the pass of both, for
// what comes last at each boot. A context that could not be fetched is asked for
// again at the next boot.
//
// Compat: cernvm-online-guest: usr/sbin/cernvm-online.sh, mode site: the second
// context is applied whatever was applied before, and stays on the machine.
//
// Differs: the system's own authorities vouch for the site; cvm_service_url names
// another site; a context that cannot be had is a failure of the whole, since the
// machine is not what it should be.
func (r *run) online(ctx context.Context, first pass) pass {
	if kept, err := r.root.ReadFile(onlineCopy); err == nil && !r.report.First {
		in := first.in
		in.UserData, in.Extra = kept, nil
		return r.second(ctx, first, in, false)
	}
	text, _ := first.sections.find("cernvm").Lookup("contextualization_key")
	if text == "" || !first.on["cernvm"] {
		return first
	}
	key, err := online.ParseKey(text)
	if err != nil {
		r.fetched(err)
		return first
	}
	return r.fetchOnline(ctx, first, key)
}

// fetchOnline fetches a context, keeps it and applies it after the first one.
func (r *run) fetchOnline(ctx context.Context, first pass, key online.Key) pass {
	fetched, err := r.fetch(ctx, key, siteOf(first.in.UserData))
	if r.root.Pretend() && errors.Is(err, guest.ErrOffline) {
		r.warnings.add("contextualization_key: another context, of CernVM Online, is fetched and applied after this one; it is not looked at here")
		return first
	}
	r.fetched(err)
	if err != nil {
		return first
	}
	in := first.in
	in.UserData, in.Extra = fetched.UserData, nil
	if fetched.RootKey != "" {
		in.PublicKeys = append(slices.Clone(in.PublicKeys), fetched.RootKey)
	}
	if err := writeMetadata(r.root, onlineRoot, in); err != nil {
		r.warnings.add("%v", err)
	}
	return r.second(ctx, first, in, true)
}

// second goes through the fetched context, and returns what both say together.
func (r *run) second(ctx context.Context, first pass, in Input, once bool) pass {
	p := pass{in: in, metadata: onlineRoot, once: once, view: parseContext("the context of CernVM Online", in.UserData, r.warnings.add)}
	p.sections = sections{p.view.ami, r.warnings.add}
	p.on = enabled(r.root, r.options.Config, in.Hostname, p.sections)
	r.pass(ctx, p)
	if once && p.on["cernvm"] {
		r.listUsers(p.sections)
	}
	both := pass{in: first.in, sections: sections{first.view.ami.Overlay(p.view.ami), r.warnings.add}, on: map[string]bool{}}
	for name, on := range first.on {
		both.on[name] = on
	}
	for name := range p.on {
		both.on[name] = true
	}
	return both
}

// siteOf returns the site that the context names, "" for the usual one.
func siteOf(userData []byte) string {
	c, err := usercontext.Parse("user-data", userData)
	if err != nil {
		return ""
	}
	return c.Block().Keys["cvm_service_url"]
}

// fetch asks the site for a context and notes what it was.
func (r *run) fetch(ctx context.Context, key online.Key, site string) (online.Fetched, error) {
	id, err := machineUUID(r.root)
	if err != nil {
		return online.Fetched{}, err
	}
	client := online.Client{Site: site, UUID: id, Version: "mica-" + version.Number, Get: r.root.HTTP}
	fetched, err := client.Fetch(ctx, key)
	if err != nil {
		return online.Fetched{}, err
	}
	conf := fmt.Sprintf("VM_UUID=%s\nVM_CRYPTO_SALT=%s\nVM_CONTEXT_ID=%s\nVM_CONTEXT_NAME=\"%s\"\n", id, key.Salt(), fetched.ID, fetched.Name)
	return fetched, r.root.WriteFile(onlineConf, []byte(conf), guest.Attr{Mode: 0o600})
}

// machineUUID returns what the site knows this machine by, made up at first.
func machineUUID(root *guest.Root) (string, error) {
	if data, err := root.ReadFile(onlineConf); err == nil {
		for _, a := range usercontext.ParseAssignments(data) {
			if a.Name == "VM_UUID" && guest.IsUUID(a.Value) {
				return a.Value, nil
			}
		}
	}
	return root.UUID()
}

// fetched reports what came of fetching.
func (r *run) fetched(err error) {
	result := PluginResult{Name: onlineResult, State: stage.Done, Code: CodeDone}
	if err != nil {
		result.State, result.Code, result.Message = stage.Failed, CodeMetadata, err.Error()
		r.failed, r.required = append(r.failed, onlineResult), true
	}
	r.report.Plugins = append(r.report.Plugins, result)
	r.options.Emit(stage.Event{
		Stage: stage.Plugin, State: result.State, Detail: result.Message,
		Facts: map[string]string{"plugin": onlineResult},
	})
}

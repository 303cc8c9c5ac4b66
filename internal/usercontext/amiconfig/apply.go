package amiconfig

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micavm/mica/internal/stage"
	"github.com/micavm/mica/internal/usercontext/amiconfig/guest"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
	"github.com/micavm/mica/internal/usercontext/online"
)

// Input is the context of a machine and what its platform says about it.
type Input struct {
	UserData   []byte // unwrapped
	Extra      []byte // from the boot medium, its options are laid over the others'
	PublicKeys []string
	Hostname   string
	InstanceID string
	// Values are others of the platform, by their names in EC2's tree.
	Values map[string]string
}

// Options says how to apply. The zero value is what a boot does.
type Options struct {
	Force bool     // run the once-per-machine part again
	Only  []string // run these plugins alone, whatever is enabled, and no script

	Online online.Key // fetch and apply this context of CernVM Online instead of the machine's

	Config        string // the system's list of plugins, "" for /etc/amiconfig/default.cfg
	NoScripts     bool
	RunTwice      bool          // Compat: run a script in both phases where the original would
	ScriptTimeout time.Duration // zero is none
	NoMarker      bool          // do not remember that the machine is set up

	Emit  func(stage.Event)                           // hears of plugins and scripts; nil discards
	Facts func(ctx context.Context) map[string]string // what else the host should know; nil is nothing
}

// Apply makes the system behind root be what the context says. The error is nil
// unless ctx ended; what failed is in the report, whose State sums it up: Failed
// when a required plugin failed, Warned when anything else did.
func Apply(ctx context.Context, root *guest.Root, in Input, o Options) (Report, error) {
	r := &run{root: root, in: in, options: o}
	if r.options.Emit == nil {
		r.options.Emit = func(stage.Event) {}
	}
	r.report = Report{
		Schema: 1, InstanceID: in.InstanceID, Context: digest(in.UserData),
		Began: root.Now(), Facts: map[string]string{},
	}
	r.all(ctx)
	r.report.Warnings = r.warnings.list
	r.report.Seconds = root.Now().Sub(r.report.Began).Seconds()
	r.conclude(ctx)
	return r.report, ctx.Err()
}

// run is one Apply.
type run struct {
	root     *guest.Root
	in       Input
	options  Options
	warnings warnings
	report   Report
	failed   []string // plugins
	required bool     // one of them was required
}

func (r *run) all(ctx context.Context) {
	view := readContext(r.in, r.warnings.add)
	table := plugins.Table()
	s := sections{view.ami, r.warnings.add}
	for _, p := range table {
		r.report.Plugins = append(r.report.Plugins, PluginResult{Name: p.Name, State: stage.Skipped, Code: CodeDisabled, Message: "disabled"})
	}
	if len(r.options.Only) > 0 {
		r.only(ctx, s, table)
		return
	}
	if r.options.Online != (online.Key{}) {
		r.report.First = true
		r.last(ctx, r.fetchOnline(ctx, pass{view: parseContext("", nil, nil), in: r.in}, r.options.Online))
		return
	}
	on := enabled(r.root, r.options.Config, r.in.Hostname, s)
	s.unused(on, table)
	before, known := readApplied(r.root)
	r.report.First = r.options.Force || due(r.root, r.in.InstanceID)
	if !r.report.First && known && before.Context != r.report.Context {
		r.warnings.add("the context has changed since it was applied to this machine; 'mica-guest apply --force' applies it again")
	}
	if r.report.First {
		if err := writeMetadata(r.root, metaRoot, r.in); err != nil {
			r.warnings.add("%v", err)
		}
	}
	first := pass{view: view, sections: s, on: on, in: r.in, metadata: metaRoot, once: r.report.First}
	r.pass(ctx, first)
	r.users(first, before)
	r.last(ctx, r.online(ctx, first))
	if r.report.First && !r.root.Pretend() && !r.options.NoMarker {
		r.remember()
	}
}

// last does what comes last at each boot.
func (r *run) last(ctx context.Context, p pass) {
	for _, plugin := range plugins.Table() {
		if plugin.Last != nil && p.on[plugin.Name] {
			r.step(ctx, plugin, p, true, plugin.Last)
		}
	}
}

// pass is one context to go through.
type pass struct {
	view     view
	sections sections
	on       map[string]bool // plugins
	in       Input
	metadata string // directory of the context and of what the platform says
	once     bool   // the once-per-machine part is due
}

// pass does everything but what comes last at each boot.
func (r *run) pass(ctx context.Context, p pass) {
	script := p.view.script
	runBefore, runAfter := script.Before, script.After && !script.Before
	if r.options.RunTwice {
		runBefore, runAfter = script.Original.Before, script.Original.After
	}
	if script.Present && !script.Before && !script.After {
		r.warnings.add("the script in line %d is not run: its interpreter is no shell", script.Line)
	}
	if p.once && runBefore {
		r.script(ctx, "before", p)
	}
	for _, plugin := range plugins.Table() {
		if p.on[plugin.Name] {
			r.plugin(ctx, plugin, p)
		}
	}
	if p.view.pilot != nil && p.once {
		if err := pilot(ctx, r.root, *p.view.pilot, p.in.UserData); err != nil {
			r.warnings.add("%v", err)
		}
	}
	if p.once && runAfter {
		r.script(ctx, "after", p)
	}
}

// only runs named plugins, as `amiconfig -f` does.
func (r *run) only(ctx context.Context, s sections, table []plugins.Plugin) {
	r.report.First = true
	for _, name := range r.options.Only {
		if !slices.ContainsFunc(table, func(p plugins.Plugin) bool { return p.Name == name }) {
			r.warnings.add("there is no plugin %q", name)
		}
	}
	p := pass{sections: s, in: r.in, once: true}
	for _, plugin := range table {
		if slices.Contains(r.options.Only, plugin.Name) {
			r.plugin(ctx, plugin, p)
			if plugin.Last != nil {
				r.step(ctx, plugin, p, true, plugin.Last)
			}
		}
	}
}

// remember writes down that the machine is set up.
//
// Compat: even if something failed; only --force tries again
// (amiconfig: hepix/commands/amiconfig.sh).
func (r *run) remember() {
	a := applied{InstanceID: r.in.InstanceID, Context: r.report.Context, Users: r.report.Users}
	if err := a.write(r.root); err != nil {
		r.warnings.add("%v", err)
	}
	if err := r.root.WriteState(userDone, nil); err != nil {
		r.warnings.add("%v", err)
	}
}

// users lists the accounts of the context that exist.
func (r *run) users(p pass, before applied) {
	if !r.report.First {
		r.report.Users = before.Users
		return
	}
	if p.on["cernvm"] {
		r.listUsers(p.sections)
	}
}

func (r *run) listUsers(s sections) {
	value, _ := s.find("cernvm").Lookup("users")
	for _, name := range plugins.UserNames(value) {
		if _, ok, err := r.root.Account(name); err == nil && ok && !slices.Contains(r.report.Users, name) {
			r.report.Users = append(r.report.Users, name)
		}
	}
}

func (r *run) script(ctx context.Context, phase string, p pass) {
	script := p.view.script
	if r.options.NoScripts {
		r.warnings.add("the script in line %d is not run: scripts are turned off", script.Line)
		return
	}
	if script.CloudInit && cloudInitRuns(r.root) {
		r.options.Emit(stage.Event{
			Stage: stage.Plugin, State: stage.Skipped, Detail: "cloud-init runs this script",
			Facts: map[string]string{"plugin": "script-" + phase},
		})
		return
	}
	if text := twice(r.root, script); text != "" {
		r.warnings.add("%s", text)
	}
	res := runScript(ctx, r.root, phase, script, p.metadata, r.options.ScriptTimeout)
	r.report.Scripts = append(r.report.Scripts, res)
	r.report.Facts["script_"+phase] = strconv.Itoa(res.Code)
	e := stage.Event{
		Stage: stage.Plugin, State: stage.Done, Seconds: res.Seconds,
		Facts: map[string]string{"plugin": "script-" + phase, "exit_code": strconv.Itoa(res.Code)},
	}
	switch {
	case res.Problem != "":
		e.State, e.Detail = stage.Warned, res.Problem
	case res.Code != 0:
		e.State, e.Detail = stage.Warned, fmt.Sprintf("exit code %d", res.Code)
		e.Remedy = "see " + res.Log + " in the machine"
	}
	r.options.Emit(e)
}

// plugin runs one plugin, but for what comes last.
func (r *run) plugin(ctx context.Context, plugin plugins.Plugin, p pass) {
	var steps []step
	if p.once {
		steps = append(steps, plugin.Apply)
	}
	if plugin.EveryBoot != nil {
		steps = append(steps, plugin.EveryBoot)
	}
	r.step(ctx, plugin, p, false, steps...)
}

type step = func(context.Context, *plugins.Call) error

// step runs steps of a plugin and adds what came of it to the plugin's result. A
// late one is only heard of when it fails.
func (r *run) step(ctx context.Context, plugin plugins.Plugin, p pass, late bool, steps ...step) {
	at := slices.IndexFunc(r.report.Plugins, func(q PluginResult) bool { return q.Name == plugin.Name })
	result := &r.report.Plugins[at]
	if result.Code == CodeDisabled {
		result.Code, result.Message = CodeDone, ""
	}
	if len(steps) == 0 {
		result.Message = "done at an earlier boot"
		return
	}
	began, acted := r.root.Now(), len(r.root.Actions())
	call := &plugins.Call{
		Root: r.root, Section: p.sections.find(plugin.Name),
		Meta: plugins.Meta{InstanceID: p.in.InstanceID, Hostname: p.in.Hostname, PublicKeys: p.in.PublicKeys},
		Warn: func(format string, args ...any) {
			r.warnings.add("%s: %s", plugin.Name, fmt.Sprintf(format, args...))
		},
	}
	var texts []string
	for _, step := range steps {
		if err := guard(ctx, step, call); err != nil {
			texts = append(texts, err.Error())
		}
	}
	seconds := r.root.Now().Sub(began).Seconds()
	result.Actions += len(r.root.Actions()) - acted
	result.Seconds += seconds
	if result.State == stage.Skipped {
		result.State, result.Message = stage.Done, ""
	}
	state, message := stage.Done, strings.Join(texts, "\n")
	if len(texts) > 0 {
		state = stage.Warned
		if plugin.Required {
			state, r.required = stage.Failed, true
		}
		result.Code, result.State = CodeFailed, state
		if result.Message != "" {
			message = result.Message + "\n" + message
		}
		result.Message = message
		if !slices.Contains(r.failed, plugin.Name) {
			r.failed = append(r.failed, plugin.Name)
		}
	}
	if late && len(texts) == 0 {
		return
	}
	r.options.Emit(stage.Event{
		Stage: stage.Plugin, State: state, Seconds: seconds, Detail: message,
		Facts: map[string]string{"plugin": plugin.Name},
	})
}

// guard turns a bug in a plugin into its failure: the others still run.
func guard(ctx context.Context, step func(context.Context, *plugins.Call) error, c *plugins.Call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault of this program: %v", p)
		}
	}()
	if err := ctx.Err(); err != nil {
		return err
	}
	return step(ctx, c)
}

// conclude sums the report up.
func (r *run) conclude(ctx context.Context) {
	rep := &r.report
	switch {
	case r.required:
		rep.State = stage.Failed
	case len(r.failed) > 0 || len(rep.Warnings) > 0 || slices.ContainsFunc(rep.Scripts, func(s ScriptResult) bool { return s.Code != 0 }):
		rep.State = stage.Warned
	default:
		rep.State = stage.Done
	}
	switch {
	case len(r.failed) > 0:
		rep.Detail = "failed: " + strings.Join(r.failed, ", ")
	case len(rep.Warnings) > 0:
		rep.Detail = rep.Warnings[0]
		if n := len(rep.Warnings) - 1; n > 0 {
			rep.Detail += fmt.Sprintf(" (and %d more)", n)
		}
	default:
		for _, s := range rep.Scripts {
			if s.Code != 0 {
				rep.Detail = s.String()
			}
		}
	}
	if len(rep.Users) > 0 {
		rep.Facts["users"] = strings.Join(rep.Users, ",")
	}
	if r.options.Facts != nil {
		for k, v := range r.options.Facts(ctx) {
			rep.Facts[k] = v
		}
	}
}

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/micavm/mica/internal/usercontext"
	"github.com/micavm/mica/internal/usercontext/amiconfig/plugins"
)

const masked = "********"

// contextAgent tells what runs in the operating system after the first boot.
func contextAgent(c *usercontext.Context, o Options) Agent {
	a := Agent{Name: "Context agent (amiconfig), in the operating system"}
	sections, original := c.Amiconfig(), c.Original()
	script := c.Script()
	if script.Present && script.Before {
		a.Steps = append(a.Steps, scriptStep(c, script, "before the plugins"))
	}
	names := usercontext.EnabledPlugins(sections)
	for _, name := range names {
		a.Steps = append(a.Steps, pluginStep(sections, original.Amiconfig, name, o))
	}
	list, _ := sections.Get("amiconfig", "plugins")
	for _, name := range usercontext.PluginNames(list) {
		if !slices.Contains(usercontext.Plugins(), name) {
			a.Steps = append(a.Steps, Step{Line: optionLine(sections, "amiconfig", "plugins"), Text: fmt.Sprintf("ignores the plugin %q, which does not exist", name)})
		}
	}
	if script.Present && script.After {
		a.Steps = append(a.Steps, scriptStep(c, script, "after the plugins"))
	}
	if script.Present && !script.Before && !script.After {
		a.Steps = append(a.Steps, Step{Line: script.Line, Text: "does not run the script: its interpreter is no shell"})
	}
	if key, _ := sections.Get("cernvm", "contextualization_key"); key != "" && slices.Contains(names, "cernvm") {
		id, _, _ := strings.Cut(key, ":")
		a.Steps = append(a.Steps, Step{Line: optionLine(sections, "cernvm", "contextualization_key"), Text: fmt.Sprintf("fetches the context %s of CernVM Online and applies it, too", id)})
	}
	a.Steps = append(a.Steps, everyBoot(names, sections)...)
	if len(a.Steps) == 1 && len(sections.Sections) == 0 && !script.Present {
		a.Summary = "Nothing in the context is for it, so it only lets root log in with the machine's key."
	} else {
		a.Summary = "Once, at the first boot, in this order:"
	}
	return a
}

func optionLine(a *usercontext.Amiconfig, section, key string) int {
	options, _ := a.Section(section)
	for _, o := range options {
		if o.Key == key {
			return o.Line
		}
	}
	return 0
}

func scriptStep(c *usercontext.Context, s usercontext.Script, when string) Step {
	step := Step{Line: s.Line}
	if s.Bounded {
		step.Text = fmt.Sprintf("runs the script as root %s: lines %d to %d", when, s.Line, s.End)
	} else {
		step.Text = fmt.Sprintf("runs the script as root %s: everything from line %d on", when, s.Line)
	}
	if s.CloudInit {
		step.Text += ", unless the operating system has cloud-init, whose part it is"
	}
	o := s.Original
	switch {
	case s.CloudInit:
	case !o.Before && !o.After:
		why := o.Why
		if why == "" {
			why = "the #! line is not one it knows"
		}
		step.Original = "does not run it: " + why
	case o.Before && o.After:
		step.Original = "runs it twice, before and after the plugins"
	case o.Before != s.Before:
		step.Original = "runs it in the other phase"
	case o.Line != s.Line:
		step.Original = fmt.Sprintf("runs it from line %d on", o.Line)
	case len(s.Text) != len(c.Text) && !s.Bounded:
		step.Original = "drops the blank lines first"
	}
	return step
}

// pluginStep says what one plugin does with the section of its name.
func pluginStep(sections, original *usercontext.Amiconfig, name string, o Options) Step {
	p := pluginNamed(name)
	first := Step{Text: p.Name + ": " + p.Does}
	if p.Does == "" {
		first.Text = p.Name
	}
	options, has := sections.Section(name)
	for _, h := range sections.Headers {
		if h.Name == name {
			first.Line = h.Line
			break
		}
	}
	list, given := original.Get("amiconfig", "plugins")
	onOriginally := name == "rootsshkeys" || slices.Contains(strings.Fields(strings.ToLower(list)), name) || name == "cernvm" && !given
	switch {
	case !onOriginally:
		first.Original = "does not run this plugin"
		if strings.Contains(list, ",") {
			first.Original += ": the list of plugins has commas, so it is one unknown name"
		}
	case has:
		if _, seen := original.Section(name); !seen {
			first.Original = "does not find the section"
		}
	}
	for _, key := range p.Keys { // in the order in which they are applied
		for _, option := range options {
			if matches(key, option.Key) {
				first.Details = append(first.Details, optionStep(key, option, original, o))
			}
		}
	}
	for _, option := range options {
		if !slices.ContainsFunc(p.Keys, func(k plugins.Key) bool { return matches(k, option.Key) }) {
			text := "ignores " + option.Key + ", which the plugin does not know"
			if p.Does == "" {
				text = "reads " + option.Key
			}
			first.Details = append(first.Details, Step{Line: option.Line, Text: text})
		}
	}
	return first
}

func pluginNamed(name string) plugins.Plugin {
	if p, ok := plugins.ByName(name); ok {
		return p
	}
	return plugins.Plugin{Name: name}
}

func matches(key plugins.Key, name string) bool {
	if prefix, many := strings.CutSuffix(strings.ToLower(key.Name), "*"); many {
		return strings.HasPrefix(name, prefix)
	}
	return strings.EqualFold(key.Name, name)
}

func optionStep(key plugins.Key, option usercontext.Option, original *usercontext.Amiconfig, o Options) Step {
	step := Step{Line: option.Line}
	value := option.Value
	switch {
	case key.NoEffect:
		step.Text = fmt.Sprintf("ignores %s (%s)", option.Key, key.Meaning)
	case value == "":
		step.Text = fmt.Sprintf("%s is empty: nothing is set", option.Key)
	case key.Kind == plugins.Users:
		step.Text = "creates " + users(value, o.Reveal)
	default:
		if key.Secret && !o.Reveal {
			value = masked
		} else if len(value) > 100 && !o.Reveal {
			value = value[:60] + fmt.Sprintf("… (%d bytes)", len(value))
		}
		step.Text = fmt.Sprintf("%s = %s: %s", option.Key, value, key.Meaning)
	}
	if was, ok := original.Get(option.Section, option.Key); !ok || was != option.Value {
		switch {
		case !ok:
			step.Original = "does not find this option"
		case key.Secret && !o.Reveal:
			step.Original = "reads another value"
		default:
			step.Original = fmt.Sprintf("reads %q", was)
		}
	}
	return step
}

// users tells which accounts a list creates.
func users(list string, reveal bool) string {
	var out []string
	for entry := range strings.SplitSeq(list, ",") {
		fields := strings.Split(entry, ":")
		if len(fields) != 3 {
			out = append(out, "nobody from an entry that is not user:group:password")
			continue
		}
		how := "with a password in clear text"
		switch {
		case fields[2] == "":
			how = "with a password that is made up"
		case fields[2] == "!" || fields[2] == "*":
			how = "without a password"
		case strings.HasPrefix(fields[2], "$"):
			how = "with a hashed password"
		}
		if reveal {
			how += " " + fields[2]
		}
		out = append(out, fmt.Sprintf("user %s in group %s %s", fields[0], fields[1], how))
	}
	return strings.Join(out, "; ")
}

// everyBoot lists what is done at later boots as well.
func everyBoot(names []string, sections *usercontext.Amiconfig) []Step {
	var steps []Step
	if !slices.Contains(names, "cernvm") {
		return nil
	}
	if services, ok := sections.Get("cernvm", "services"); ok && services != "" {
		steps = append(steps, Step{Line: optionLine(sections, "cernvm", "services"), When: "at every boot", Text: "starts the services " + strings.ReplaceAll(services, ",", ", ")})
	}
	if command, ok := sections.Get("cernvm", "contextualization_command"); ok && command != "" {
		user, what, _ := strings.Cut(command, ":")
		steps = append(steps, Step{Line: optionLine(sections, "cernvm", "contextualization_command"), When: "at every boot", Text: fmt.Sprintf("runs as %s: %s", user, what)})
	}
	return steps
}

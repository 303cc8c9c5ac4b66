package explain

import (
	"fmt"

	"github.com/micavm/mica/internal/usercontext"
)

// cloudInit tells what cloud-init does, if the operating system has it.
func cloudInit(c *usercontext.Context) Agent {
	a := Agent{Name: "cloud-init, if the operating system has it"}
	parts := c.CloudInit()
	handled := 0
	for _, p := range parts {
		step := Step{Line: p.Line}
		if p.Handled {
			handled++
		}
		switch p.Kind {
		case usercontext.ShellScript:
			step.Text = "runs the script as root, at the end of the first boot"
			if p.Type == "text/x-shellscript-per-boot" {
				step.Text = "runs the script as root"
				step.When = "at every boot"
			}
			if s := c.Script(); !c.MIME && s.Present && (s.Before || s.After) {
				step.Text += ", after the context agent has run it"
				if s.Guarded {
					step.Text += "; it ends at once there, as it looks for amiconfig among the processes above it"
				}
			}
		case usercontext.CloudConfig:
			step.Text = "applies the cloud-config"
		case usercontext.CloudArchive:
			step.Text = "applies each part of the cloud-config archive"
		case usercontext.CloudPatch:
			step.Text = "patches the cloud-config before it"
		case usercontext.Boothook:
			step.Text, step.When = "runs the hook early", "at every boot"
		case usercontext.PartHandler:
			step.Text = "loads a handler for parts of other types, and runs it"
		case usercontext.Include:
			step.Text = "fetches what the list of URLs names, and treats it the same way"
		case usercontext.Template:
			step.Text = "fills in the template, and treats the result the same way"
		case usercontext.Empty, usercontext.Plain, usercontext.Unknown:
			step.Text = fmt.Sprintf("skips %s, and logs its first bytes", describe(p.Type))
		}
		a.Steps = append(a.Steps, step)
	}
	switch {
	case len(parts) == 0:
		a.Summary = "There is nothing to do."
	case !c.MIME && c.CloudInitSeesMIME():
		a.Summary = "It takes the context for a MIME message, because of a mention of MIME-Version:, and most likely finds nothing in it."
		a.Steps = nil
	case handled == 0:
		a.Summary = "Nothing in the context is for it."
	default:
		a.Summary = "Once for each instance identifier:"
	}
	return a
}

func describe(typ string) string {
	if typ == "text/x-not-multipart" {
		return "the text, which it does not know"
	}
	return "the part of type " + typ
}

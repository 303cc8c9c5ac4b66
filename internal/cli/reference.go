package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/micavm/mica/internal/atomicfile"
	"github.com/micavm/mica/internal/version"
)

// Reference returns the pages of the command line's reference in Markdown, by
// file name: one a command, with its subcommands.
func Reference() map[string]string {
	root := New(IO{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Env: func(string) string { return "" }}, []string{"mica"})
	pages := map[string]string{}
	var index strings.Builder
	index.WriteString("# Commands\n\nMade from the program's own help.\n\n")
	for _, cmd := range root.Commands() {
		if !documented(cmd) {
			continue
		}
		var b strings.Builder
		walkCommands(cmd, func(c *cobra.Command) {
			if documented(c) {
				markdown(&b, c, strings.Count(c.CommandPath(), " "))
			}
		})
		pages[cmd.Name()+".md"] = strings.TrimSpace(b.String()) + "\n"
		fmt.Fprintf(&index, "- [`%s`](%s.md): %s\n", cmd.CommandPath(), cmd.Name(), cmd.Short)
	}
	index.WriteString("\nEvery command takes:\n\n")
	flagList(&index, root.PersistentFlags())
	pages["README.md"] = strings.TrimSpace(index.String()) + "\n"
	return pages
}

func documented(c *cobra.Command) bool {
	return !c.Hidden && c.Name() != "help" && c.Name() != "completion" && c.Parent() != nil && c.Parent().Name() != "completion"
}

func markdown(b *strings.Builder, c *cobra.Command, level int) {
	fmt.Fprintf(b, "%s %s\n\n%s.\n\n", strings.Repeat("#", level), c.CommandPath(), c.Short)
	if c.Runnable() && !c.HasSubCommands() {
		fmt.Fprintf(b, "```\n%s\n```\n\n", c.UseLine())
	}
	if c.Long != "" {
		fmt.Fprintf(b, "%s\n\n", c.Long)
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(b, "Also: `%s`\n\n", strings.Join(c.Aliases, "`, `"))
	}
	if c.Example != "" {
		fmt.Fprintf(b, "```\n%s\n```\n\n", strings.ReplaceAll("\n"+c.Example, "\n  ", "\n")[1:])
	}
	flagList(b, c.LocalFlags())
}

// flagWords are the flag as it is written, its meaning, and its default.
func flagWords(f *pflag.Flag) (written, usage string) {
	value, usage := pflag.UnquoteUsage(f)
	written = "--" + f.Name
	if f.Shorthand != "" {
		written = "-" + f.Shorthand + ", " + written
	}
	if value != "" {
		written += " " + value
	}
	switch f.DefValue {
	case "", "false", "0", "[]", "0s":
	default:
		usage += " (default " + f.DefValue + ")"
	}
	return written, usage
}

func flagList(b *strings.Builder, flags *pflag.FlagSet) {
	any := false
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		written, usage := flagWords(f)
		fmt.Fprintf(b, "- `%s`: %s\n", written, usage)
		any = true
	})
	if any {
		b.WriteString("\n")
	}
}

// newMan writes manual pages: packages want them, and they are made from help.
func newMan(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the manual pages of all commands",
		Long:    "Write a manual page for mica and each of its commands, mica.1, mica-create.1 and so on, into a folder.",
		Example: "  mica man ~/.local/share/man/man1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("writing manual pages: %w", err)
			}
			var pages []*cobra.Command
			walkCommands(cmd.Root(), func(c *cobra.Command) {
				if c == cmd.Root() || documented(c) {
					pages = append(pages, c)
				}
			})
			for _, c := range pages {
				name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
				if err := atomicfile.Write(filepath.Join(args[0], name), []byte(manPage(c)), 0o644); err != nil {
					return err
				}
			}
			return a.print("%d manual pages in %s", len(pages), args[0])
		},
	}
}

// manPage is the command's page in the man macros (man(7)). It has no date, so
// that the same program makes the same pages.
func manPage(c *cobra.Command) string {
	var b strings.Builder
	title := strings.ReplaceAll(c.CommandPath(), " ", "-")
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"mica %s\" \"Mica\"\n", strings.ToUpper(roff(title)), version.Number)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(title), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	if c.Long != "" {
		b.WriteString(".SH DESCRIPTION\n")
		for n, paragraph := range strings.Split(c.Long, "\n\n") {
			if n > 0 {
				b.WriteString(".PP\n")
			}
			b.WriteString(roff(paragraph) + "\n")
		}
	}
	if flags := c.LocalFlags(); flags.HasAvailableFlags() {
		b.WriteString(".SH OPTIONS\n")
		flags.VisitAll(func(f *pflag.Flag) {
			written, usage := flagWords(f)
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(written), roff(usage))
		})
	}
	if c.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(c.Example))
	}
	var also []string
	if c.HasParent() {
		also = append(also, strings.ReplaceAll(c.Parent().CommandPath(), " ", "-")+"(1)")
	}
	for _, sub := range c.Commands() {
		if documented(sub) {
			also = append(also, strings.ReplaceAll(sub.CommandPath(), " ", "-")+"(1)")
		}
	}
	if len(also) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", roff(strings.Join(also, ", ")))
	}
	return b.String()
}

// roff keeps text from being taken for requests: backslashes, dashes, and dots
// and quotes that begin a line.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

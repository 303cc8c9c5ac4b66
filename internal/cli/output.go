package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/micavm/mica/internal/fail"
)

// listing is a result that can be shown as a table or as JSON. Rows are JSON
// objects of one type; its fields are additive within a schema number.
type listing[T any] struct {
	Schema  int `json:"schema"`
	Items   []T `json:"items"`
	columns []column[T]
	name    func(T) string
}

// column is one column of the table; wide ones show with --output wide only.
type column[T any] struct {
	head string
	cell func(T) string
	wide bool
}

// outputFlag adds --output to a listing command.
func outputFlag(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVarP(value, "output", "o", "table", "how to print: table, wide, json, jsonl or name")
}

// print writes the listing to w in the given form.
func (l listing[T]) print(w io.Writer, form string) error {
	switch form {
	case "json":
		if l.Items == nil {
			l.Items = []T{}
		}
		return printJSON(w, l)
	case "jsonl":
		enc := json.NewEncoder(w)
		for _, item := range l.Items {
			if err := enc.Encode(item); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, item := range l.Items {
			if _, err := fmt.Fprintln(w, l.name(item)); err != nil {
				return err
			}
		}
		return nil
	case "table", "wide":
		return l.table(w, form == "wide")
	}
	return fail.New(fail.Usage, "unknown --output %q", form).Hint("use table, wide, json, jsonl or name")
}

func (l listing[T]) table(w io.Writer, wide bool) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(cell func(column[T]) string) {
		first := true
		for _, c := range l.columns {
			if c.wide && !wide {
				continue
			}
			if !first {
				_, _ = fmt.Fprint(tw, "\t")
			}
			first = false
			_, _ = fmt.Fprint(tw, cell(c))
		}
		_, _ = fmt.Fprintln(tw)
	}
	row(func(c column[T]) string { return c.head })
	for _, item := range l.Items {
		row(func(c column[T]) string { return c.cell(item) })
	}
	return tw.Flush()
}

// printJSON writes one indented JSON document.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// isTerminal reports whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

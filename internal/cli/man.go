package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gemel/internal/config"
)

// manCommand writes the man pages; make install and packagers call it.
func manCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", GroupID: "more", Args: args(1, 1),
		Short: "write the man pages into a directory",
		Long: `Writes the man pages into a directory: gemel(1), one page for each command, and
gemel.yaml(5), the manifest. They are made from what the program itself prints as help,
and from the table by which it reads a manifest.`,
		RunE: func(c *cobra.Command, args []string) error {
			pages := commandPages(c.Root(), t.w.Version)
			yaml, err := manifestPage(t.w.Version)
			if err != nil {
				return err
			}
			pages["gemel.yaml.5"] = yaml
			for name, text := range pages {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("writing the man pages: %w", err)
				}
			}
			return nil
		},
	}
}

// roff is a man page under way.
type roff struct{ b strings.Builder }

func newPage(name, section, version, title string) *roff {
	r := &roff{}
	fmt.Fprintf(&r.b, ".TH \"%s\" \"%s\" \"\" \"gemel %s\" \"Gemel\"\n.nh\n.ad l\n", strings.ToUpper(name), section, version)
	r.head("Name")
	fmt.Fprintf(&r.b, "%s \\- %s\n", escape(name), escape(title))
	return r
}

func (r *roff) head(s string) { fmt.Fprintf(&r.b, ".SH \"%s\"\n", strings.ToUpper(s)) }

// prose writes paragraphs; lines that begin with a space stand as they are.
func (r *roff) prose(text string) {
	for _, par := range strings.Split(text, "\n\n") {
		r.b.WriteString(".PP\n")
		exact := false
		for _, line := range strings.Split(par, "\n") {
			if table := strings.HasPrefix(line, " "); table != exact {
				exact = table
				r.b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[exact])
			}
			r.b.WriteString(escape(line) + "\n")
		}
		if exact {
			r.b.WriteString(".fi\n")
		}
	}
}

// item writes a term with its description.
func (r *roff) item(term, text string) {
	fmt.Fprintf(&r.b, ".TP\n\\fB%s\\fP\n%s\n", escape(term), escape(strings.Join(strings.Fields(text), " ")))
}

func (r *roff) also(names ...string) {
	r.head("See also")
	for i, n := range names {
		comma := ","
		if i == len(names)-1 {
			comma = ""
		}
		page, section, _ := strings.Cut(n, "(")
		fmt.Fprintf(&r.b, ".BR %s (%s%s\n", escape(page), section, comma)
	}
}

// escape makes text that roff prints as it is.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// commandPages are the pages of section 1, by file.
func commandPages(root *cobra.Command, version string) map[string]string {
	pages := map[string]string{"gemel.1": overview(root, version)}
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			pages["gemel-"+c.Name()+".1"] = commandPage(c, version)
		}
	}
	return pages
}

func commandPage(c *cobra.Command, version string) string {
	r := newPage("gemel-"+c.Name(), "1", version, c.Short)
	r.head("Synopsis")
	fmt.Fprintf(&r.b, "%s\n", escape(c.UseLine()))
	r.head("Description")
	long := c.Long
	if long == "" {
		long = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
	}
	r.prose(long)
	flags(r, "Options", c.LocalFlags().FlagUsages())
	flags(r, "Options of every command", c.InheritedFlags().FlagUsages())
	if c.HasExample() {
		r.head("Examples")
		r.prose(c.Example)
	}
	r.head("Exit status")
	r.prose("0 if it was done; see gemel(1) for the others.")
	r.also("gemel(1)", "gemel.yaml(5)")
	return r.b.String()
}

// flags writes options as items. What pflag prints has the term before the first
// wide gap.
func flags(r *roff, title, usages string) {
	if strings.TrimSpace(usages) == "" {
		return
	}
	r.head(title)
	for _, line := range strings.Split(strings.TrimRight(usages, "\n"), "\n") {
		term, text, _ := strings.Cut(strings.TrimSpace(line), "   ")
		r.item(term, text)
	}
}

// overview is gemel(1).
func overview(root *cobra.Command, version string) string {
	r := newPage("gemel", "1", version, root.Short)
	r.head("Synopsis")
	fmt.Fprintf(&r.b, "%s\n.br\n%s\n", escape("gemel run [FILE]"), escape("gemel COMMAND [flags]"))
	r.head("Description")
	r.prose(root.Long)
	r.prose(`gemel run is a pair of processes: the shadow, which is the parent of every program, and
the monitor, which does everything else. Each watches the other and starts it again. The
death or the replacement of either touches no program.

Every decision is recorded before it is carried out, with its reason: gemel why tells it.`)
	r.head("Commands")
	for _, g := range root.Groups() {
		fmt.Fprintf(&r.b, ".SS \"%s\"\n", escape(strings.TrimSuffix(g.Title, ":")))
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && c.IsAvailableCommand() {
				r.item("gemel-"+c.Name()+"(1)", c.Short)
			}
		}
	}
	flags(r, "Options of every command", root.PersistentFlags().FlagUsages())
	for _, p := range pages() {
		r.head(p.title)
		r.prose(p.text)
	}
	r.head("Files")
	for _, f := range [...]fact{
		{"/etc/gemel/gemel.yaml", "the manifest that the service begins with; see gemel.yaml(5)"},
		{"/var/lib/gemel/journal/", "every fact, decision and event; gemel replay reads it"},
		{"/var/lib/gemel/evidence/", "what programs did before they were killed"},
		{"/var/lib/gemel/log/NAME.log", "what a program printed, bounded and rotated"},
		{"/var/lib/gemel/audit.log", "who changed what, and when"},
		{"/run/gemel/api.sock", "the socket of the API"},
		{"~/.cache/gemel/", "manifests that gemel apply replaced, to be taken back"},
	} {
		r.item(f.name, f.value)
	}
	r.head("Signals")
	for _, f := range [...]fact{
		{"SIGTERM, SIGINT", "to gemel run: stop all programs in reverse order, then end. A second one spares nothing."},
		{"SIGHUP", "to gemel run: apply its FILE again; a file with an error changes nothing."},
		{"SIGKILL", "to either half: the other one starts it again, and no program notices."},
	} {
		r.item(f.name, f.value)
	}
	r.also("gemel.yaml(5)", "systemd(1)", "sd_notify(3)")
	return r.b.String()
}

// schemaPart is as much of a JSON Schema as a page tells.
type schemaPart struct {
	Description string                 `json:"description"`
	Type        any                    `json:"type"`
	Enum        []any                  `json:"enum"`
	Default     any                    `json:"default"`
	Properties  map[string]*schemaPart `json:"properties"`
	Items       *schemaPart            `json:"items"`
	OneOf       []*schemaPart          `json:"oneOf"`
	Required    []string               `json:"required"`
	Additional  json.RawMessage        `json:"additionalProperties"`
}

// manifestPage is gemel.yaml(5), made from the schema, which is made from the
// table by which a manifest is read.
func manifestPage(version string) (string, error) {
	b, err := config.Schema()
	if err != nil {
		return "", err
	}
	var top schemaPart
	if err := json.Unmarshal(b, &top); err != nil {
		return "", fmt.Errorf("reading the schema: %w", err)
	}
	r := newPage("gemel.yaml", "5", version, "the manifest: what gemel should keep running")
	r.head("Description")
	r.prose(`The manifest is YAML. It says which programs should run, how they are watched, and what
is done when one fails. Unknown keys are errors; gemel check FILE tells all of them at
once. Durations are written as 90s or 15m, sizes as 64MiB.`)
	r.head("Example")
	r.prose(`  processes:
    web:
      command: [/usr/sbin/nginx, -g, "daemon off;"]
      severity: major
      restarts: {limit: 5, within: 15m}
  checks:
    pages:
      http: {url: "http://127.0.0.1/healthz"}
      every: 2s
      covers: [web]`)
	for _, k := range [...]string{"processes", "checks", "groups", "files", "node"} {
		part := top.Properties[k]
		if part == nil {
			continue
		}
		r.head(k)
		r.prose(part.Description)
		keys(r, "", part.named())
	}
	r.also("gemel(1)", "gemel-check(1)", "gemel-apply(1)", "gemel-schema(1)")
	return r.b.String(), nil
}

// named returns what a map of names holds, or the part itself.
func (p *schemaPart) named() *schemaPart {
	var inner schemaPart
	if len(p.Properties) == 0 && json.Unmarshal(p.Additional, &inner) == nil {
		return &inner
	}
	return p
}

// keys writes the keys of an object, those of objects in it below their path.
func keys(r *roff, path string, p *schemaPart) {
	var names []string
	for n := range p.Properties {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		k := p.Properties[n]
		text := k.Description
		if words := k.words(); words != "" && !strings.Contains(text, strings.SplitN(words, ",", 2)[0]) {
			text += " One of: " + words + "."
		}
		if slices.Contains(p.Required, n) {
			text += " Required."
		}
		if k.Default != nil {
			if b, err := json.Marshal(k.Default); err == nil {
				text += " Default: " + strings.Trim(string(b), `"`) + "."
			}
		}
		r.item(path+n+k.form(), strings.TrimSpace(text))
		for _, inner := range append([]*schemaPart{k}, k.OneOf...) {
			if len(inner.Properties) > 0 {
				keys(r, path+n+".", inner)
			} else if inner.Items != nil && len(inner.Items.Properties) > 0 {
				keys(r, path+n+"[].", inner.Items)
			}
		}
	}
}

// form says what a key takes, where that is not one plain word.
func (p *schemaPart) form() string {
	switch p.Type {
	case "object":
		return ": {...}"
	case "array":
		return ": [...]"
	}
	return ":"
}

func (p *schemaPart) words() string {
	var out []string
	for _, e := range p.Enum {
		out = append(out, fmt.Sprint(e))
	}
	return strings.Join(out, ", ")
}

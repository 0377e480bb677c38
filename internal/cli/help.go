package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// helpColumns is how wide help is, also on a wider terminal.
const helpColumns = 80

// usageError is a wrong command line.
type usageError struct {
	text string
	hint string
}

func (e usageError) Error() string { return e.text }

func wrongUsage(format string, args ...any) error {
	return usageError{text: fmt.Sprintf(format, args...), hint: "see gemel help"}
}

// args checks how many arguments a command is given; most < 0 is no bound.
func args(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		hint := "usage: " + c.UseLine()
		switch n := len(given); {
		case most == 0 && n > 0:
			return usageError{fmt.Sprintf("%s takes no argument; %q was given", c.CommandPath(), given[0]), hint}
		case n < least:
			wants := strings.Fields(c.Use)[1:]
			return usageError{fmt.Sprintf("%s: %s is missing", c.CommandPath(), strings.Trim(wants[min(n, len(wants)-1)], "[].")), hint}
		case most > 0 && n > most:
			return usageError{fmt.Sprintf("%s: %q is one argument too many", c.CommandPath(), given[most]), hint}
		}
		return nil
	}
}

func unknownCommand(root *cobra.Command, name string) error {
	var names []string
	for _, c := range root.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	hint := "gemel help lists what there is"
	if n := nearest(name, names); n != "" {
		hint = fmt.Sprintf("did you mean %s? %s", n, hint)
	}
	return usageError{fmt.Sprintf("there is no command %q", name), hint}
}

// flagError tells of a wrong flag, unless the command before it is wrong: that is
// what has to be repaired first.
func flagError(t *tool, c *cobra.Command, err error) error {
	if !c.HasParent() {
		for _, a := range t.w.Args {
			if !strings.HasPrefix(a, "-") {
				return unknownCommand(c, a)
			}
		}
	}
	return usageError{c.CommandPath() + ": " + err.Error(), "see " + c.CommandPath() + " --help"}
}

// own rewords what cobra brings along. A shell that Linux machines do not log in
// to needs no completion.
func own(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Use, c.Short = "help [COMMAND|TOPIC]", "help about a command or a topic"
			c.Long = "Prints help about a command, or about one of the topics that gemel help lists."
		case "completion":
			c.Use, c.Short = "completion SHELL", "print the completion of a shell: bash, zsh, fish"
			c.Long = "Prints what a shell has to read so that it completes commands, flags, and the names of\nprocesses and checks. make install puts it where the shells look for it."
			for _, sub := range c.Commands() {
				if sub.Name() == "powershell" {
					c.RemoveCommand(sub)
				}
			}
		}
	}
}

// help prints the description of a command, as wide as help is, and its usage.
func help(c *cobra.Command, _ []string) {
	text := c.Long
	if text == "" {
		text = c.Short
	}
	fmt.Fprintf(c.OutOrStdout(), "%s\n", paragraphs(text, helpColumns))
	if !c.IsAdditionalHelpTopicCommand() {
		fmt.Fprintln(c.OutOrStdout())
		_ = c.Usage() // what it prints to tells of its failure itself
	}
}

// paragraphs wraps text anew, but for the lines that begin with a space.
func paragraphs(text string, n int) string {
	var out []string
	for _, par := range strings.Split(text, "\n\n") {
		if strings.HasPrefix(par, " ") {
			out = append(out, par)
			continue
		}
		out = append(out, wrap(strings.ReplaceAll(par, "\n", " "), n))
	}
	return strings.Join(out, "\n\n")
}

// usage prints how a command is used; cobra calls it below the command's
// description.
func usage(c *cobra.Command) error {
	w := c.OutOrStderr()
	line := c.UseLine()
	if c.HasAvailableSubCommands() && !c.HasParent() {
		line = "gemel COMMAND [flags]"
	}
	fmt.Fprintf(w, "Usage:\n  %s\n", line)
	if len(c.Aliases) > 0 {
		fmt.Fprintf(w, "\nAlso called:\n  %s\n", strings.Join(c.Aliases, ", "))
	}
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", c.Example)
	}
	subcommands(w, c)
	if c.HasAvailableLocalFlags() {
		fmt.Fprintf(w, "\nFlags:\n%s", c.LocalFlags().FlagUsagesWrapped(helpColumns))
	}
	if c.HasAvailableInheritedFlags() {
		fmt.Fprintf(w, "\nFlags of every command:\n%s", c.InheritedFlags().FlagUsagesWrapped(helpColumns))
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n\"%s COMMAND --help\" tells more about one.\n", c.CommandPath())
	}
	return nil
}

func subcommands(w io.Writer, c *cobra.Command) {
	list := func(title string, takes func(*cobra.Command) bool) {
		subs := slices.DeleteFunc(slices.Clone(c.Commands()), func(s *cobra.Command) bool { return !takes(s) })
		if len(subs) == 0 {
			return
		}
		fmt.Fprintf(w, "\n%s\n", title)
		for _, s := range subs {
			first, rest, _ := strings.Cut(wrap(s.Short, helpColumns-15), "\n")
			fmt.Fprintf(w, "  %-12s %s\n", s.Name(), first)
			if rest != "" {
				fmt.Fprintln(w, indented(rest, 15))
			}
		}
	}
	for _, g := range c.Groups() {
		list(g.Title, func(s *cobra.Command) bool {
			return s.GroupID == g.ID && (s.IsAvailableCommand() || s.Name() == "help")
		})
	}
	if len(c.Groups()) == 0 {
		list("Commands:", (*cobra.Command).IsAvailableCommand)
	}
	list("Topics, by gemel help TOPIC:", (*cobra.Command).IsAdditionalHelpTopicCommand)
}

// topic is a page of help that belongs to no command.
type topic struct{ name, title, short, text string }

// pages are the topics. The overview of the manual is made of them as well, so
// that lines which are indented stand as they are.
func pages() []topic {
	return []topic{
		{"exit-codes", "Exit status", "what the exit status of a command says", `  0    done
  1    failed; standard error says at what. Also: gemel status --check found
       something wrong, gemel replay found a difference, what gemel start, stop,
       restart, detach or shutdown was asked for did not come true within --timeout
  2    the command line is wrong
  3    refused: understood, and not done; the reason is said
  4    there is no such process, check, event or evidence
  5    denied: this user's role does not allow it (gemel whoami)
  6    no daemon answers, or it is starting or ending
  7    the manifest has errors
  130  ended by Ctrl-C; 143 by SIGTERM, 141 by a closed pipe

They never change. With --json an error is printed to standard output as
{"error": {"kind", "text", "hint", "status"}}. Of several names the status of
the last that failed counts; every failure is told.`},
		{"environment", "Environment", "variables, and where things live", `  GEMEL_DATA_DIR   data directory: journal, evidence, captured output
  GEMEL_RUN_DIR    run directory: the socket and what programs talk through
  GEMEL_SOCKET     the socket of the API; default api.sock in the run directory
  NO_COLOR         if set, no colours; TERM=dumb means the same
  LC_ALL, LANG     nothing depends on them; all that gemel itself says is ASCII

The flags --data-dir, --run-dir and --socket come before them. Without either:

             root              any other user
  data       /var/lib/gemel    $XDG_STATE_HOME/gemel, else ~/.local/state/gemel
  run        /run/gemel        $XDG_RUNTIME_DIR/gemel, else /tmp/gemel-UID

Programs get GEMEL_PROCESS and GEMEL_START, and as their manifest says
GEMEL_BEAT_PAGE, NOTIFY_SOCKET and WATCHDOG_USEC.`},
		{"names", "Names", "how processes, checks and the node are named", `  nginx          the process or check of that name; a process first
  process/nginx  the process
  check/pages    the check
  node           the node as a whole; also PmsGlobal
  PmsProc51      the process whose id in the manifest is 51
  PmsPie176      the check whose id in the manifest is 176

gemel status lists the names; the shell completes them.`},
		{"times", "Times", "how times are given and shown", `  90s, 5m, 2h30m           so long ago
  10:00, 10:00:30          today, local time
  2026-01-31               that day, local time
  "2026-01-31 10:00"       local time
  2026-01-31T10:00:00Z     RFC 3339, UTC or with an offset, as JSON has it

What people read is local time with its offset, what scripts read (--json) is
RFC 3339 in UTC.`},
	}
}

func topics() []*cobra.Command {
	var out []*cobra.Command
	for _, p := range pages() {
		out = append(out, &cobra.Command{Use: p.name, Short: p.short, Long: p.title + ":\n\n" + p.text})
	}
	return out
}

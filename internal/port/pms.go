package port

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// PMS reads pms.ini, the configuration of the CMM's process monitoring service.
// Its rule for a value that is wrong or out of range is kept: the default of the
// field counts, or, where there is none, the whole section is left out; but each
// case is noted. The CMM's own defaults, where they differ from Gemel's, are
// therefore in the manifest.
func PMS(file string, b []byte) (Result, error) {
	fresh, err := newBlank()
	if err != nil {
		return Result{}, err
	}
	p := &pms{fresh: fresh, m: manifest.Manifest{Node: fresh.node}, bySection: map[ha.UID]int{}}
	sections, err := parseINI(file, b, dialect{}, &p.notes)
	if err != nil {
		return Result{}, err
	}
	for _, s := range sections {
		p.section(s)
	}
	if len(p.processes)+len(p.pies) == 0 && !p.global {
		return Result{}, fmt.Errorf("%s: %w", file, errors.New("no section of it is one of pms.ini ([PmsGlobal], [PmsProcessNNN], [PmsPieNNN])"))
	}
	lines := p.finish()
	if err := p.settle(&p.m, p.fresh, lines); err != nil {
		return Result{}, fmt.Errorf("%s: %w", file, err)
	}
	return Result{Manifest: &p.m, Notes: p.sorted()}, nil
}

// pms is one import.
type pms struct {
	notes
	fresh     blank
	m         manifest.Manifest
	global    bool
	bySection map[ha.UID]int // line of the section that took an id
	processes []pmsProcess
	pies      []pmsPIE
}

type pmsProcess struct {
	manifest.Process
	argv []string // of CommandLine, as the process table shows it
	line int
}

type pmsPIE struct {
	manifest.Check
	argv []string
	line int
}

// Ranges of the numbers in the names of sections and of the ids (facts: CMM, 6.6).
const (
	pmsProcessFirst, pmsProcessLast = 10, 175
	pmsPIEFirst, pmsPIELast         = 176, 200
)

func (p *pms) section(s *section) {
	low := strings.ToLower(s.name)
	switch {
	case low == "pmsglobal" || low == "global":
		p.globalSection(s)
	case strings.HasPrefix(low, "pmsprocess"):
		if p.numbered(s, low[len("pmsprocess"):], pmsProcessFirst, pmsProcessLast) {
			p.processSection(s)
		}
	case strings.HasPrefix(low, "pmspie"):
		if p.numbered(s, low[len("pmspie"):], pmsPIEFirst, pmsPIELast) {
			p.pieSection(s)
		}
	default:
		p.add(s.line, "the section [%s] is none of pms.ini; left out", clip(s.name))
	}
}

// numbered checks the number in the name of a section. It means nothing more.
func (p *pms) numbered(s *section, number string, first, last int) bool {
	if n, err := strconv.Atoi(number); err != nil || n < first || n > last {
		p.add(s.line, "the section [%s] has no number from %03d to %d; left out", clip(s.name), first, last)
		return false
	}
	return true
}

func (p *pms) globalSection(s *section) {
	p.global = true
	if p.number(s, "AdminState", 1, 2, 1) == 2 {
		p.add(s.line, "AdminState 2: all monitoring was locked; do so after the first start: gemel lock node")
	}
	budget := &p.m.Node.Budget
	budget.Limit = p.number(s, "ExcessiveRebootOrFailoverCount", 1, 65535, budget.Limit)
	budget.Within = p.seconds(s, "ExcessiveRebootOrFailoverInterval", 1, 65535, int(budget.Within/time.Second))
	s.rest(&p.notes)
}

func (p *pms) processSection(s *section) {
	id, argv, ok := p.identity(s, "CommandLine", pmsProcessFirst, pmsProcessLast)
	if !ok {
		return
	}
	proc := p.fresh.process
	proc.UID = id
	proc.Severity = ha.Severity(p.number(s, "ProcessSeverity", 1, 3, 1))
	proc.Recovery = ha.Recovery(p.number(s, "RecoveryAction", 1, 4, 1))
	proc.Restarts.Then = ha.EscalationNone
	if p.number(s, "ProcessRestartEscalationAction", 1, 2, 1) == 2 {
		proc.Restarts.Then = ha.EscalationFailoverReboot
	}
	proc.Restarts.Limit = p.number(s, "ProcessRestartEscalationNumber", 1, 255, 5)
	proc.Restarts.Within = p.seconds(s, "ProcessRestartEscalationInterval", 1, 65535, 900)
	proc.RampUp = p.seconds(s, "ProcessRampUpTime", 0, 255, 60)
	proc.Spare = proc.Severity == ha.Critical && proc.Recovery != ha.RecoveryNone
	p.howStarted(s, &proc, argv)
	p.locked(s)
	p.applicability(s)
	if e, ok := s.take("ThreadWatchdogRetries"); ok {
		retries := p.number(s, "ThreadWatchdogRetries", 0, 10, 3)
		p.add(e.line, "the interval of the thread watchdog is not in pms.ini: the program told it; if it beats, write watchdog: {interval: ..., retries: %d}", retries)
	}
	s.rest(&p.notes)
	p.processes = append(p.processes, pmsProcess{Process: proc, argv: argv, line: s.line})
}

// howStarted decides between a program that Gemel starts itself and one that it
// only finds, by comparing the two command lines.
func (p *pms) howStarted(s *section, proc *manifest.Process, argv []string) {
	every := p.seconds(s, "ProcessExistenceInterval", 0, 65535, 2)
	if every == 0 {
		e, _ := s.take("ProcessExistenceInterval")
		p.add(e.line, "ProcessExistenceInterval 0 switched the look-up off; Gemel is told when a program ends and always notices")
		every = 2 * time.Second
	}
	if every > time.Hour {
		e, _ := s.take("ProcessExistenceInterval")
		p.add(e.line, "ProcessExistenceInterval %s: Gemel looks for a program at least every hour", clip(e.value))
		every = time.Hour
	}
	e, given := s.take("StartCommandLine")
	var start []string
	if given {
		var err error
		if start, err = splitPMS(e.value); err != nil {
			p.add(e.line, "StartCommandLine: %v; taken as not given", err)
		}
	}
	if len(start) > 0 && slices.Equal(start, argv) {
		proc.Command = p.program(e.line, start, "")
		if option := foreground(argv[0]); option != "" && !slices.Contains(argv[1:], option) {
			p.add(e.line, "%s puts itself into the background, which looks like its end; add %s to the command", path.Base(argv[0]), option)
		}
		return
	}
	proc.Spare = false
	proc.Attach = manifest.Attach{CommandLine: joinPMS(argv), Every: every}
	if len(start) == 0 {
		if proc.Recovery == ha.RecoveryRestart || proc.Recovery == ha.RecoveryFailoverRestart {
			p.add(s.line, "there is no StartCommandLine, so the program can be found but not started again: recovery none; write attach: start: and the recovery")
			proc.Recovery = ha.RecoveryNone
		}
		return
	}
	proc.Attach.Start = p.program(e.line, start, "")
}

// foreground names the option that keeps a daemon that the CMM shipped with in
// front, where the one who started it sees its end.
func foreground(program string) string {
	switch path.Base(program) {
	case "snmpd", "crond":
		return "-f"
	case "xinetd":
		return "-dontfork"
	case "syslogd":
		return "-n"
	}
	return ""
}

func (p *pms) pieSection(s *section) {
	id, argv, ok := p.identity(s, "ProcessIntegrityExecutable", pmsPIEFirst, pmsPIELast)
	if !ok {
		return
	}
	check := p.fresh.check
	check.UID, check.Timeout, check.Failures = id, 30*time.Second, p.failures(s, argv)
	check.Every = p.seconds(s, "ProcessIntegrityInterval", 0, 65535, 3600)
	check.Once = check.Every == 0
	if check.Once {
		check.Failures = 1 // it runs once: its one verdict counts
	}
	if check.Every > 0 {
		check.Timeout = min(check.Timeout, check.Every)
	}
	e, _ := s.take("ProcessIntegrityExecutable")
	check.Command = p.program(e.line, argv, "")
	p.add(e.line, "how a PIE tells its verdict is the CMM's own; here its exit counts: 0 is well. The time-out of %s is Gemel's", check.Timeout)
	p.locked(s)
	p.applicability(s)
	s.rest(&p.notes)
	p.pies = append(p.pies, pmsPIE{Check: check, argv: argv, line: s.line})
}

// failures reads -f N: recovery at N + 1 failures in a row (facts: CMM, 6.8).
func (p *pms) failures(s *section, argv []string) int {
	e, _ := s.take("ProcessIntegrityExecutable")
	for i, arg := range argv[1:] {
		value, ok := strings.CutPrefix(arg, "-f")
		if !ok {
			continue
		}
		if value == "" && i+2 < len(argv) {
			value = argv[i+2]
		}
		if n, err := strconv.Atoi(value); err == nil && n >= 1 && n <= 100 {
			return n + 1
		}
		p.add(e.line, "-f %s: found %q; allowed: 1 to 100; 3 is used", clip(value), clip(value))
	}
	return 3 + 1
}

// finish gives everything its name, and the checks what they cover. It returns
// the line of each name.
func (p *pms) finish() map[string]int {
	count, lines := map[string]int{}, map[string]int{}
	for _, x := range p.processes {
		count[goodName(path.Base(x.argv[0]))]++
	}
	for i := range p.processes {
		x := &p.processes[i]
		name := goodName(path.Base(x.argv[0]))
		if count[name] > 1 {
			name += "-" + strconv.Itoa(int(x.UID))
			for count[name] > 0 {
				name += "x"
			}
		}
		x.Name = ha.Process(name)
		lines[name] = x.line
		p.m.Processes = append(p.m.Processes, x.Process)
	}
	slices.SortFunc(p.m.Processes, func(a, b manifest.Process) int { return strings.Compare(string(a.Name), string(b.Name)) })
	taken := map[string]bool{}
	for _, pie := range p.pies {
		name := goodName(path.Base(pie.argv[0]))
		if taken[name] {
			name += "-" + strconv.Itoa(int(pie.UID))
		}
		taken[name] = true
		lines[name] = pie.line
		pie.Name = ha.Check(name)
		pie.Covers = p.covers(pie.argv)
		if len(pie.Covers) == 0 {
			p.add(pie.line, "which processes the check %s judges cannot be told from its command; write covers:, else its failures are nobody's fault", name)
		}
		p.m.Checks = append(p.m.Checks, pie.Check)
	}
	slices.SortFunc(p.m.Checks, func(a, b manifest.Check) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return lines
}

// covers knows the two PIEs that the CMM shipped with: one for the SNMP daemon,
// one for the wrapper processes (-s the static ones, -d those that come and go).
func (p *pms) covers(argv []string) []ha.Process {
	static := slices.Contains(argv, "-s")
	dynamic := slices.ContainsFunc(argv[1:], func(a string) bool { return strings.HasPrefix(a, "-d") })
	out := []ha.Process{}
	for _, x := range p.processes {
		program := path.Base(x.argv[0])
		wrapper := strings.HasPrefix(program, "WrapperProcess")
		fixed := program == "BPM" || wrapper && (slices.Contains(x.argv, "23") || slices.Contains(x.argv, "255"))
		judged := false
		switch path.Base(argv[0]) {
		case "PmsPieSnmp":
			judged = program == "snmpd"
		case "PmsPieWp":
			judged = static && fixed || dynamic && (wrapper && !fixed || program == "BPM")
		}
		if judged {
			out = append(out, x.Name)
		}
	}
	slices.Sort(out)
	return out
}

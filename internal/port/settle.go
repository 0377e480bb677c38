package port

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// settle makes the manifest one that Gemel takes: what config refuses gets its
// default, or the process is left out, each with a note at the line given.
func (n *notes) settle(m *manifest.Manifest, fresh blank, lines map[string]int) error {
	for range len(m.Processes) + len(m.Checks) + 3 { // each round mends all that it is told, at most 200 errors
		_, err := config.Encode(m)
		if err == nil {
			return nil
		}
		var wrong config.Errors
		if !errors.As(err, &wrong) {
			return fmt.Errorf("writing the manifest: %w", err)
		}
		for _, e := range wrong {
			n.mend(m, fresh, e, lines)
		}
	}
	_, err := config.Encode(m)
	return err
}

func (n *notes) mend(m *manifest.Manifest, fresh blank, e config.Error, lines map[string]int) {
	for i := range m.Processes {
		name := string(m.Processes[i].Name)
		key, ok := below(e.Path, "processes."+name)
		if !ok {
			continue
		}
		if reset(&m.Processes[i], fresh.process, key) {
			n.add(lines[name], "%s of %s: %s; the default is used", key, name, e.Text)
		} else {
			n.add(lines[name], "%s: %s; the program is left out", name, e.Text)
			remove(m, ha.Process(name))
		}
		return
	}
	for i := range m.Checks {
		name := string(m.Checks[i].Name)
		if _, ok := below(e.Path, "checks."+name); ok {
			n.add(lines[name], "%s: %s; the check is left out", name, e.Text)
			m.Checks = slices.Delete(m.Checks, i, i+1)
			return
		}
	}
}

// below returns the key of an object that a path leads to.
func below(path, object string) (key string, ok bool) {
	if path == object {
		return "", true
	}
	rest, ok := strings.CutPrefix(path, object+".")
	key, _, _ = strings.Cut(rest, ".")
	key, _, _ = strings.Cut(key, "[")
	return key, ok
}

// reset gives a key its default and reports whether it has one that can be taken
// without harm: a user has none, since it would be Gemel's own.
func reset(p *manifest.Process, fresh manifest.Process, key string) bool {
	switch key {
	case "directory":
		p.Directory = fresh.Directory
	case "environment":
		p.Environment = nil
	case "stop":
		p.Stop = fresh.Stop
	case "restarts":
		p.Restarts = fresh.Restarts
	case "exits":
		p.Exits = nil
	case "ramp-up":
		p.RampUp = fresh.RampUp
	case "output":
		p.Output = fresh.Output
	case "after":
		p.After = nil
	default:
		return false
	}
	return true
}

// remove takes a process out of the manifest and out of all that names it.
func remove(m *manifest.Manifest, name ha.Process) {
	m.Processes = slices.DeleteFunc(m.Processes, func(p manifest.Process) bool { return p.Name == name })
	is := func(p ha.Process) bool { return p == name }
	for i := range m.Processes {
		m.Processes[i].After = slices.DeleteFunc(m.Processes[i].After, is)
	}
	for i := range m.Checks {
		m.Checks[i].Covers = slices.DeleteFunc(m.Checks[i].Covers, is)
	}
}

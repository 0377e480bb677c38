// Package metadata reads what resource agents and fence agents say about
// themselves: their parameters and actions, in the XML of the OCF resource agent
// API. It trusts nothing: the text comes from a program of somebody else.
package metadata

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// An Agent is what one agent says about itself.
type Agent struct {
	Name       string
	Version    string
	Short      string // one line
	Long       string
	Parameters []Parameter
	Actions    []Action
}

// A Parameter is an option of an agent.
type Parameter struct {
	Name       string
	Type       string // string, integer, boolean, second, select, ...; as the agent says it
	Default    string
	HasDefault bool
	Required   bool
	Unique     bool // no two instances may have the same value
	Deprecated bool
	Obsoletes  string // the parameter that it replaces
	Short      string
	Values     []string // of a select
}

// An Action is what an agent can be asked to do.
type Action struct {
	Name     string
	Timeout  time.Duration // advised; zero: none was given, or it cannot be read
	Interval time.Duration
	Depth    string
	Role     string
}

// Action returns the first action with a name.
func (a *Agent) Action(name string) (Action, bool) {
	for _, x := range a.Actions {
		if x.Name == name {
			return x, true
		}
	}
	return Action{}, false
}

// Parameter returns the parameter with a name.
func (a *Agent) Parameter(name string) (Parameter, bool) {
	for _, x := range a.Parameters {
		if x.Name == name {
			return x, true
		}
	}
	return Parameter{}, false
}

// Most is how much text is read; the longest in use is a tenth of it.
const Most = 1 << 20

// maxItems bounds parameters and actions.
const maxItems = 2000

// Parse reads an agent's description out of what it printed, which may have
// warnings before and after.
func Parse(text string) (*Agent, error) {
	body, err := cut(text)
	if err != nil {
		return nil, fmt.Errorf("reading an agent's description: %w", err)
	}
	d := xml.NewDecoder(bytes.NewReader([]byte(body)))
	d.Strict = false
	d.Entity = xml.HTMLEntity
	d.CharsetReader = charset
	var raw agentXML
	if err := d.Decode(&raw); err != nil {
		return nil, fmt.Errorf("reading an agent's description: %w", err)
	}
	if len(raw.Parameters) > maxItems || len(raw.Actions) > maxItems {
		return nil, fmt.Errorf("reading an agent's description: more than %d parameters or actions", maxItems)
	}
	return raw.agent(), nil
}

// cut finds the XML in the text.
func cut(text string) (string, error) {
	if len(text) > Most {
		return "", fmt.Errorf("it is longer than %d bytes", Most)
	}
	const first, last = "<resource-agent", "</resource-agent>"
	start := strings.Index(text, first)
	if start < 0 {
		return "", errors.New("there is no <resource-agent> in it")
	}
	end := strings.LastIndex(text, last)
	if end < start {
		return "", errors.New("it ends before </resource-agent>")
	}
	// What says the encoding stands before.
	head := ""
	if x := strings.LastIndex(text[:start], "<?xml"); x >= 0 {
		if y := strings.Index(text[x:start], "?>"); y >= 0 {
			head = text[x : x+y+2]
		}
	}
	return head + text[start:end+len(last)], nil
}

// charset makes UTF-8 of the encodings in which agents were written.
func charset(label string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(label) {
	case "us-ascii", "ascii", "utf-8", "utf8":
		return in, nil
	case "iso-8859-1", "latin1":
		b, err := io.ReadAll(in)
		if err != nil {
			return nil, err
		}
		out := make([]byte, 0, len(b)+len(b)/8)
		for _, c := range b {
			out = utf8.AppendRune(out, rune(c))
		}
		return bytes.NewReader(out), nil
	}
	return nil, fmt.Errorf("the encoding %q is none that agents are written in", label)
}

type agentXML struct {
	XMLName    xml.Name       `xml:"resource-agent"`
	Name       string         `xml:"name,attr"`
	Version    string         `xml:"version,attr"`
	ShortAttr  string         `xml:"shortdesc,attr"`
	Short      string         `xml:"shortdesc"`
	Long       string         `xml:"longdesc"`
	Parameters []parameterXML `xml:"parameters>parameter"`
	Actions    []actionXML    `xml:"actions>action"`
}

type parameterXML struct {
	Name       string `xml:"name,attr"`
	Required   string `xml:"required,attr"`
	Unique     string `xml:"unique,attr"`
	Deprecated string `xml:"deprecated,attr"`
	Obsoletes  string `xml:"obsoletes,attr"`
	Group      string `xml:"unique-group,attr"`
	Short      string `xml:"shortdesc"`
	Content    struct {
		Type    string  `xml:"type,attr"`
		Default *string `xml:"default,attr"`
		Options []struct {
			Value string `xml:"value,attr"`
		} `xml:"option"`
	} `xml:"content"`
}

type actionXML struct {
	Name     string `xml:"name,attr"`
	Timeout  string `xml:"timeout,attr"`
	Interval string `xml:"interval,attr"`
	Depth    string `xml:"depth,attr"`
	Role     string `xml:"role,attr"`
}

func (x *agentXML) agent() *Agent {
	a := &Agent{Name: clean(x.Name), Version: clean(x.Version), Short: clean(x.Short), Long: strings.TrimSpace(x.Long)}
	if a.Short == "" {
		a.Short = clean(x.ShortAttr)
	}
	for _, p := range x.Parameters {
		if clean(p.Name) == "" {
			continue
		}
		q := Parameter{
			Name: clean(p.Name), Type: clean(p.Content.Type), Short: clean(p.Short), Obsoletes: clean(p.Obsoletes),
			Required: truth(p.Required), Unique: truth(p.Unique) || p.Group != "", Deprecated: truth(p.Deprecated),
		}
		if p.Content.Default != nil {
			q.Default, q.HasDefault = *p.Content.Default, true
		}
		for _, o := range p.Content.Options {
			q.Values = append(q.Values, o.Value)
		}
		a.Parameters = append(a.Parameters, q)
	}
	for _, s := range x.Actions {
		if clean(s.Name) == "" {
			continue
		}
		a.Actions = append(a.Actions, Action{clean(s.Name), span(s.Timeout), span(s.Interval), clean(s.Depth), clean(s.Role)})
	}
	return a
}

// clean makes one line of a text.
func clean(s string) string { return strings.Join(strings.Fields(s), " ") }

func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "true", "yes", "y", "on":
		return true
	}
	return false
}

// span reads a time as Pacemaker writes it: 20, 20s, 500ms, 2min, 1h. What cannot be
// read, or is beyond a day, is zero: none was given.
func span(s string) time.Duration {
	s = strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseFloat(digits, 64)
	var unit time.Duration
	switch strings.TrimSpace(s[len(digits):]) {
	case "", "s", "sec":
		unit = time.Second
	case "ms", "msec":
		unit = time.Millisecond
	case "us", "usec":
		unit = time.Microsecond
	case "m", "min":
		unit = time.Minute
	case "h", "hr":
		unit = time.Hour
	}
	d := n * float64(unit)
	if err != nil || !(d > 0) || d > float64(24*time.Hour) {
		return 0
	}
	return time.Duration(d)
}

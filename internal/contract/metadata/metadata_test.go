package metadata

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	a, err := Parse("noise <x>\n<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<!DOCTYPE resource-agent SYSTEM \"x\">\n" +
		"<resource-agent name=\"a\" shortdesc=\"Z\xfcrich &amp; more &nbsp;\"><parameters><parameter name=\" p \" required=\"true\" unique-group=\"g\">" +
		"<content default=\"\"/></parameter><parameter/></parameters><actions><action name=\"start\" timeout=\"1.5s\"/></actions></resource-agent>\nmore noise")
	if err != nil {
		t.Fatal(err)
	}
	p, ok := a.Parameter("p")
	if a.Short != "Zürich & more" || len(a.Parameters) != 1 || !ok || !p.Required || !p.Unique || !p.HasDefault || a.Actions[0].Timeout != 1500*time.Millisecond {
		t.Errorf("%+v", a)
	}
	for text, want := range map[string]string{
		"":                                  "no <resource-agent>",
		"Traceback (most recent call last)": "no <resource-agent>",
		"<resource-agent><parameters>":      "ends before",
		"</resource-agent><resource-agent>": "ends before",
		strings.Repeat("x", Most+1):         "longer than",
		"<?xml encoding='ebcdic' version='1.0'?><resource-agent></resource-agent>":                                              "ebcdic",
		"<resource-agent>" + strings.Repeat("<parameters><parameter name='x'/></parameters>", maxItems+1) + "</resource-agent>": "more than",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v; want %s", text, err, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"20": 20 * time.Second, "20s": 20 * time.Second, " 2 min ": 2 * time.Minute, "500ms": 500 * time.Millisecond, "1H": time.Hour,
		"": 0, "x": 0, "-5s": 0, "1e300h": 0, "NaN": 0, "Infs": 0, "PT20S": 0, "0": 0,
	} {
		if got := span(in); got != want {
			t.Errorf("span(%q) is %v; want %v", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`<?xml version="1.0"?><resource-agent name="a"><parameters><parameter name="p"><content type="select" default="x"><option value="y"/></content></parameter></parameters><actions><action name="start" timeout="20s"/></actions></resource-agent>`)
	f.Add("<?xml encoding=\"iso-8859-1\"?><resource-agent>\xff&nbsp;</resource-agent>")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text)
		if err != nil {
			return
		}
		for _, p := range a.Parameters {
			if p.Name == "" || strings.ContainsAny(p.Name, "\n ") && strings.TrimSpace(p.Name) != p.Name {
				t.Errorf("a parameter has the name %q", p.Name)
			}
		}
		for _, x := range a.Actions {
			if x.Timeout < 0 || x.Timeout > 24*time.Hour {
				t.Errorf("a time-out of %v", x.Timeout)
			}
		}
	})
}

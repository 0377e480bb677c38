package ha

import "strings"

// A Reason is why an order was given or refused: the rule that fired and the
// facts that it used. No action goes without one.
type Reason struct {
	Rule  string `json:"rule"`            // stable id, as "ladder.restart"; the manual explains each
	Text  string `json:"text"`            // one plain sentence, no final full stop
	Facts []Fact `json:"facts,omitempty"` // what the rule looked at
}

// A Fact is one named value that a rule used.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// String prints "text [rule: name=value name=value]".
func (r Reason) String() string {
	var b strings.Builder
	b.WriteString(r.Text)
	b.WriteString(" [")
	b.WriteString(r.Rule)
	for i, f := range r.Facts {
		if i == 0 {
			b.WriteByte(':')
		}
		b.WriteByte(' ')
		b.WriteString(f.Name)
		b.WriteByte('=')
		b.WriteString(f.Value)
	}
	b.WriteByte(']')
	return b.String()
}

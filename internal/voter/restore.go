package voter

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"

	"gemel/internal/roll"
	"gemel/internal/store/member"
)

// Restore does with a backup what a file asks for, a roll.Copy, and writes what was asked
// for to out. It is the other half of a restore, in the program that has etcd.
func Restore(file string, out io.Writer, log *slog.Logger) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading what is to be restored: %w", err)
	}
	var c roll.Copy
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("reading what is to be restored: %w", err)
	}
	if c.Dir != "" {
		m := member.Member{Name: c.Name, Dir: c.Dir, Socket: c.Dir + ".none", Listen: c.At, Cluster: map[string][]string{c.Name: c.At}, Token: c.Token, Plain: true}
		return member.Restore(c.File, m, log)
	}
	value, err := member.Peek(c.File, c.Key)
	if err != nil {
		return err
	}
	_, err = out.Write(value)
	return err
}

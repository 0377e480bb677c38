package join

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"gemel/internal/mtls"
)

func testToken(t testing.TB, kind mtls.Role, name string) Token {
	t.Helper()
	id := mtls.Identity{Name: mtls.Node.Authority("c1"), Pin: strings.Repeat("0123456789abcdef", 4)}
	tok, _, err := Mint(id, kind, name, time.Unix(1_800_000_000, 0), 0)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestToken(t *testing.T) {
	for _, kind := range []mtls.Role{mtls.Node, mtls.Witness, mtls.Agent} {
		for _, name := range []string{"", "alpha", strings.Repeat("n", 253)} {
			tok := testToken(t, kind, name)
			text := tok.Text()
			for _, s := range []string{text, strings.ToUpper(text), " " + text[:20] + "-\n" + text[20:] + "\n", strings.ReplaceAll(text, "0", "o"), strings.ReplaceAll(text[3:], "1", "l")} {
				if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(s)), prefix) {
					s = prefix + s
				}
				got, err := ParseToken(s)
				if err != nil || got != tok {
					t.Errorf("%q: %+v, %v", s, got, err)
				}
			}
			if s := fmt.Sprintf("%v %+v %#v %s", tok, tok, tok, tok); strings.Contains(s, text[40:60]) || strings.Contains(s, fmt.Sprint(tok.secret[0])+" "+fmt.Sprint(tok.secret[1])) {
				t.Errorf("the secret is shown: %s", s)
			}
		}
	}
	if n := len(testToken(t, mtls.Node, "").Text()); n > 90 {
		t.Errorf("a token has %d characters", n)
	}
}

// TestTypos: every single wrong character, and every two that changed places.
func TestTypos(t *testing.T) {
	text := testToken(t, mtls.Node, "alpha").Text()
	for i := len(prefix); i < len(text); i++ {
		for _, c := range alphabet {
			if byte(c) == text[i] {
				continue
			}
			_, err := ParseToken(text[:i] + string(c) + text[i+1:])
			if err == nil || !strings.Contains(err.Error(), "mistyped") {
				t.Fatalf("character %d as %c: %v", i, c, err)
			}
		}
		if i+1 < len(text) && text[i] != text[i+1] {
			_, err := ParseToken(text[:i] + text[i+1:i+2] + text[i:i+1] + text[i+2:])
			if err == nil || !strings.Contains(err.Error(), "mistyped") {
				t.Fatalf("characters %d and %d changed places: %v", i, i+1, err)
			}
		}
		if _, err := ParseToken(text[:i]); err == nil || !strings.Contains(err.Error(), "mistyped") {
			t.Fatalf("the first %d: %v", i, err)
		}
	}
	for text, want := range map[string]string{
		"":                        "begins with gj1",
		"hello":                   "begins with gj1",
		"gj1":                     "not whole",
		"gj1u":                    "'u' cannot be in one (character 4)",
		"gj1é":                    "'é' cannot be in one",
		strings.Repeat("a", 2000): "2000 characters",
	} {
		if _, err := ParseToken(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(testToken(f, mtls.Node, "").Text())
	f.Add(testToken(f, mtls.Agent, "guest-1").Text())
	f.Add("gj1")
	f.Add(string(make([]byte, 40)))
	f.Fuzz(func(t *testing.T, s string) {
		// As it is, and as what is inside of a token with a check sum that fits.
		inside := prefix + encoding().EncodeToString(binary.BigEndian.AppendUint32([]byte(s), sum([]byte(s))))
		for _, s := range []string{s, inside} {
			tok, err := ParseToken(s)
			if err != nil {
				continue
			}
			again, err := ParseToken(tok.Text())
			if err != nil || again != tok {
				t.Errorf("%q: %+v, then %+v, %v", s, tok, again, err)
			}
		}
	})
}

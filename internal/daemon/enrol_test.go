package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/places"
)

// An alarm of certificates that end is told once, is a major one in the last month, and is
// cleared, also when a life before had told it.
func TestCertificatesEnd(t *testing.T) {
	var told []ha.Event
	name := mtls.Name{Cluster: "c", Role: mtls.Node, Name: "a"}
	at := func(left time.Duration) mtls.Expiry {
		return mtls.Expiry{Name: name, Until: time.Unix(1e9, 0), Left: left, Do: "see why"}
	}
	say := func(e ha.Event) { told = append(told, e) }
	f := endings("a", nil, say)
	f(nil)
	f([]mtls.Expiry{at(100 * 24 * time.Hour)})
	f([]mtls.Expiry{at(100 * 24 * time.Hour)})
	if len(told) != 1 || told[0].Change != ha.Assert || told[0].Severity != ha.Minor || told[0].Subject.Name != "a" || told[0].Code != ha.CertificateEnds {
		t.Fatalf("%+v", told)
	}
	f = endings("a", told, say) // the next life
	f([]mtls.Expiry{at(100 * 24 * time.Hour)})
	if len(told) != 1 {
		t.Fatalf("told again: %+v", told[1:])
	}
	f([]mtls.Expiry{at(20 * 24 * time.Hour)})
	f(nil)
	f(nil)
	if len(told) != 3 || told[1].Severity != ha.Major || told[2].Change != ha.Clear || told[2].Key() != told[0].Key() {
		t.Errorf("%+v", told)
	}
}

// While a restore is not at its end nothing begins, whatever node.yaml says.
func TestNothingBeginsInARestore(t *testing.T) {
	o := Options{Places: places.Places{Data: t.TempDir()}}
	if err := o.stayed(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(o.Places.Data, "restoring.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var no *ha.Error
	if err := o.stayed(); !errors.As(err, &no) || no.Reason != "restoring" {
		t.Errorf("%v", err)
	}
}

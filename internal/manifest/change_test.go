package manifest

import (
	"reflect"
	"testing"
	"time"
)

// Every key of a process is decided upon: it either restarts the program or
// takes effect in place.
func TestReplaces(t *testing.T) {
	anew := map[string]bool{
		"Command": true, "Shell": true, "Directory": true, "User": true, "Group": true, "Groups": true,
		"Environment": true, "EnvFiles": true, "InheritEnv": true, "Umask": true, "Nice": true, "Limits": true,
		"Caps": true, "NoNewPrivs": true, "Resources": true, "OOMScore": true, "Task": true,
		"Output": true, "Attach": true, "Ready": true, "Watchdog": true, // in part; see below

		"Name": false, "UID": false, "Stop": false, "After": false, "Needs": false, "Follows": false,
		"Severity": false, "Recovery": false, "Restarts": false, "RampUp": false, "Exits": false,
		"Handlers": false, "Spare": false, "AutoStart": false, "On": false,
	}
	kind := reflect.TypeFor[Process]()
	for i := range kind.NumField() {
		name := kind.Field(i).Name
		want, known := anew[name]
		if !known {
			t.Errorf("%s: say in Replaces, and here, whether a change of it restarts the program", name)
			continue
		}
		var p Process
		fill(reflect.ValueOf(&p).Elem().Field(i))
		if name == "Ready" {
			p.Ready.Kind = ReadyNotify
		}
		if got := p.Replaces(Process{}); got != want {
			t.Errorf("%s: a change restarts: %v, want %v", name, got, want)
		}
		if p.Replaces(p) {
			t.Errorf("%s: a process replaces itself", name)
		}
	}
}

func TestReplacesInPart(t *testing.T) {
	for name, c := range map[string]struct {
		p, q Process
		want bool
	}{
		"size of the output":        {Process{Output: Output{Size: 1}}, Process{Output: Output{Size: 2}}, false},
		"how often it is looked up": {Process{Attach: Attach{Unit: "x", Every: 1}}, Process{Attach: Attach{Unit: "x", Every: 2}}, false},
		"port of readiness":         {Process{Ready: Ready{Kind: ReadyPort, Address: "a"}}, Process{Ready: Ready{Kind: ReadyPort, Address: "b"}}, false},
		"watchdog by command": {Process{Watchdog: Watchdog{Interval: time.Second, By: "command"}},
			Process{Watchdog: Watchdog{Interval: time.Minute, By: "command"}}, false},
		"watchdog by page": {Process{Watchdog: Watchdog{Interval: time.Second, By: "page"}},
			Process{Watchdog: Watchdog{Interval: time.Minute, By: "page"}}, true},
	} {
		if got := c.p.Replaces(c.q); got != c.want {
			t.Errorf("%s: a change restarts: %v, want %v", name, got, c.want)
		}
	}
}

// fill makes a value that is not zero.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.Zero(v.Type().Key()), reflect.Zero(v.Type().Elem()))
		v.Set(m)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}

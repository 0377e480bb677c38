package ha

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// inputs and actions list the closed sets. They are only read.
var (
	inputs = table[Input](Tick{}, Booted{}, Started{}, StartFailed{}, Exited{}, StopFailed{}, Ready{}, Stopping{},
		Busy{}, Missed{}, Verdict{}, Examined{}, FailedOver{}, RebootFailed{}, RoleSet{}, HalfDied{}, HalfBack{},
		Adopted{}, NotFound{}, Settled{}, Request{}, Applied{}, Quit{},
		NodeRead{}, StoreRead{}, StoreWritten{}, Holds{}, Drawn{}, Departs{}, Hearing{}, Off{}, Stirred{},
		MayRun{}, Lapsed{}, PartDone{}, PartLost{}, GroupFreed{}, Entrusted{})
	actions = table[Action](Start{}, Arm{}, Stop{}, Extend{}, Watch{}, Await{}, Judge{}, Seek{}, Examine{}, Handle{}, Failover{},
		Reboot{}, Emit{}, Keep{}, Answer{}, Done{},
		ReadNode{}, ReadStore{}, WriteStore{}, Rights{}, Say{}, Draw{}, Listen{}, TurnOff{},
		StartPart{}, StopPart{}, Account{}, Entrust{})
)

func table[T interface{ Name() string }](vs ...T) map[string]reflect.Type {
	m := make(map[string]reflect.Type, len(vs))
	for _, v := range vs {
		m[v.Name()] = reflect.TypeOf(v)
	}
	return m
}

// Tagged is the form of an input or an action in the journal: its name and its
// fields.
type Tagged struct {
	Name string          `json:"name"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Tag encodes an input or an action.
func Tag(v interface{ Name() string }) (Tagged, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Tagged{}, fmt.Errorf("encoding %s: %w", v.Name(), err)
	}
	if string(b) == "{}" {
		b = nil
	}
	return Tagged{v.Name(), b}, nil
}

// Input decodes t as an input. An unknown name, as from a newer version, is an
// error that names it.
func (t Tagged) Input() (Input, error) { return untag[Input](inputs, "input", t) }

// Action decodes t as an action.
func (t Tagged) Action() (Action, error) { return untag[Action](actions, "action", t) }

func untag[T any](types map[string]reflect.Type, kind string, t Tagged) (T, error) {
	var zero T
	typ, ok := types[t.Name]
	if !ok {
		return zero, fmt.Errorf("unknown %s %q", kind, t.Name)
	}
	v := reflect.New(typ)
	if len(t.Body) > 0 {
		if err := json.Unmarshal(t.Body, v.Interface()); err != nil {
			return zero, fmt.Errorf("decoding %s %q: %w", kind, t.Name, err)
		}
	}
	return v.Elem().Interface().(T), nil
}

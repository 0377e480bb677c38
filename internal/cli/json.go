package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// printJSON writes one document and a line end.
func (t *tool) printJSON(v any) error {
	enc := json.NewEncoder(t.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return nil
}

// object turns a message into what the tool prints as JSON: names as in the
// contract, enumerations as the words of the manual ("major", not
// "SEVERITY_MAJOR"), numbers as numbers, times in RFC 3339 UTC, durations in
// seconds. Fields that are not set are left out, but for pids and counts that a
// script would ask for.
func object(m proto.Message) map[string]any { return objectOf(m.ProtoReflect()) }

func objectOf(m protoreflect.Message) map[string]any {
	out := make(map[string]any)
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) && (f.Kind() == protoreflect.MessageKind || f.HasPresence() || f.Kind() == protoreflect.StringKind) && !f.IsList() {
			continue
		}
		out[string(f.Name())] = value(f, m.Get(f))
	}
	return out
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	if f.IsMap() {
		out := make(map[string]any)
		v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
			out[k.String()] = single(f.MapValue(), e)
			return true
		})
		return out
	}
	if f.IsList() {
		l := v.List()
		out := make([]any, l.Len())
		for i := range out {
			out[i] = single(f, l.Get(i))
		}
		return out
	}
	return single(f, v)
}

func single(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.EnumKind:
		return word(f.Enum(), v.Enum())
	case protoreflect.MessageKind:
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return m.AsTime().UTC().Format(time.RFC3339Nano)
		case *durationpb.Duration:
			return m.AsDuration().Seconds()
		}
		return objectOf(v.Message())
	}
	return v.Interface()
}

// word is an enumeration's value as the manual writes it: SEVERITY_MAJOR is
// "major", RECOVERY_FAILOVER_RESTART "failover-restart"; the unset value is "".
func word(e protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v := e.Values().ByNumber(n)
	if v == nil {
		return fmt.Sprint(n)
	}
	if n == 0 {
		return ""
	}
	prefix := string(e.Values().ByNumber(0).Name())
	prefix = strings.TrimSuffix(prefix, "UNSPECIFIED")
	name := strings.TrimPrefix(string(v.Name()), prefix)
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// wordOf is word for a value of a generated type.
func wordOf(e protoreflect.Enum) string { return word(e.Descriptor(), e.Number()) }

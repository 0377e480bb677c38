package store

import (
	"testing"

	"connectrpc.com/connect"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gemel/internal/store/etcdpb"
)

// TestMessages compares our messages with etcd's: each field must have there the
// number and the kind that it has here.
func TestMessages(t *testing.T) {
	ours := etcdpb.File_gemel_etcd_etcd_proto.Messages()
	theirs := func(name protoreflect.Name) protoreflect.MessageDescriptor {
		if name == "Header" {
			name = "ResponseHeader"
		}
		if m := etcdserverpb.File_rpc_proto.Messages().ByName(name); m != nil {
			return m
		}
		return mvccpb.File_kv_proto.Messages().ByName(name)
	}
	fields := 0
	for i := range ours.Len() {
		our := ours.Get(i)
		their := theirs(our.Name())
		if their == nil {
			t.Errorf("etcd has no message %s", our.Name())
			continue
		}
		for j := range our.Fields().Len() {
			f := our.Fields().Get(j)
			g := their.Fields().ByNumber(f.Number())
			fields++
			switch {
			case g == nil:
				t.Errorf("etcd's %s has no field %d (%s)", their.Name(), f.Number(), f.Name())
			case f.Kind() == protoreflect.Int32Kind && g.Kind() == protoreflect.EnumKind: // the same bytes
			case f.Kind() != g.Kind() || f.IsList() != g.IsList():
				t.Errorf("%s.%s is %v and etcd's %s is %v", our.Name(), f.Name(), f.Kind(), g.Name(), g.Kind())
			case f.Message() != nil && theirs(f.Message().Name()) != g.Message():
				t.Errorf("%s.%s is a %s and etcd's a %s", our.Name(), f.Name(), f.Message().Name(), g.Message().Name())
			case lean(f) != lean(g) && f.Message() == nil:
				t.Errorf("%s.%s is called %s by etcd", our.Name(), f.Name(), g.Name())
			}
		}
	}
	if fields < 40 {
		t.Errorf("only %d fields were compared", fields)
	}
	if int32(etcdserverpb.Compare_EQUAL) != isEqual || int32(etcdserverpb.Compare_MOD) != ofRevision {
		t.Error("etcd compares by other numbers")
	}
}

// lean is a name without what writers of names differ in.
func lean(f protoreflect.FieldDescriptor) string {
	var out []byte
	for _, c := range []byte(f.Name()) {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != '_' {
			out = append(out, c)
		}
	}
	return string(out)
}

// TestRefusals compares what is told apart with etcd's own words.
func TestRefusals(t *testing.T) {
	for want, theirs := range map[refusal]error{
		unhealthy: rpctypes.ErrGRPCUnhealthy, notReady: rpctypes.ErrGRPCLearnerNotReady, notLeader: rpctypes.ErrGRPCNotLeader, isThere: rpctypes.ErrGRPCPeerURLExist, compacted: rpctypes.ErrGRPCCompacted,
		notLearner: rpctypes.ErrGRPCMemberNotLearner, notFound: rpctypes.ErrGRPCMemberNotFound,
		wrongLogin: rpctypes.ErrGRPCAuthFailed, noUsers: rpctypes.ErrGRPCAuthNotEnabled, noUser: rpctypes.ErrGRPCUserEmpty, denied: rpctypes.ErrGRPCPermissionDenied,
		oldToken: rpctypes.ErrGRPCInvalidAuthToken, oldUsers: rpctypes.ErrGRPCAuthOldRevision,
	} {
		s := status.Convert(theirs)
		if got := (refusal{connect.Code(s.Code()), s.Message()}); got != want {
			t.Errorf("etcd says %q, and %q is looked for", got, want)
		}
	}
	if rpctypes.TokenFieldNameGRPC != tokenKey {
		t.Error("who asks is said by another header")
	}
	if rpctypes.MetadataRequireLeaderKey != "hasleader" || rpctypes.MetadataHasLeader != "true" {
		t.Error("a watch asks for a leader by another header")
	}
}

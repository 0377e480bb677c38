package member

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo returns a logger of etcd's kind that writes to ours what is a warning or
// worse. etcd says at info what nobody reads, several lines a second at times.
func zapTo(log *slog.Logger) *zap.Logger { return zap.New(bridge{log: log}) }

// A bridge is a core of zap on top of slog. A fatal entry ends the process after
// it was written: zap does that, and etcd relies on it.
type bridge struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (bridge) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (b bridge) With(f []zapcore.Field) zapcore.Core {
	b.fields = slices.Concat(b.fields, f)
	return b
}

func (b bridge) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return c.AddCore(e, b)
	}
	return c
}

// usual are warnings that say nothing of ours: each member writes them at each
// start or at its first one.
var usual = []string{
	"Running http and grpc server on single port. This is not recommended for production.", // it is a socket of our own
	"simple token is not cryptographically signed",                                         // there are no users
	"Failed to detect schema version",                                                      // until its first snapshot
	"failed to update storage version",
	"waiting for ReadIndex response took too long, retrying", // sixteen a second, and who reads says it
	"Failed to detect storage schema version. Please wait till wal snapshot before upgrading cluster.",
}

func (b bridge) Write(e zapcore.Entry, f []zapcore.Field) error {
	if e.Level <= zapcore.ErrorLevel && slices.Contains(usual, e.Message) {
		return nil
	}
	m := zapcore.NewMapObjectEncoder()
	var args []any
	for _, field := range slices.Concat(b.fields, f) {
		field.AddTo(m)
		if v, ok := m.Fields[field.Key]; ok {
			args = append(args, slog.Any(field.Key, v))
		}
	}
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	b.log.Log(context.Background(), level, "etcd: "+e.Message, args...)
	return nil
}

func (bridge) Sync() error { return nil }

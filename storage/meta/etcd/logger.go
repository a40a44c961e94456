package etcd

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// quiet returns a logger for etcd's code, which tells its life story at info.
func quiet(logger *zap.Logger) *zap.Logger {
	if logger == nil {
		return zap.NewNop()
	}
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return quietCore{core}
	}))
}

// quietCore lets warnings and worse pass, but for those that say nothing.
type quietCore struct{ zapcore.Core }

// harmless are what etcd logs about things that it tries again by itself a moment
// later, or that its end makes pointless:
//   - a new member looks for the version of its schema before its database is
//     first written (etcd's storage version monitor);
//   - the leader writes down the cluster's version in the background, and a
//     member that stops right after its start cuts that short.
var harmless = map[string]bool{
	"Failed to detect schema version":                    true,
	"failed to update storage version":                   true,
	"failed to update cluster version":                   true,
	"aborting cluster version update; server is stopped": true,
}

// Enabled implements zapcore.LevelEnabler.
func (c quietCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && c.Core.Enabled(l)
}

// With implements zapcore.Core.
func (c quietCore) With(fields []zapcore.Field) zapcore.Core { return quietCore{c.Core.With(fields)} }

// Check implements zapcore.Core.
func (c quietCore) Check(entry zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(entry.Level) || harmless[entry.Message] {
		return to
	}
	return c.Core.Check(entry, to)
}

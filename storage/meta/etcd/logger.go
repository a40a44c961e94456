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
	return logger.Named("etcd").WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		quiet, err := zapcore.NewIncreaseLevelCore(core, zapcore.WarnLevel)
		if err != nil {
			// The core lets less than warnings pass already.
			return core
		}
		return quiet
	}))
}

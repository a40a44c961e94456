package main

import (
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// sameLines is how many lines with one message a second are written, and of those beyond
// it each so many-th: what goes wrong may do so for every partition, or every fetch.
const sameLines = 100

// newLogger logs to file: lines for people on a terminal, JSON otherwise,
// unless log.format says which.
func newLogger(c *config, file *os.File) *zap.Logger {
	level, err := zapcore.ParseLevel(c.str("log.level"))
	if err != nil {
		panic(err) // the catalog allows only levels that zap knows
	}
	format := c.str("log.format")
	if format == "auto" {
		format = "json"
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			format = "console"
		}
	}
	e := zap.NewProductionEncoderConfig()
	e.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	e.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(e)
	if format == "console" {
		e.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		e.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(e)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(file), level)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, sameLines, sameLines))
}

package coordinator

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/zap"

	"github.com/quirelog/quire/coordinator/group"
	"github.com/quirelog/quire/offsets"
)

// The value of g/{slot}/{group} is one byte that names its form, then the
// record as package group encodes it:
//
//	1  as it is
//	2  a zstd frame
//
// Records of many members repeat themselves: a thousand consumers of the same
// topics shrink to a tenth.
const (
	recordPlain = 1
	recordZstd  = 2
)

const (
	// compressBytes is the size from which a record is compressed.
	compressBytes = 4 << 10
	// maxRecordBytes is the largest record that is unpacked: a value of the
	// metadata store that was compressed 64 to 1.
	maxRecordBytes = 64 << 20
)

// Both are safe for use from many goroutines.
var (
	recordEncoder, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	recordDecoder, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecordBytes))
)

// packRecord is the value that holds a record.
func packRecord(record []byte) []byte {
	if len(record) < compressBytes {
		return append([]byte{recordPlain}, record...)
	}
	return recordEncoder.EncodeAll(record, []byte{recordZstd})
}

// unpackRecord is the record that a value holds. It may alias the value.
func unpackRecord(value []byte) ([]byte, error) {
	if len(value) == 0 {
		return nil, errors.New("an empty group record")
	}
	switch value[0] {
	case recordPlain:
		return value[1:], nil
	case recordZstd:
		return recordDecoder.DecodeAll(value[1:], nil)
	}
	return nil, fmt.Errorf("a group record of form %d, which is not known", value[0])
}

// decodeGroup makes a group of the value of its record; without one it is new.
// It returns nil, and says why, if the value cannot be understood: the group
// is not available until it is deleted or a program that knows it comes. Any goroutine.
func (g *Groups) decodeGroup(id string, value []byte) *group.Group {
	if value == nil {
		return group.New(id, g.configs.of(id))
	}
	record, err := unpackRecord(value)
	if err == nil {
		var loaded *group.Group
		if loaded, err = group.Load(id, g.configs.of(id), record, g.config.Now()); err == nil {
			return loaded
		}
	}
	g.unreadable(id, fmt.Errorf("key %s: %w", offsets.Keys{Prefix: g.c.config.Prefix}.Record(SlotOf(id), id), err))
	return nil
}

// unreadable takes note of a key of a group that cannot be understood, as its
// error says: the group is not available, and nobody else is disturbed. Any goroutine.
func (g *Groups) unreadable(id string, err error) {
	g.metrics.unreadable.Inc()
	g.c.logger.Error("a key is not readable, so its group is not available: delete the group, or put the key right and restart",
		zap.String("group", id), zap.Error(err))
}

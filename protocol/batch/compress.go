package batch

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Levels returns the range of a codec's compression level and its default, as
// Kafka has them for compression.gzip.level, compression.lz4.level and
// compression.zstd.level (KIP-390). Codecs without levels have 0, 0, 0. The default of
// gzip, -1, lies outside its range.
func Levels(c Codec) (lowest, highest, standard int) {
	switch c {
	case Gzip:
		return 1, 9, -1
	case LZ4:
		return 1, 17, 9
	case Zstd:
		return -131072, 22, 3
	}
	return 0, 0, 0
}

// Compress appends to dst src compressed by codec c and returns the extended
// slice. level is in Kafka's range, see Levels; 0 is the default of every codec, as is less than 1
// for gzip, and otherwise a level outside the range is taken for the nearest in it. The
// libraries have fewer levels than Kafka: levels share them in order.
//
// Snappy is written in xerial framing, as Java needs it. The one error is
// ErrUnknownCodec. Any goroutine may call it.
func Compress(dst []byte, c Codec, level int, src []byte) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Gzip:
		return compressGzip(dst, level, src), nil
	case Snappy:
		return compressSnappy(dst, src), nil
	case LZ4:
		return compressLZ4(dst, level, src), nil
	case Zstd:
		if level == 0 {
			_, _, level = Levels(Zstd)
		}
		return zstdEncoder(zstd.EncoderLevelFromZstd(level)).EncodeAll(src, dst), nil
	}
	return dst, fmt.Errorf("%w: %d", ErrUnknownCodec, c)
}

// sink is the io.Writer that a pooled compressor writes to. Writing to it
// cannot fail, so neither can a compressor.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

type gzipWriter struct {
	sink sink
	z    *gzip.Writer
}

var gzipWriters [10]sync.Pool // by level; 0 is the default

func compressGzip(dst []byte, level int, src []byte) []byte {
	slot := min(max(level, 0), 9)
	w, _ := gzipWriters[slot].Get().(*gzipWriter)
	if w == nil {
		w = new(gzipWriter)
		libraryLevel := slot
		if slot == 0 {
			libraryLevel = gzip.DefaultCompression
		}
		var err error
		if w.z, err = gzip.NewWriterLevel(&w.sink, libraryLevel); err != nil {
			panic(err) // the level is in range
		}
	}
	w.sink.b = dst
	w.z.Reset(&w.sink)
	finish(w.z, src)
	dst, w.sink.b = w.sink.b, nil
	gzipWriters[slot].Put(w)
	return dst
}

type writeCloser interface {
	Write(p []byte) (int, error)
	Close() error
}

func finish(w writeCloser, src []byte) {
	if _, err := w.Write(src); err != nil {
		panic(err) // a sink cannot fail
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}

// xerialBlockBytes is the block size of snappy-java's stream.
const xerialBlockBytes = 32 << 10

func compressSnappy(dst, src []byte) []byte {
	dst = append(dst, xerialMagic...)
	dst = append(dst, 0, 0, 0, 1, 0, 0, 0, 1) // version, and the oldest that can read it
	for len(src) > 0 {
		block := src[:min(len(src), xerialBlockBytes)]
		src = src[len(block):]
		at := len(dst)
		if room := 4 + s2.MaxEncodedLen(len(block)); cap(dst)-at < room {
			grown := make([]byte, at, 2*cap(dst)+room)
			copy(grown, dst)
			dst = grown
		}
		out := s2.EncodeSnappy(dst[at+4:cap(dst)], block)
		dst = dst[:at+4+len(out)]
		binary.BigEndian.PutUint32(dst[at:], uint32(len(out)))
	}
	return dst
}

type lz4Writer struct {
	sink sink
	z    *lz4.Writer
}

var lz4Writers [10]sync.Pool // by the library's level

func compressLZ4(dst []byte, level int, src []byte) []byte {
	slot := lz4Level(level)
	w, _ := lz4Writers[slot].Get().(*lz4Writer)
	if w == nil {
		w = new(lz4Writer)
		w.z = lz4.NewWriter(&w.sink)
		libraryLevel := lz4.Fast
		if slot > 0 {
			libraryLevel = lz4.Level1 << (slot - 1)
		}
		// Java clients refuse linked blocks, and the batch has a CRC of its own.
		err := w.z.Apply(lz4.CompressionLevelOption(libraryLevel), lz4.BlockSizeOption(lz4.Block64Kb),
			lz4.ChecksumOption(false), lz4.ConcurrencyOption(1))
		if err != nil {
			panic(err) // the options are valid
		}
	}
	w.sink.b = dst
	w.z.Reset(&w.sink)
	finish(w.z, src)
	dst, w.sink.b = w.sink.b, nil
	lz4Writers[slot].Put(w)
	return dst
}

// lz4Level maps Kafka's level to the library's, 0 being its fast mode. Kafka's
// default, 9, is the fast mode too (Lz4BlockOutputStream); every other level
// is high compression, an order of magnitude slower.
func lz4Level(level int) int {
	if _, _, standard := Levels(LZ4); level == standard || level == 0 {
		return 0
	}
	return min(max(level, 1), 9)
}

// One encoder per level serves all goroutines; it keeps one working set per core.
var zstdEncoders [zstd.SpeedBestCompression + 1]struct {
	once sync.Once
	z    *zstd.Encoder
}

// zstdWindowBytes bounds what a consumer must hold to decompress.
const zstdWindowBytes = 1 << 20

func zstdEncoder(level zstd.EncoderLevel) *zstd.Encoder {
	e := &zstdEncoders[level]
	e.once.Do(func() {
		var err error
		e.z, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(zstdWindowBytes),
			zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err) // the options are constants
		}
	})
	return e.z
}

package transcripts

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A codec is a compression type by its number in attributes, which says how a
// client frames it.
type codec struct {
	name   string
	number int8
	pack   func([]byte) []byte
}

var (
	none    = codec{"none", 0, func(b []byte) []byte { return b }}
	gzipped = codec{"gzip", 1, func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		w.Write(b)
		w.Close()
		return out.Bytes()
	}}
	// Java's clients use xerial's stream of blocks, sarama and others did the
	// plain block first.
	snappyXerial = codec{"snappy", 2, func(b []byte) []byte {
		out := append([]byte{}, xerialMagic...)
		out = binary.BigEndian.AppendUint32(out, 1)
		out = binary.BigEndian.AppendUint32(out, 1)
		block := snappy.Encode(nil, b)
		out = binary.BigEndian.AppendUint32(out, uint32(len(block)))
		return append(out, block...)
	}}
	snappyRaw = codec{"snappy block", 2, func(b []byte) []byte { return snappy.Encode(nil, b) }}
	lz4Framed = codec{"lz4", 3, func(b []byte) []byte {
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		// What Kafka's own writer sets: independent blocks of 64 KiB, no
		// checksum of the content.
		w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false))
		w.Write(b)
		w.Close()
		return out.Bytes()
	}}
	// KAFKA-3160: clients of magic 0 took the frame's magic number into the
	// checksum of its header.
	lz4Broken = codec{"lz4 of magic 0", 3, func(b []byte) []byte {
		out := lz4Framed.pack(b)
		end := lz4HeaderEnd(out)
		out[end] = byte(xxh32(out[:end]) >> 8)
		return out
	}}
	zstdFramed = codec{"zstd", 4, func(b []byte) []byte {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err)
		}
		return w.EncodeAll(b, nil)
	}}
)

var xerialMagic = []byte("\x82SNAPPY\x00")

// lz4HeaderEnd is where the checksum of a frame's header is: behind the magic
// number, the flags, the block size, and the content size if the flags say so.
func lz4HeaderEnd(frame []byte) int {
	const contentSize = 1 << 3
	if frame[4]&contentSize != 0 {
		return 14
	}
	return 6
}

// unpack reads compressed bytes in whatever framing they have, and names it.
func unpack(number int8, b []byte) (out []byte, name string, err error) {
	switch number {
	case 0:
		return b, none.name, nil
	case 1:
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, "", err
		}
		out, err = io.ReadAll(r)
		return out, gzipped.name, err
	case 2:
		if !bytes.HasPrefix(b, xerialMagic) {
			out, err = snappy.Decode(nil, b)
			return out, snappyRaw.name, err
		}
		for rest := b[16:]; len(rest) > 0; {
			if len(rest) < 4 || int(binary.BigEndian.Uint32(rest)) > len(rest)-4 {
				return nil, "", errors.New("a block of xerial's stream is cut off")
			}
			n := binary.BigEndian.Uint32(rest)
			block, err := snappy.Decode(nil, rest[4:4+n])
			if err != nil {
				return nil, "", err
			}
			out, rest = append(out, block...), rest[4+n:]
		}
		return out, snappyXerial.name, nil
	case 3:
		b, name = bytes.Clone(b), lz4Framed.name
		end := lz4HeaderEnd(b)
		if right := byte(xxh32(b[4:end]) >> 8); b[end] != right {
			if b[end] != byte(xxh32(b[:end])>>8) {
				return nil, "", errors.New("the checksum of the lz4 frame's header is of neither kind")
			}
			b[end], name = right, lz4Broken.name
		}
		out, err = io.ReadAll(lz4.NewReader(bytes.NewReader(b)))
		return out, name, err
	case 4:
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, "", err
		}
		defer r.Close()
		out, err = r.DecodeAll(b, nil)
		return out, zstdFramed.name, err
	default:
		return nil, "", fmt.Errorf("codec %d", number)
	}
}

// xxh32 is the hash of lz4's headers, of up to 15 bytes and with seed 0.
func xxh32(b []byte) uint32 {
	const p1, p2, p3, p4, p5 uint32 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := p5 + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}

package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Decompress appends to dst what src, the records of a batch of codec c,
// inflates to, and returns the extended slice. Room that dst has is used, and a dst with
// room for the result costs no allocation. It inflates at most limitBytes and
// allocates at most three times that on its way, whatever src claims.
//
// ErrTooLarge: src inflates to more than limitBytes. ErrInvalid: src is not in the
// codec's format. ErrUnknownCodec: there is no such codec. After an error the
// returned slice is dst. Any goroutine may call it; it takes CPU in proportion
// to limitBytes at most.
//
// Snappy is read both as one block (librdkafka) and in xerial framing (Java).
// The checksums of LZ4 frames are not checked: that of the header was computed
// wrongly by old Java clients (KIP-57), and the batch has its CRC.
func Decompress(dst []byte, c Codec, src []byte, limitBytes int) ([]byte, error) {
	// What dst has room for is used first.
	room := max(0, min(cap(dst)-len(dst), limitBytes))
	w := inflater{b: dst[: len(dst) : len(dst)+room], start: len(dst), limit: limitBytes}
	var err error
	switch c {
	case None:
		if err = w.grow(len(src)); err == nil {
			w.b = append(w.b, src...)
		}
	case Gzip:
		err = w.gzip(src)
	case Snappy:
		err = w.snappy(src)
	case LZ4:
		err = w.lz4(src)
	case Zstd:
		err = w.zstd(src)
	default:
		err = fmt.Errorf("%w: %d", ErrUnknownCodec, c)
	}
	if err != nil {
		return dst, err
	}
	return w.b, nil
}

// inflater collects inflated bytes and knows how many more are allowed.
type inflater struct {
	b     []byte
	start int // what b held before
	limit int
}

func tooLarge(limit int) error {
	return fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
}

func (w *inflater) left() int { return w.limit - (len(w.b) - w.start) }

// grow makes room for n more bytes, or returns ErrTooLarge.
func (w *inflater) grow(n int) error {
	if n > w.left() {
		return tooLarge(w.limit)
	}
	if n > cap(w.b)-len(w.b) {
		w.realloc(n)
	}
	return nil
}

// more makes room for about n more bytes, for codecs that do not say how many are to
// come. It returns ErrTooLarge if the limit is reached.
func (w *inflater) more(n int) error {
	if w.left() <= 0 {
		return tooLarge(w.limit)
	}
	if cap(w.b) == len(w.b) {
		w.realloc(min(n, w.left()))
	}
	return nil
}

// realloc moves b into a slice with room for n more bytes, and for as much
// again as there is, up to the limit.
func (w *inflater) realloc(n int) {
	n = max(n, min(len(w.b)-w.start, w.left()))
	b := make([]byte, len(w.b), len(w.b)+n)
	copy(b, w.b)
	w.b = b
}

// free returns the room after b, as an empty slice.
func (w *inflater) free() []byte { return w.b[len(w.b):len(w.b):cap(w.b)] }

// minGrow is the least that a stream without a length gets to begin with.
const minGrow = 4 << 10

type gzipReader struct {
	src bytes.Reader
	z   gzip.Reader
}

var gzipReaders = sync.Pool{New: func() any { return new(gzipReader) }}

func (w *inflater) gzip(src []byte) error {
	if len(src) == 0 {
		return fmt.Errorf("%w: gzip: no member", ErrInvalid)
	}
	r := gzipReaders.Get().(*gzipReader)
	defer func() {
		r.src.Reset(nil)
		gzipReaders.Put(r)
	}()
	r.src.Reset(src)
	err := r.z.Reset(&r.src)
	for err == nil {
		if w.left() == 0 {
			// Full: only the end may follow.
			var probe [1]byte
			var n int
			if n, err = r.z.Read(probe[:]); n > 0 {
				return tooLarge(w.limit)
			}
			continue
		}
		if err := w.more(max(minGrow, 3*len(src))); err != nil {
			return err
		}
		var n int
		n, err = r.z.Read(w.b[len(w.b):cap(w.b)])
		w.b = w.b[:len(w.b)+n]
	}
	if err != io.EOF {
		return fmt.Errorf("%w: gzip: %w", ErrInvalid, err)
	}
	return nil
}

// xerialHeaderBytes is the length of snappy-java's stream header: a magic, a
// version and the oldest version that can read it. Chunks follow, each an
// int32 length and a snappy block. Concatenated streams repeat the header.
const xerialHeaderBytes = 16

var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func (w *inflater) snappy(src []byte) error {
	if !bytes.HasPrefix(src, xerialMagic) {
		return w.snappyBlock(src)
	}
	for len(src) > 0 {
		if bytes.HasPrefix(src, xerialMagic) {
			if len(src) < xerialHeaderBytes {
				return fmt.Errorf("%w: snappy: stream header is cut off", ErrInvalid)
			}
			src = src[xerialHeaderBytes:]
			continue
		}
		if len(src) < 4 {
			return fmt.Errorf("%w: snappy: chunk length is cut off", ErrInvalid)
		}
		n := int64(binary.BigEndian.Uint32(src))
		if n > int64(len(src)-4) {
			return fmt.Errorf("%w: snappy: chunk of %d bytes is cut off", ErrInvalid, n)
		}
		if err := w.snappyBlock(src[4 : 4+n]); err != nil {
			return err
		}
		src = src[4+n:]
	}
	return nil
}

func (w *inflater) snappyBlock(src []byte) error {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return fmt.Errorf("%w: snappy: %w", ErrInvalid, err)
	}
	if err := w.grow(n); err != nil {
		return err
	}
	out, err := s2.Decode(w.free(), src)
	if err != nil {
		return fmt.Errorf("%w: snappy: %w", ErrInvalid, err)
	}
	w.b = w.b[:len(w.b)+len(out)]
	return nil
}

// LZ4 frame format, as far as Kafka uses it.
const (
	lz4Magic        = 0x184D2204
	lz4SkipMagic    = 0x184D2A50 // and the 15 after it
	lz4WindowBytes  = 64 << 10
	lz4MaxRatio     = 255
	lz4Uncompressed = 1 << 31
)

func (w *inflater) lz4(src []byte) error {
	if len(src) == 0 {
		return fmt.Errorf("%w: lz4: no frame", ErrInvalid)
	}
	for len(src) > 0 { // frames may be concatenated
		r := lz4Frame{src: src}
		if err := w.lz4Frame(&r); err != nil {
			return err
		}
		if r.bad {
			return fmt.Errorf("%w: lz4: malformed frame", ErrInvalid)
		}
		src = r.src
	}
	return nil
}

// lz4Frame takes little-endian values off a frame; bad means that there was too little.
type lz4Frame struct {
	src []byte
	bad bool
}

func (r *lz4Frame) take(n int64) []byte {
	if n > int64(len(r.src)) {
		r.bad, r.src = true, nil
		return nil
	}
	v := r.src[:n]
	r.src = r.src[n:]
	return v
}

func (r *lz4Frame) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *lz4Frame) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *inflater) lz4Frame(r *lz4Frame) error {
	magic := r.uint32()
	if magic&^0xf == lz4SkipMagic {
		r.take(int64(r.uint32()))
		return nil
	}
	flags, blockDescriptor := r.byte(), r.byte()
	const version, independent, blockSum, contentSize, contentSum, dictID = 0xc0, 0x20, 0x10, 0x08, 0x04, 0x01
	blockMax := 0
	if size := blockDescriptor >> 4 & 7; size >= 4 {
		blockMax = 1 << (8 + 2*size) // 64 KiB, 256 KiB, 1 MiB, 4 MiB
	}
	if magic != lz4Magic || flags&version != 0x40 || flags&dictID != 0 || blockMax == 0 {
		r.bad = true
		return nil
	}
	if flags&contentSize != 0 {
		r.take(8) // believed no more than anything else
	}
	r.byte() // header checksum
	first := len(w.b)
	for !r.bad {
		size := r.uint32()
		if size == 0 {
			if flags&contentSum != 0 {
				r.take(4)
			}
			return nil
		}
		block := r.take(int64(size &^ lz4Uncompressed))
		if flags&blockSum != 0 {
			r.take(4)
		}
		if r.bad || len(block) > blockMax {
			r.bad = true
			return nil
		}
		if size&lz4Uncompressed != 0 {
			if err := w.grow(len(block)); err != nil {
				return err
			}
			w.b = append(w.b, block...)
			continue
		}
		var window []byte
		if flags&independent == 0 {
			window = w.b[max(first, len(w.b)-lz4WindowBytes):]
		}
		if err := w.lz4Block(block, window, blockMax); err != nil {
			return err
		}
	}
	return nil
}

// lz4Block inflates a block, whose length is not told, to at most blockMax bytes.
func (w *inflater) lz4Block(block, window []byte, blockMax int) error {
	room := min(blockMax, lz4MaxRatio*len(block))
	if w.left() <= 0 {
		return tooLarge(w.limit) // and the library faults on an empty slice
	}
	if err := w.grow(min(room, w.left())); err != nil {
		return err
	}
	free := w.free()
	free = free[:min(cap(free), room)]
	n, err := lz4.UncompressBlockWithDict(block, free, window)
	switch {
	case err == nil && n >= 0:
		w.b = w.b[:len(w.b)+n]
		return nil
	case len(free) < room && errors.Is(err, lz4.ErrInvalidSourceShortBuffer):
		// The two cannot be told apart: a corrupt block, or one beyond the limit.
		return tooLarge(w.limit)
	}
	return fmt.Errorf("%w: lz4: %w", ErrInvalid, err)
}

// zstdDecoder decodes frames into the slice that it is given, which holds its
// window too. It serves all goroutines with one working set per core.
var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

func (w *inflater) zstd(src []byte) error {
	if len(src) == 0 {
		return fmt.Errorf("%w: zstd: no frame", ErrInvalid)
	}
	for len(src) > 0 { // frames may be concatenated
		f, err := walkZstd(src)
		if err != nil {
			return err
		}
		if !f.skippable {
			if err := w.zstdFrame(src[:f.size], f.least, f.most); err != nil {
				return err
			}
		}
		src = src[f.size:]
	}
	return nil
}

// zstdFrame inflates one frame, which has from least to most bytes.
func (w *inflater) zstdFrame(frame []byte, least, most int) error {
	left := w.left()
	if least > left {
		return tooLarge(w.limit)
	}
	// Where most lies above the limit and the frame below, there is room for the
	// block that would cross the limit, and what the frame turns out to be decides.
	room := min(most, left+zstdMaxBlockBytes)
	if cap(w.b)-len(w.b) < room {
		w.realloc(room)
	}
	out, err := zstdDecoder().DecodeAll(frame, w.free())
	switch {
	case err == nil && len(out) <= left:
		w.b = append(w.b, out...) // onto itself, unless the decoder took memory of its own
		return nil
	case err == nil || room < most:
		// Short of room, the decoder does not say whether that or the frame is to blame.
		return tooLarge(w.limit)
	}
	return fmt.Errorf("%w: zstd: %w", ErrInvalid, err)
}

const (
	zstdMaxBlockBytes  = 128 << 10
	zstdBlockHeadBytes = 3

	zstdRawBlock      = 0
	zstdRLEBlock      = 1
	zstdReservedBlock = 3
)

// zstdExtent is what the headers of a frame tell.
type zstdExtent struct {
	size        int // of the frame, in bytes
	least, most int // bytes that it inflates to
	skippable   bool
}

var errZstdCutOff = fmt.Errorf("%w: zstd: frame is cut off", ErrInvalid)

// walkZstd reads the headers of the frame at the start of src and of its
// blocks (RFC 8878, 3.1.1), since few clients write a frame's content size.
func walkZstd(src []byte) (zstdExtent, error) {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return zstdExtent{}, fmt.Errorf("%w: zstd: %w", ErrInvalid, err)
	}
	f := zstdExtent{size: h.HeaderSize, skippable: h.Skippable}
	if h.Skippable {
		f.size += int(h.SkippableSize)
		if f.size > len(src) {
			return zstdExtent{}, errZstdCutOff
		}
		return f, nil
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	blockMax := int(min(window, zstdMaxBlockBytes))
	for last := false; !last; {
		if len(src)-f.size < zstdBlockHeadBytes {
			return zstdExtent{}, errZstdCutOff
		}
		head := int(src[f.size]) | int(src[f.size+1])<<8 | int(src[f.size+2])<<16
		f.size += zstdBlockHeadBytes
		last = head&1 != 0
		n := head >> 3
		if n > zstdMaxBlockBytes {
			return zstdExtent{}, fmt.Errorf("%w: zstd: block of %d bytes", ErrInvalid, n)
		}
		switch head >> 1 & 3 {
		case zstdRawBlock:
			f.least += n
			f.most += n
			f.size += n
		case zstdRLEBlock:
			f.least += n
			f.most += n
			f.size++
		case zstdReservedBlock:
			return zstdExtent{}, fmt.Errorf("%w: zstd: reserved block type", ErrInvalid)
		default:
			f.most += blockMax
			f.size += n
		}
	}
	if h.HasCheckSum {
		f.size += 4
	}
	if f.size > len(src) {
		return zstdExtent{}, errZstdCutOff
	}
	if h.HasFCS && h.FrameContentSize < uint64(f.most) {
		f.most = int(h.FrameContentSize)
	}
	return f, nil
}

package forward

import (
	"encoding/binary"
	"fmt"

	"github.com/quirelog/quire/protocol/buffer"
)

// Answers are cut from a chunk into which everything that is there is read at
// once. One that is not whole in it gets a buffer of its own, into which the rest
// is read directly; a small one is copied out, so that an answer on its way to a slow
// client does not pin a chunk many times its size.
const (
	chunkBytes     = 64 << 10
	minSpace       = 16 << 10
	copyBelowBytes = chunkBytes / 8

	// firstAnswerBytes is what is allocated on the word of a size alone, which is that
	// of a node that has proved itself. From there on the buffer grows by answerGrowth
	// when it is full.
	firstAnswerBytes = buffer.MaxPooledBytes
	answerGrowth     = 4
)

// input is the reading half of a link.
type input struct {
	link  *link
	chunk *buffer.Buffer
	used  int

	head  [4]byte // the size of the answer under way
	headN int
	own   *buffer.Buffer // that an answer which is not whole is read to
	got   int
}

func (in *input) space() []byte {
	if in.own != nil {
		return in.own.B[in.got:]
	}
	if in.chunk == nil || chunkBytes-in.used < minSpace {
		in.dropChunk()
		in.chunk = buffer.Get(chunkBytes)
	}
	return in.chunk.B[in.used:]
}

func (in *input) dropChunk() {
	if in.chunk != nil {
		in.chunk.Release()
		in.chunk, in.used = nil, 0
	}
}

func (in *input) close() {
	in.dropChunk()
	if in.own != nil {
		in.own.Release()
		in.own = nil
	}
	in.headN = 0
}

// filled takes the n bytes that have come. After an error, which is
// ErrProtocol, the link is of no use.
func (in *input) filled(n int) error {
	if in.own != nil {
		in.got += n
		return in.assemble()
	}
	p := in.chunk.B[in.used:][:n]
	in.used += n
	return in.cut(p)
}

func (in *input) size() int { return int(int32(binary.BigEndian.Uint32(in.head[:]))) }

func (in *input) cut(p []byte) error {
	for {
		n := copy(in.head[in.headN:], p)
		in.headN += n
		p = p[n:]
		if in.headN < len(in.head) {
			return nil
		}
		size := in.size()
		if size < answerBytes || size > answerBytes+in.link.peers.cfg.MaxAnswerBytes {
			return fmt.Errorf("%w: an answer of %d bytes", ErrProtocol, size)
		}
		if len(p) < size {
			in.own = buffer.Get(min(size, firstAnswerBytes))
			in.got = copy(in.own.B, p)
			return in.assemble()
		}
		in.headN = 0
		var err error
		if size < copyBelowBytes {
			b := buffer.Get(size)
			copy(b.B, p)
			err = in.hand(b.B, b)
		} else {
			in.chunk.Retain()
			err = in.hand(p[:size:size], in.chunk)
		}
		if err != nil {
			return err
		}
		p = p[size:]
	}
}

// assemble looks at an answer in its own buffer after bytes have come.
func (in *input) assemble() error {
	size := in.size()
	if in.got < len(in.own.B) {
		return nil
	}
	if in.got < size {
		grown := buffer.Get(min(size, answerGrowth*in.got))
		copy(grown.B, in.own.B)
		in.own.Release()
		in.own = grown
		return nil
	}
	b := in.own
	in.own, in.got, in.headN = nil, 0, 0
	return in.hand(b.B, b)
}

func (in *input) hand(frame []byte, b *buffer.Buffer) error {
	id, status, rest := parseAnswer(frame)
	return in.link.answered(id, status, rest, b)
}

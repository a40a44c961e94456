package api

import (
	"context"
	"math"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage"
)

// Consumers below v4 get message sets. The loop looks whether there is enough to
// answer, in stored bytes as Kafka does; a worker converts.
//
// What is sent is cut between messages. Below v3 the limit of a partition is hard: if its first
// batch is larger as it is stored, as much of its first message is sent as the limit allows,
// from which these consumers tell that they must ask for more. A batch that only its
// conversion has made larger than the limit begins with a whole message all the same,
// or a consumer whose limit is max.message.bytes could never read on. In v3 the first message of
// the answer is sent whole. What other partitions and other answers have left of the limits that
// they share is no reason to send a part of a message: a consumer would give up over its own limit.
//
// Markers of transactions, and batches of which nothing is left, are skipped: an
// old consumer that gets an empty set before the end of the log would ask for the
// same offset forever. Records of aborted transactions are sent, since these versions know no isolation.

// fetchMagic returns the record format of a version.
func fetchMagic(version int16) int8 {
	switch {
	case version <= 1:
		return 0
	case version <= 3:
		return 1
	}
	return 2
}

// hardLimits says whether a partition's max_bytes may not be exceeded by one message.
func (s *fetchRequest) hardLimits() bool { return s.version < 3 }

func wantsZstd(c *storage.LogConfig) bool {
	return !c.KeepCompression && c.Compression == batch.Zstd
}

const (
	// skipBytes is read at least where there is nothing to send.
	skipBytes = 64 << 10

	// looseBytes is the size below which a batch is converted each time: that costs no
	// more than to look for it, and its buffer would be mostly empty.
	looseBytes      = 1 << 10
	looseBlockBytes = 32 << 10

	// leastRoomBytes is what an answer may have where all answers have all that they may
	// hold; what it may have at most is a batch.
	leastRoomBytes = 64 << 10
)

// readConverted reads and converts, and says whether to answer with what it found.
// Else there was nothing to send, and positions have moved. Workers only.
func (s *fetchRequest) readConverted(ctx context.Context) (answer bool) {
	moved := false
	var loose looseBlock
	defer loose.close()
	for i := range s.parts {
		p := &s.parts[i]
		if p.away {
			continue
		}
		before := p.position
		p.read.Err = p.refused
		if p.refused == nil && s.phase.Load() != fetchClosed {
			c := conversionOf{s: s, p: p, loose: &loose}
			c.run(ctx)
			p.read.Err = c.err
			if s.lost(p, c.err) {
				p.read.Err = nil
			}
		}
		s.now = s.now || p.read.Err != nil
		moved = moved || p.position != before
	}
	return s.bytes > 0 || s.now || s.maxWait <= 0 || !moved || ctx.Err() != nil
}

// conversionOf converts one partition.
type conversionOf struct {
	s *fetchRequest
	p *fetchPart

	limit int  // bytes of the answer
	own   int  // limit, as the consumer has set it for the partition
	least int  // limit, if there is a message within it
	enter bool // the first message is sent whole, whatever its size
	first bool // nothing was sent of the partitions before
	full  bool
	err   error // nil if there is something to send

	loose *looseBlock
}

// looseBlock is where a request's small batches are converted to, one behind the
// other, whatever partition they are of: an answer from many partitions would hold a
// block for each otherwise, for a few bytes in it.
type looseBlock struct {
	buf *buffer.Buffer // nil: none yet
}

func (c *conversionOf) run(ctx context.Context) {
	s, p, raw := c.s, c.p, &c.s.raw
	room := s.h.fetchRoom()
	c.first = s.bytes == 0
	c.enter = c.first && !s.hardLimits()
	c.own = max(int(p.ask.maxBytes), 0)
	c.limit = max(min(c.own, s.maxHere()-s.bytes), 0)
	c.least = min(c.limit, max(room, leastRoomBytes))
	if !c.first {
		c.limit = min(c.limit, room)
		c.least = c.limit
	}
	rd := &p.read
	for {
		raw.Offset, raw.Isolation = p.position, s.isolation
		raw.MaxBytes = min(c.limit, room)
		raw.MinOne = c.enter || c.limit > 0
		if p.position > p.ask.offset {
			raw.MaxBytes = max(raw.MaxBytes, skipBytes)
		}
		if !p.log.ReadTail(raw) {
			p.log.Read(ctx, raw)
		}
		rd.HighWatermark, rd.LastStable, rd.LogStartOffset = raw.HighWatermark, raw.LastStable, raw.LogStartOffset
		c.fail(raw.Err)
		found := len(raw.Records) > 0
		s.h.fetched.Add(int64(raw.Bytes))
		for _, b := range raw.Records {
			if !c.full && s.phase.Load() != fetchClosed {
				c.add(ctx, batch.Batch(b))
			}
		}
		s.h.fetched.Add(-int64(raw.Bytes))
		for _, b := range raw.Bufs {
			b.Release()
		}
		clear(raw.Bufs)
		clear(raw.Records)
		raw.Bufs, raw.Records = raw.Bufs[:0], raw.Records[:0]
		if c.full || !found || rd.Bytes > 0 || ctx.Err() != nil || s.phase.Load() == fetchClosed {
			return
		}
	}
}

// fail ends the partition. What was found before is sent, and the next request
// meets err again.
func (c *conversionOf) fail(err error) {
	if err == nil {
		return
	}
	c.full = true
	if c.p.read.Bytes == 0 {
		c.err = err
	}
}

// add converts a batch and takes what is asked for of it.
func (c *conversionOf) add(ctx context.Context, b batch.Batch) {
	p := c.p
	var set []byte
	var owner *buffer.Buffer
	var err error
	if b.Codec() == batch.None && len(b) < looseBytes {
		set, owner, err = c.convertLoose(b)
	} else if owner, err = c.s.h.downConvert(ctx, storage.LogID{Topic: p.topic.ID, Partition: p.ask.partition}, b, c.s.magic); owner != nil {
		set = messagesFrom(owner.B, p.ask.offset)
	}
	if err != nil {
		c.fail(err)
		return
	}
	if len(set) > 0 {
		c.take(set, owner, len(b))
	} else if p.read.Bytes == 0 {
		p.position = b.LastOffset() + 1
	}
	if owner != nil {
		owner.Release()
	}
}

// take adds as much of set, which was stored in storedBytes, as may be sent.
func (c *conversionOf) take(set []byte, owner *buffer.Buffer, storedBytes int) {
	s, rd := c.s, &c.p.read
	n := wholeMessages(set, c.least-rd.Bytes)
	if n == 0 && rd.Bytes == 0 {
		m, _, _ := batch.NextMessage(set)
		fits := len(m) <= c.own || storedBytes <= c.own
		switch {
		case c.enter, s.hardLimits() && fits && (c.first || storedBytes <= c.limit):
			n = len(m)
		case s.hardLimits() && !fits:
			n = min(c.limit, len(set))
		}
	}
	c.full = n < len(set)
	if n == 0 {
		return
	}
	if n < cap(owner.B)/2 && owner != c.loose.buf {
		own := kept(set[:n])
		rd.Records, rd.Bufs = append(rd.Records, own.B), append(rd.Bufs, own)
	} else {
		owner.Retain()
		rd.Records, rd.Bufs = append(rd.Records, set[:n:n]), append(rd.Bufs, owner)
	}
	rd.Bytes += n
	s.bytes += n
	s.h.fetched.Add(int64(n))
	c.full = c.full || s.h.fetchRoom() == 0
}

// messagesFrom leaves out the messages below an offset, and a wrapper whose last message
// is: compaction may have taken those after it.
func messagesFrom(set []byte, offset int64) []byte {
	for {
		m, rest, err := batch.NextMessage(set)
		if err != nil || m == nil || m.Offset() >= offset {
			return set
		}
		set = rest
	}
}

// wholeMessages returns the length of the messages at the front of set that fit into limit bytes.
func wholeMessages(set []byte, limit int) int {
	if len(set) <= limit {
		return len(set)
	}
	n := 0
	for {
		m, rest, err := batch.NextMessage(set)
		if err != nil || m == nil || n+len(m) > limit {
			return n
		}
		n += len(m)
		set = rest
	}
}

// convertLoose converts a small batch into the request's block. The caller releases
// the owner.
func (c *conversionOf) convertLoose(b batch.Batch) ([]byte, *buffer.Buffer, error) {
	if err := b.VerifyStored(); err != nil {
		return nil, nil, err
	}
	for {
		block := c.loose.open()
		used := block.B
		out, err := batch.DownConvert(used, b, c.s.magic, c.p.ask.offset, maxInflatedBytes)
		if err != nil || len(out) == len(used) {
			return nil, nil, err
		}
		if cap(out) == cap(used) {
			block.B = out
			block.Retain()
			return out[len(used):], block, nil
		}
		if len(used) == 0 { // its small batch holds many empty records
			own := kept(out)
			return own.B, own, nil
		}
		c.loose.close()
	}
}

// open returns the block, which has room unless it turns out to have none.
func (l *looseBlock) open() *buffer.Buffer {
	if l.buf == nil {
		l.buf = buffer.Get(looseBlockBytes)
		l.buf.B = l.buf.B[:0]
	}
	return l.buf
}

// close lets go of the block. What was taken of it is held by the answer.
func (l *looseBlock) close() {
	if l.buf != nil {
		l.buf.Release()
		l.buf = nil
	}
}

// downConvert returns a stored batch as a message set, from the cache if it is
// there. The caller releases it; it is nil if nothing is left of the batch. Workers only.
func (h *Handlers) downConvert(ctx context.Context, log storage.LogID, b batch.Batch, magic int8) (*buffer.Buffer, error) {
	if b.Control() {
		return nil, nil
	}
	if b.Codec() == batch.Zstd {
		// Told by the header, and so without a place in the cache.
		_, err := batch.DownConvert(nil, b, magic, math.MinInt64, 0)
		return nil, err
	}
	return h.cache.get(ctx, conversionKey{log, b.BaseOffset(), magic}, func() (set *buffer.Buffer, err error) {
		err = h.conversions.run(ctx, len(b), func(limitBytes int) error {
			set, err = convertDown(b, magic, limitBytes)
			return err
		})
		return set, err
	})
}

func convertDown(b batch.Batch, magic int8, limitBytes int) (*buffer.Buffer, error) {
	if err := b.VerifyStored(); err != nil {
		return nil, err
	}
	to := scratch(len(b))
	defer to.Release()
	out, err := batch.DownConvert(to.B[:0], b, magic, math.MinInt64, limitBytes)
	if err != nil || len(out) == 0 {
		return nil, err
	}
	return kept(out), nil
}

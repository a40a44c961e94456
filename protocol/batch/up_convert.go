package batch

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// UpConvertOptions are what a topic asks of the message sets that producers send.
type UpConvertOptions struct {
	// MaxBatchBytes bounds each message as it was sent, wrappers included, and each
	// batch made of them (max.message.bytes). 0: no more than a batch can have.
	MaxBatchBytes int

	// MaxInflatedBytes bounds what a wrapper may inflate to.
	MaxInflatedBytes int

	// LogAppendTime says that the topic's timestamp type is LogAppendTime: the
	// producer's timestamps are kept in the records, and checked no further.
	LogAppendTime bool

	// MinTimestamp and MaxTimestamp bound the timestamps, in ms, if they are not
	// both 0 (message.timestamp.before.max.ms and after.max.ms). Records without a timestamp are fine.
	MinTimestamp, MaxTimestamp int64

	// RequireKeys refuses messages without a key (a compacted topic).
	RequireKeys bool

	// Recode writes the batches with Codec at Level, see Levels, where the codec of the
	// wrapper is kept otherwise, at its default level.
	Recode bool
	Codec  Codec
	Level  int
}

// MessageError says which message of a set was refused: in a wrapper, which of the
// messages in it. Kafka names it as a record error in Produce v8 and later.
type MessageError struct {
	Index int
	Err   error // wraps ErrInvalid, ErrCorrupt, ErrTimestamp or ErrTooLarge
}

func (e *MessageError) Error() string { return fmt.Sprintf("message %d: %v", e.Index, e.Err) }

// Unwrap returns Err.
func (e *MessageError) Unwrap() error { return e.Err }

// UpConvert appends to dst the message set of one partition of a Produce v0–v2 as v2
// batches, and returns the extended slice: one batch, or as many as MaxBatchBytes
// demands, each at base offset 0, without a producer id, ready for
// Verify and Stamp. The messages keep their order; offsets that the producer gave them mean nothing.
// A message cut off at the end is left out. A set without a whole message
// leaves dst as it is, without an error: Kafka answers such with base offset −1.
//
// A v2 batch that is sent in the place of a set is appended as it is, since Kafka asks for
// no format in these versions, but not along with anything else.
//
// Timestamps are NoTimestamp in magic 0, and in magic 1 each message's, or the
// wrapper's if its type is LogAppendTime. Kafka takes that type from a producer
// only where the topic's is CreateTime and the timestamp is not NoTimestamp.
//
// The checks and their order are those of UnifiedLog.analyzeAndValidateRecords and
// LogValidator of Kafka 3.9:
//
//   - ErrCorrupt: a size below the minimum, an unknown magic, a bad CRC, of a message or in a wrapper;
//   - ErrTooLarge: a message larger than MaxBatchBytes, or that would be as a batch of its own; a wrapper
//     that inflates to more than MaxInflatedBytes;
//   - ErrInvalid: messages of two magics; a wrapper along with any other message; a wrapper that is null,
//     zstd, of another wrapper, without messages, that does not inflate, or of magic 1 with an offset below that
//     of its last message and not 0 (as librdkafka sent it); a key or value beyond the message; no key where RequireKeys asks for one;
//   - ErrTimestamp: a timestamp outside the bounds or negative, a type as above;
//   - ErrUnknownCodec: there is no such codec.
//
// Where one message is at fault, a MessageError is in the chain. After an error the
// returned slice is dst. Any goroutine may call it; it takes CPU in proportion to
// len(set) and MaxInflatedBytes.
func UpConvert(dst, set []byte, o UpConvertOptions) ([]byte, error) {
	c := upConverters.Get().(*upConverter)
	defer c.release()
	out, err := c.convert(dst, set, &o)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// upConverter holds the memory of a conversion.
type upConverter struct {
	inflated []byte
	builder  Builder
}

var upConverters = sync.Pool{New: func() any { return new(upConverter) }}

// maxKeptBytes bounds the memory that waits for the next conversion.
const maxKeptBytes = 4 << 20

func (c *upConverter) release() {
	if cap(c.inflated)+cap(c.builder.records) <= maxKeptBytes {
		upConverters.Put(c)
	}
}

func (c *upConverter) convert(dst, set []byte, o *UpConvertOptions) ([]byte, error) {
	var first Message
	codec := None
	count := 0
	rest := set
	for {
		m, after, err := cutMessage(rest)
		if err == nil && m != nil {
			err = checkOuter(m, o)
		}
		if err != nil {
			return nil, &MessageError{Index: count, Err: err}
		}
		if m == nil {
			break
		}
		if count == 0 {
			first = m
		}
		if c := outerCodec(m); c != None {
			codec = c
		}
		count++
		rest = after
	}
	if count == 0 {
		return dst, nil
	}
	if count > 1 && (codec != None || first.Magic() == magicV2) {
		return nil, fmt.Errorf("%w: %d messages where one that is compressed, or of magic 2, must be alone", ErrInvalid, count)
	}
	if first.Magic() == magicV2 {
		if err := Batch(first).Verify(); err != nil {
			return nil, err
		}
		return append(dst, first...), nil
	}

	in := messages{rest: set, count: count, magic: first.Magic()}
	if codec != None {
		var err error
		if in, err = c.inflate(first, o); err != nil {
			return nil, err
		}
	}
	if err := in.check(o, codec != None); err != nil {
		return nil, err
	}
	level := 0
	if o.Recode {
		codec, level = o.Codec, o.Level
	}
	return c.build(dst, in, codec, level, o.MaxBatchBytes, HeaderBytes+len(set))
}

// checkOuter checks a message before anything is known of those after it.
func checkOuter(m Message, o *UpConvertOptions) error {
	if m.Magic() == magicV2 && Batch(m).BaseOffset() != 0 {
		return fmt.Errorf("%w: a producer's batch has base offset %d, not 0", ErrInvalid, Batch(m).BaseOffset())
	}
	if o.MaxBatchBytes > 0 && len(m) > o.MaxBatchBytes {
		return fmt.Errorf("%w: message of %d bytes, of at most %d", ErrTooLarge, len(m), o.MaxBatchBytes)
	}
	if m.Magic() == magicV2 {
		if err := Batch(m).verifyBytes(); err != nil {
			return err
		}
	} else if err := m.Verify(); err != nil {
		return err
	}
	if c := outerCodec(m); !c.Valid() {
		return fmt.Errorf("%w: %d", ErrUnknownCodec, c)
	}
	return nil
}

func outerCodec(m Message) Codec {
	if m.Magic() == magicV2 {
		return Batch(m).Codec()
	}
	return m.Codec()
}

// messages are those of one set, all plain.
type messages struct {
	rest  []byte
	count int
	magic int8

	// The wrapper's, if it is that of all its messages.
	logAppendTime bool
	timestamp     int64
}

// inflate returns the messages in a wrapper (AbstractLegacyRecordBatch.DeepRecordsIterator).
func (c *upConverter) inflate(wrapper Message, o *UpConvertOptions) (messages, error) {
	var err error
	if c.inflated, err = wrapper.Inflate(c.inflated[:0], o.MaxInflatedBytes); err != nil {
		return messages{}, err
	}
	in := messages{
		rest: c.inflated, magic: wrapper.Magic(),
		logAppendTime: wrapper.LogAppendTime(), timestamp: wrapper.Timestamp(),
	}
	last := int64(0)
	for rest := in.rest; ; in.count++ {
		m, after, err := cutInner(rest)
		if err != nil {
			return messages{}, &MessageError{Index: in.count, Err: err}
		}
		if m == nil {
			break
		}
		last, rest = m.Offset(), after
	}
	if in.count == 0 {
		return messages{}, fmt.Errorf("%w: a compressed message set without messages", ErrInvalid)
	}
	if offset := wrapper.Offset(); in.magic > 0 && offset != 0 && offset < last {
		return messages{}, fmt.Errorf("%w: a compressed message set has offset %d, its last message %d", ErrInvalid, offset, last)
	}
	return in, nil
}

// next cuts the next of count messages off, which is known to be whole.
func (in *messages) next() Message {
	m, rest, _ := cutInner(in.rest)
	in.rest = rest
	in.count--
	return m
}

func (in *messages) timestampOf(m Message) int64 {
	if in.logAppendTime {
		return in.timestamp
	}
	return m.Timestamp()
}

// check checks all messages. What is wrong with a record alone is held back until
// the end of a wrapper, as in LogValidator, where any ErrTimestamp decides; anything else comes first.
func (in messages) check(o *UpConvertOptions, wrapped bool) error {
	var fault error
	for i := 0; in.count > 0; i++ {
		m := in.next()
		held, err := in.checkMessage(m, o, wrapped)
		if err == nil {
			continue
		}
		err = &MessageError{Index: i, Err: err}
		if !held || !wrapped {
			return err
		}
		if fault == nil || errors.Is(err, ErrTimestamp) && !errors.Is(fault, ErrTimestamp) {
			fault = err
		}
	}
	return fault
}

func (in *messages) checkMessage(m Message, o *UpConvertOptions, wrapped bool) (held bool, err error) {
	if wrapped && m.Codec() != None {
		return false, fmt.Errorf("%w: a compressed message in a compressed message set", ErrInvalid)
	}
	if m.Magic() != in.magic {
		return true, fmt.Errorf("%w: magic %d in a set of magic %d", ErrInvalid, m.Magic(), in.magic)
	}
	if wrapped { // else its CRC was checked
		if err := m.Verify(); err != nil {
			return false, err
		}
	}
	key, _, malformed := m.KeyValue()
	t := in.timestampOf(m)
	switch {
	case o.RequireKeys && key == nil && malformed == nil:
		return true, fmt.Errorf("%w: a compacted topic needs keys", ErrInvalid)
	case t < NoTimestamp:
		return true, fmt.Errorf("%w: %d", ErrTimestamp, t)
	case !o.LogAppendTime && t != NoTimestamp:
		if (o.MinTimestamp != 0 || o.MaxTimestamp != 0) && (t < o.MinTimestamp || t > o.MaxTimestamp) {
			return true, fmt.Errorf("%w: %d lies outside [%d, %d]", ErrTimestamp, t, o.MinTimestamp, o.MaxTimestamp)
		}
	case in.logAppendTime || m.LogAppendTime() && !wrapped:
		return true, fmt.Errorf("%w: a producer must not set the type LogAppendTime", ErrTimestamp)
	}
	return true, malformed
}

// maxRecordOverhead is the most that a record without headers has beside its key and value.
const maxRecordOverhead = 5 + 1 + 10 + 5 + 5 + 5 + 1

// build appends the messages as batches of at most maxBatchBytes. A batch that turns out too
// large is made again of half as many bytes before compression, as are those after it.
func (c *upConverter) build(dst []byte, in messages, codec Codec, level, maxBatchBytes, sizeHint int) ([]byte, error) {
	limit := math.MaxInt32
	if maxBatchBytes > 0 {
		limit = min(limit, maxBatchBytes)
	}
	room := math.MaxInt32
	if codec == None {
		room = limit
	}
	header := Plain
	header.Codec, header.Level = codec, level
	dst = slices.Grow(dst, sizeHint)
	for built := 0; in.count > 0; {
		after := in
		c.builder.Reset(header)
		for after.count > 0 {
			ahead := after
			m := ahead.next()
			key, value, err := m.KeyValue()
			if err != nil {
				return nil, err
			}
			if c.builder.Count() > 0 && c.builder.Len()+len(key)+len(value)+maxRecordOverhead > room {
				break
			}
			c.builder.Add(after.timestampOf(m), key, value)
			after = ahead
		}
		out, err := c.builder.AppendTo(dst)
		if err != nil {
			return nil, err
		}
		if size := len(out) - len(dst); size > limit {
			if c.builder.Count() == 1 {
				return nil, &MessageError{Index: built, Err: fmt.Errorf("%w: a batch of %d bytes, of at most %d", ErrTooLarge, size, limit)}
			}
			room = c.builder.Len() / 2
			dst = out[:len(dst)]
			continue
		}
		dst, in = out, after
		built += c.builder.Count()
	}
	return dst, nil
}

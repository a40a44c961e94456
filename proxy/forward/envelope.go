package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// What is sent over a link once both sides have proved themselves. All integers
// are big-endian. As in Kafka's protocol each frame has an int32 before it, the
// number of bytes that follow.
//
// From the side that has dialled:
//
//	envelope  int16 key (0x7FE0) · int16 version (0)
//	          uint64 call     the sender's number for it
//	          uint64 stream   the client's connection at the sender
//	          uint32 timeout  milliseconds that the sender waits; 0 is not said
//	          uint32 begin    milliseconds in which it has to be begun; 0 is as timeout
//	          uint64 sent     microseconds of the clock that it said hello with; see Transit
//	          uint16 slots    followed by so many of: uint16 slot · int64 epoch
//	          uint16 length · listener
//	          uint16 length · address of the client
//	          uint16 length · principal
//	          the Kafka request as the client sent it, without its size
//	cancel    int16 key (0x7FE1) · int16 version (0) · uint64 call · uint64 stream
//
// From the other side, in any order of calls:
//
//	answer    uint64 call · uint8 status · the Kafka response, without its size
//	          with status 3 (Dropped) a text instead of a response, with 1 and 2 nothing
//	go away   uint64 0 · uint8 255: requests that it has not read yet will be
//	          refused with status 2, and the link should be closed as soon as nothing is owed
const (
	// KeyEnvelope and KeyCancel are API keys that Kafka does not have.
	KeyEnvelope = 0x7FE0
	KeyCancel   = 0x7FE1

	// MaxSlots is how many slots a request may be for: all that there are.
	MaxSlots = 1024

	// MaxNameBytes bounds a listener's name, an address and a principal, each.
	MaxNameBytes = 1024

	// MaxEnvelopeBytes is the most that an envelope takes beside its request.
	MaxEnvelopeBytes = fixedEnvelopeBytes + MaxSlots*slotBytes + 3*(2+MaxNameBytes)

	// AnswerBytes is what comes before the Kafka response in an answer, the
	// frame's size included.
	AnswerBytes = 4 + answerBytes

	fixedEnvelopeBytes = 2 + 2 + 8 + 8 + 4 + 4 + 8 + 2
	slotBytes          = 2 + 8
	cancelBytes        = 2 + 2 + 8 + 8
	answerBytes        = 8 + 1

	// maxClock is more than the age of any process.
	maxClock = 100 * 365 * 24 * time.Hour

	// goAway is the status by which a node says that it is about to end.
	goAway Status = 255
)

// ErrEnvelope: a frame of a link cannot be understood.
var ErrEnvelope = errors.New("malformed envelope")

// Envelope is a forwarded request. All slices alias the frame.
type Envelope struct {
	Call       uint64
	Stream     uint64
	Timeout    time.Duration
	Begin      time.Duration
	Sent       time.Duration // by the sender's clock
	Slots      []SlotEpoch
	Listener   []byte
	RemoteAddr []byte
	Principal  []byte
	Request    []byte
}

// appendEnvelope appends the bytes of a call's frame that come before its
// Message, the size included; sent is what the sender's clock shows. It fails with ErrTooLarge.
func appendEnvelope(dst []byte, id uint64, sent time.Duration, c *Call, maxMessageBytes int) ([]byte, error) {
	message := 0
	for _, p := range c.Message {
		message += len(p)
	}
	switch {
	case message > maxMessageBytes:
		return dst, fmt.Errorf("%w: it has %d bytes, the limit is %d", ErrTooLarge, message, maxMessageBytes)
	case len(c.Slots) > MaxSlots:
		return dst, fmt.Errorf("%w: it is for %d slots, the limit is %d", ErrTooLarge, len(c.Slots), MaxSlots)
	case max(len(c.Listener), len(c.RemoteAddr), len(c.Principal)) > MaxNameBytes:
		return dst, fmt.Errorf("%w: a listener, address or principal of more than %d bytes", ErrTooLarge, MaxNameBytes)
	}
	begin := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint16(dst, KeyEnvelope)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint64(dst, id)
	dst = binary.BigEndian.AppendUint64(dst, c.Stream)
	for _, d := range [...]time.Duration{c.Timeout, c.Begin} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(min(max(d.Milliseconds(), 0), math.MaxUint32)))
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(sent.Microseconds()))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(c.Slots)))
	for _, s := range c.Slots {
		dst = binary.BigEndian.AppendUint16(dst, s.Slot)
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.Epoch))
	}
	for _, s := range [...]string{c.Listener, c.RemoteAddr, c.Principal} {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
		dst = append(dst, s...)
	}
	binary.BigEndian.PutUint32(dst[begin:], uint32(len(dst)-begin-4+message))
	return dst, nil
}

// ParseEnvelope reads an envelope. frame is what follows the size; slots is
// memory to use for the list of them, and may be nil. It fails with ErrEnvelope.
func ParseEnvelope(frame []byte, slots []SlotEpoch) (Envelope, error) {
	if len(frame) < fixedEnvelopeBytes {
		return Envelope{}, fmt.Errorf("%w: %d bytes", ErrEnvelope, len(frame))
	}
	if key, version := binary.BigEndian.Uint16(frame), binary.BigEndian.Uint16(frame[2:]); key != KeyEnvelope || version != 0 {
		return Envelope{}, fmt.Errorf("%w: key %d version %d", ErrEnvelope, key, version)
	}
	sent, err := parseClock(frame[28:])
	if err != nil {
		return Envelope{}, err
	}
	e := Envelope{
		Call:    binary.BigEndian.Uint64(frame[4:]),
		Stream:  binary.BigEndian.Uint64(frame[12:]),
		Timeout: time.Duration(binary.BigEndian.Uint32(frame[20:])) * time.Millisecond,
		Begin:   time.Duration(binary.BigEndian.Uint32(frame[24:])) * time.Millisecond,
		Sent:    sent,
		Slots:   slots[:0],
	}
	n := int(binary.BigEndian.Uint16(frame[36:]))
	rest := frame[fixedEnvelopeBytes:]
	if n > MaxSlots || n*slotBytes > len(rest) {
		return Envelope{}, fmt.Errorf("%w: %d slots", ErrEnvelope, n)
	}
	for range n {
		e.Slots = append(e.Slots, SlotEpoch{
			Slot:  binary.BigEndian.Uint16(rest),
			Epoch: int64(binary.BigEndian.Uint64(rest[2:])),
		})
		rest = rest[slotBytes:]
	}
	for _, name := range [...]*[]byte{&e.Listener, &e.RemoteAddr, &e.Principal} {
		if len(rest) < 2 {
			return Envelope{}, fmt.Errorf("%w: it ends within a length", ErrEnvelope)
		}
		n := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		if n > MaxNameBytes || n > len(rest) {
			return Envelope{}, fmt.Errorf("%w: a name of %d bytes", ErrEnvelope, n)
		}
		*name, rest = rest[:n:n], rest[n:]
	}
	e.Request = rest
	return e, nil
}

// parseClock reads what a node's clock has shown, which begins with its process.
func parseClock(p []byte) (time.Duration, error) {
	us := binary.BigEndian.Uint64(p)
	if us > uint64(maxClock/time.Microsecond) {
		return 0, fmt.Errorf("%w: a clock that shows %d µs", ErrEnvelope, us)
	}
	return time.Duration(us) * time.Microsecond, nil
}

// appendCancel appends a cancel frame, its size included.
func appendCancel(dst []byte, id, stream uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, cancelBytes)
	dst = binary.BigEndian.AppendUint16(dst, KeyCancel)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	dst = binary.BigEndian.AppendUint64(dst, id)
	return binary.BigEndian.AppendUint64(dst, stream)
}

// ParseCancel returns which call a cancel frame is about, and of which stream it
// is. It fails with ErrEnvelope.
func ParseCancel(frame []byte) (call, stream uint64, err error) {
	if len(frame) != cancelBytes || binary.BigEndian.Uint16(frame) != KeyCancel || binary.BigEndian.Uint16(frame[2:]) != 0 {
		return 0, 0, fmt.Errorf("%w: a cancel frame of %d bytes", ErrEnvelope, len(frame))
	}
	return binary.BigEndian.Uint64(frame[4:]), binary.BigEndian.Uint64(frame[12:]), nil
}

// PutAnswer writes the beginning of an answer to dst, which has AnswerBytes;
// rest is how many bytes of a response follow.
func PutAnswer(dst []byte, call uint64, status Status, rest int) {
	binary.BigEndian.PutUint32(dst, uint32(answerBytes+rest))
	binary.BigEndian.PutUint64(dst[4:], call)
	dst[12] = byte(status)
}

// PutGoAway writes a go-away frame to dst, which has AnswerBytes.
func PutGoAway(dst []byte) { PutAnswer(dst, 0, goAway, 0) }

// parseAnswer reads an answer, whose size has been checked to be answerBytes at least.
func parseAnswer(frame []byte) (call uint64, status Status, rest []byte) {
	return binary.BigEndian.Uint64(frame), Status(frame[8]), frame[answerBytes:]
}

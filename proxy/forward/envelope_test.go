package forward

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEnvelope(t *testing.T) {
	for _, c := range []*Call{
		{},
		{Message: [][]byte{[]byte("request")}, Stream: 1},
		{
			Message: [][]byte{[]byte("re"), nil, []byte("quest")},
			Slots:   []SlotEpoch{{0, 0}, {1023, math.MaxInt64}, {65535, -1}},
			Stream:  math.MaxUint64, Timeout: 1500 * time.Millisecond, Begin: 700 * time.Millisecond,
			Listener: "PLAINTEXT", RemoteAddr: "[2001:db8::1]:9092", Principal: "User:" + strings.Repeat("x", MaxNameBytes-5),
		},
		{Slots: make([]SlotEpoch, MaxSlots), Timeout: math.MaxInt64},
	} {
		message := bytes.Join(c.Message, nil)
		head, err := appendEnvelope([]byte("before")[:0], 1<<63+7, 3*time.Hour, c, len(message))
		if err != nil {
			t.Fatal(err)
		}
		frame := append(head, message...)
		if got := frameBytes(head); got != len(frame) {
			t.Errorf("the size is %d, of %d bytes", got, len(frame))
		}
		if got := len(head) - 4; got > MaxEnvelopeBytes {
			t.Errorf("an envelope of %d bytes", got)
		}
		e, err := ParseEnvelope(frame[4:], nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.Call != 1<<63+7 || e.Sent != 3*time.Hour || e.Stream != c.Stream || string(e.Listener) != c.Listener ||
			string(e.RemoteAddr) != c.RemoteAddr || string(e.Principal) != c.Principal || !bytes.Equal(e.Request, message) {
			t.Errorf("%+v became %+v", c, e)
		}
		if len(e.Slots) != len(c.Slots) || len(e.Slots) > 0 && !reflect.DeepEqual(e.Slots, c.Slots) {
			t.Errorf("slots %v became %v", c.Slots, e.Slots)
		}
		if e.Begin != c.Begin {
			t.Errorf("begin %v became %v", c.Begin, e.Begin)
		}
		if want := min(c.Timeout, math.MaxUint32*time.Millisecond); e.Timeout != want {
			t.Errorf("timeout %v became %v", c.Timeout, e.Timeout)
		}
		for n := range len(frame) - 4 - len(message) {
			if _, err := ParseEnvelope(frame[4:4+n], nil); !errors.Is(err, ErrEnvelope) {
				t.Fatalf("the first %d bytes: %v", n, err)
			}
		}
	}
}

func TestEnvelopeLimits(t *testing.T) {
	long := strings.Repeat("x", MaxNameBytes+1)
	for _, c := range []*Call{
		{Message: [][]byte{make([]byte, 60), make([]byte, 41)}},
		{Slots: make([]SlotEpoch, MaxSlots+1)},
		{Listener: long}, {RemoteAddr: long}, {Principal: long},
	} {
		if _, err := appendEnvelope(nil, 1, 0, c, 100); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d parts, %d slots: %v", len(c.Message), len(c.Slots), err)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := ParseEnvelope(frame, nil)
		if err != nil {
			if !errors.Is(err, ErrEnvelope) {
				t.Fatal(err)
			}
			return
		}
		if len(e.Slots)*slotBytes > len(frame) {
			t.Fatalf("%d slots in %d bytes", len(e.Slots), len(frame))
		}
		c := &Call{
			Message: [][]byte{e.Request}, Slots: e.Slots, Stream: e.Stream, Timeout: e.Timeout, Begin: e.Begin,
			Listener: string(e.Listener), RemoteAddr: string(e.RemoteAddr), Principal: string(e.Principal),
		}
		head, err := appendEnvelope(nil, e.Call, e.Sent, c, len(frame))
		if err != nil {
			t.Fatal(err)
		}
		if again := append(head[4:], e.Request...); !bytes.Equal(again, frame) {
			t.Fatalf("%x became %x", frame, again)
		}
	})
}

func FuzzCancel(f *testing.F) {
	f.Fuzz(func(t *testing.T, frame []byte) {
		call, stream, err := ParseCancel(frame)
		if err == nil && !bytes.Equal(appendCancel(nil, call, stream)[4:], frame) {
			t.Fatalf("%x became something else", frame)
		}
	})
}

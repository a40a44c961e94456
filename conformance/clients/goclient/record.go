package goclient

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// A Header is one header of a record; a nil Value is null.
type Header struct {
	Name  string
	Value []byte
}

// A Record is what a client writes or has read. Nil keys and values are null,
// empty ones are empty. Millis is the time in milliseconds since 1970,
// -1 for none.
type Record struct {
	Key, Value []byte
	Millis     int64
	Headers    []Header
}

// firstMillis is the time of the canonical record 0; the others follow, one
// each second.
const firstMillis = 1_600_000_000_000

// canonicalCount is how many canonical records there are.
const canonicalCount = 30

// Canonical returns the records that every client of the zoo writes and knows:
// with and without key, value and headers, text and all 256 bytes.
func Canonical() []Record {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	records := make([]Record, canonicalCount)
	for i := range records {
		r := &records[i]
		if i%7 != 3 {
			r.Key = []byte("k" + strconv.Itoa(i))
		}
		switch {
		case i%11 == 5:
		case i%13 == 8:
			r.Value = []byte{}
		case i%10 == 6:
			r.Value = every
		default:
			r.Value = bytes.Repeat([]byte("v"+strconv.Itoa(i)+"-"), 100)[:100]
		}
		r.Millis = firstMillis + 1000*int64(i)
		if i%3 == 0 {
			r.Headers = []Header{{"h", []byte("x" + strconv.Itoa(i))}, {"n", nil}}
		}
	}
	return records
}

// same returns an error that names the first difference between what was read
// and what was written, in the fields that this row carries.
func (s settings) same(got, want []Record) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d records read, %d written", len(got), len(want))
	}
	for i := range want {
		if err := s.sameRecord(got[i], want[i]); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	return nil
}

func (s settings) sameRecord(got, want Record) error {
	sameBytes := func(a, b []byte) bool {
		return bytes.Equal(a, b) && (!s.carries("nulls") || (a == nil) == (b == nil))
	}
	switch {
	case !sameBytes(got.Key, want.Key):
		return fmt.Errorf("key %q (null %t) read, %q (null %t) written", got.Key, got.Key == nil, want.Key, want.Key == nil)
	case !sameBytes(got.Value, want.Value):
		return fmt.Errorf("value %.40q (%d bytes, null %t) read, %.40q (%d bytes, null %t) written",
			got.Value, len(got.Value), got.Value == nil, want.Value, len(want.Value), want.Value == nil)
	case s.carries("timestamps") && got.Millis != want.Millis:
		return fmt.Errorf("time %d read, %d written", got.Millis, want.Millis)
	case s.carries("headers") && !slices.EqualFunc(got.Headers, want.Headers, func(a, b Header) bool {
		return a.Name == b.Name && bytes.Equal(a.Value, b.Value)
	}):
		return fmt.Errorf("headers %q read, %q written", got.Headers, want.Headers)
	}
	return nil
}

package load

import (
	"testing"

	"github.com/quirelog/quire/conformance/check"
)

func TestValueNamesItsRecord(t *testing.T) {
	for sequence := range uint64(2000) {
		id := check.NewID(3, sequence)
		value := EncodeValue(id)
		got, err := DecodeValue(value)
		if err != nil || got != id {
			t.Fatalf("decode the value of %s: got %s, %v", id, got, err)
		}
		value[len(value)-1] ^= 1
		if got, err := DecodeValue(value); err == nil && got == id {
			t.Fatalf("a flipped bit in the value of %s goes unnoticed", id)
		}
		if _, err := DecodeValue(append(EncodeValue(id), 0)); err == nil {
			t.Fatalf("a byte too many in the value of %s goes unnoticed", id)
		}
	}
}

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// FuzzParseRequest: any bytes are a request or malformed, and what a request of
// this version says is what it was made of.
func FuzzParseRequest(f *testing.F) {
	c, _ := NewCodec(1, metadata.CRC32C, nil)
	f.Add(c.AppendAdd(nil, 0, 0, -1, 5, []byte("hello"), nil)[LengthBytes:])
	f.Add(AppendRead(nil, DoFencing, 1, LastEntry, c.MasterKey())[LengthBytes:])
	f.Add(AppendBatchRead(nil, HighPriority, 1, Batch{MaxEntries: 1}, c.MasterKey())[LengthBytes:])
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := ParseRequest(frame)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if r.Version != Version {
			return
		}
		var again []byte
		switch r.Op {
		case OpAdd:
			again = appendHeader(make([]byte, LengthBytes), r.Version, r.Op, r.Flags)
			again = append(append(again, r.Key[:]...), r.Stored...)
			if int64At(r.Stored, 0) != r.Ledger || int64At(r.Stored, 8) != r.Entry {
				t.Errorf("ledger %d, entry %d of %x", r.Ledger, r.Entry, r.Stored)
			}
		case OpRead:
			again = AppendRead(nil, r.Flags, r.Ledger, r.Entry, r.Key)
		case OpBatchRead:
			again = AppendBatchRead(nil, r.Flags, r.Ledger, Batch{r.Entry, r.RequestID, r.MaxEntries, r.MaxBytes}, r.Key)
		}
		if !bytes.HasPrefix(frame, again[LengthBytes:]) {
			t.Errorf("%x\nbecame %x", frame, again[LengthBytes:])
		}
	})
}

// FuzzParseResponse: the same for answers and batches in them.
func FuzzParseResponse(f *testing.F) {
	body := AppendInBatch(AppendInBatch(AppendBatchID(nil, 7), []byte("one")), nil)
	f.Add(AppendResponse(nil, Response{Version: 2, Op: OpBatchRead, Ledger: 1}, body)[LengthBytes:])
	f.Add(AppendResponse(nil, Response{Version: 2, Op: OpAdd, Code: Fenced, Ledger: 1, Entry: 9}, nil)[LengthBytes:])
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := ParseResponse(frame)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		body := frame[ResponseBytes:]
		again := AppendResponse(nil, r, body)[LengthBytes:]
		binary.BigEndian.PutUint16(again[2:], binary.BigEndian.Uint16(frame[2:])) // flags mean nothing here
		if !bytes.Equal(again, frame) {
			t.Errorf("%x\nbecame %x", frame, again)
		}
		id, rest, err := ParseBatch(body)
		if err != nil {
			return
		}
		batch := AppendBatchID(nil, id)
		for len(rest) > 0 {
			var stored []byte
			if stored, rest, err = NextInBatch(rest); err != nil {
				return
			}
			batch = AppendInBatch(batch, stored)
		}
		if !bytes.Equal(batch, body) {
			t.Errorf("%x\nbecame %x", body, batch)
		}
	})
}

// FuzzParseEntry: what passes the check is what a writer would have written.
func FuzzParseEntry(f *testing.F) {
	for _, d := range digests {
		c, _ := NewCodec(1, d.kind, []byte("passwd"))
		f.Add(int8(d.kind), stored(c, 0, -1, 5, "hello"))
	}
	f.Fuzz(func(t *testing.T, kind int8, entry []byte) {
		c, err := NewCodec(1, metadata.Digest(kind), []byte("passwd"))
		if err != nil {
			return
		}
		e, err := c.Parse(entry, LastEntry)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if again := stored(c, e.ID, e.LastAddConfirmed, e.Length, string(e.Payload)); !bytes.Equal(again, entry) {
			t.Errorf("%x\nbecame %x", entry, again)
		}
	})
}

// FuzzParseStartTLS: any bytes give a message or an error.
func FuzzParseStartTLS(f *testing.F) {
	f.Add(AppendStartTLS(nil, 1)[LengthBytes:])
	f.Add(AppendStartTLSResponse(nil, 1, 404)[LengthBytes:])
	f.Fuzz(func(t *testing.T, frame []byte) {
		if _, err := ParseStartTLS(frame); err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	})
}

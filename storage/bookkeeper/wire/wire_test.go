package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// unhex decodes hex digits, blanks between them allowed.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func codec(t testing.TB, ledger int64, kind metadata.Digest, password string) *Codec {
	t.Helper()
	c, err := NewCodec(ledger, kind, []byte(password))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The bytes here were computed with Java and with Go apart from this package, and
// live bookies take them.
func TestGoldenFrames(t *testing.T) {
	c := codec(t, 1, metadata.CRC32C, "")
	for name, f := range map[string]struct {
		got  []byte
		want string
	}{
		"add": {
			append(c.AppendAdd(nil, 0, 0, -1, 5, []byte("he"), []byte("llo")), "llo"...),
			"00000041 02010000 850bf1071c5e3d8c24235676f8816ae0cbe2f14f 0000000000000001 0000000000000000 ffffffffffffffff 0000000000000005 e3a5f74d 68656c6c6f",
		},
		"read":         {AppendRead(nil, 0, 1, 0, c.MasterKey()), "00000014 02020000 0000000000000001 0000000000000000"},
		"fencing read": {AppendRead(nil, DoFencing, 1, LastEntry, c.MasterKey()), "00000028 02020001 0000000000000001 ffffffffffffffff 850bf1071c5e3d8c24235676f8816ae0cbe2f14f"},
		"answer":       {AppendResponse(nil, Response{Version: 2, Op: OpAdd, Ledger: 1}, nil), "00000018 02010000 00000000 0000000000000001 0000000000000000"},
		"batch read": {
			AppendBatchRead(nil, 0, 1, Batch{RequestID: 7, MaxEntries: 100, MaxBytes: 1 << 20}, MasterKey{}),
			"00000028 02070000 0000000000000001 0000000000000000 0000000000000007 00000064 0000000000100000",
		},
		"START_TLS":        {AppendStartTLS(nil, 1), "0000000b 0a06080310091801 d20600"},
		"START_TLS answer": {AppendStartTLSResponse(nil, 1, OK), "0000000d 0a06080310091801 1000 d20600"},
	} {
		if want := unhex(t, f.want); !bytes.Equal(f.got, want) {
			t.Errorf("%s:\n got %x\nwant %x", name, f.got, want)
		}
	}
}

func TestGoldenKeys(t *testing.T) {
	for password, want := range map[string][2]string{
		"passwd": {"9596625852f7fafc2c9cf0f9f7f3e5995206452b", "6c5d50401aaaf61cb32a1f11f123999a845fb706"},
		"":       {"850bf1071c5e3d8c24235676f8816ae0cbe2f14f", "347ead6348e936507920c15d2ae8266ac6ce9b49"},
	} {
		if got := NewMasterKey([]byte(password)); hex.EncodeToString(got[:]) != want[0] {
			t.Errorf("master key of %q: %x, want %s", password, got, want[0])
		}
		if got := keyOf("mac", []byte(password)); hex.EncodeToString(got[:]) != want[1] {
			t.Errorf("HMAC key of %q: %x, want %s", password, got, want[1])
		}
	}
}

var digests = []struct {
	kind metadata.Digest
	want string // of entry 0 of ledger 1, "hello", with the password "passwd"
}{
	{metadata.CRC32C, "e3a5f74d"},
	{metadata.CRC32, "0000000030a56872"},
	{metadata.HMAC, "2c5f3dbb8c95c515351daad95c129012c5d7a5f9"},
	{metadata.Dummy, ""},
}

// stored makes an entry as a bookie stores it.
func stored(c *Codec, entry, lac, length int64, payload string) []byte {
	frame := c.AppendAdd(nil, 0, entry, lac, length, []byte(payload), nil)
	return frame[LengthBytes+addPrefixBytes:]
}

func TestDigests(t *testing.T) {
	for _, d := range digests {
		c := codec(t, 1, d.kind, "passwd")
		const payload = "hello"
		whole := stored(c, 0, -1, 5, payload)
		sum := whole[MetadataBytes : len(whole)-len(payload)]
		if hex.EncodeToString(sum) != d.want {
			t.Errorf("%v: %x, want %s", d.kind, sum, d.want)
		}
		if want := LengthBytes + addPrefixBytes + MetadataBytes + len(sum); c.AddHeadBytes() != want {
			t.Errorf("%v: AddHeadBytes is %d, want %d", d.kind, c.AddHeadBytes(), want)
		}
		for cut := range len(payload) + 1 {
			head, body := []byte(payload[:cut]), []byte(payload[cut:])
			frame := c.AppendAdd([]byte("x"), RecoveryAdd|HighPriority, 0, -1, 5, head, body)
			frame = append(frame[1:], body...)
			if !bytes.Equal(frame[LengthBytes+addPrefixBytes:], whole) {
				t.Errorf("%v cut at %d: %x, want %x", d.kind, cut, frame[LengthBytes+addPrefixBytes:], whole)
			}
			if r, err := ParseRequest(frame[LengthBytes:]); err != nil || r.Flags != RecoveryAdd|HighPriority || r.Key != c.MasterKey() {
				t.Errorf("%v cut at %d: parsed as %+v, %v", d.kind, cut, r, err)
			}
		}
		e, err := c.Parse(whole, 0)
		if err != nil || string(e.Payload) != payload || e.Ledger != 1 || e.ID != 0 || e.LastAddConfirmed != -1 || e.Length != 5 {
			t.Errorf("%v: parsed as %+v, %v", d.kind, e, err)
		}
	}
	if _, err := NewCodec(1, 9, nil); !errors.Is(err, ErrDigestType) {
		t.Errorf("digest 9: %v", err)
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	for _, d := range digests {
		if d.kind == metadata.Dummy {
			continue
		}
		c := codec(t, 1<<40, d.kind, "passwd")
		good := stored(c, 7, 6, 100, "payload")
		for bit := range 8 * len(good) {
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, err := c.Parse(bad, LastEntry); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v, bit %d flipped: %v", d.kind, bit, err)
			}
		}
		for n := range good {
			if _, err := c.Parse(good[:n], 7); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v, cut to %d bytes: %v", d.kind, n, err)
			}
		}
	}
}

func TestEntryIsTheOneAskedFor(t *testing.T) {
	c := codec(t, 5, metadata.CRC32C, "")
	for name, f := range map[string]struct {
		stored []byte
		entry  int64
		ok     bool
	}{
		"the entry":                     {stored(c, 7, 6, 100, "x"), 7, true},
		"the last entry":                {stored(c, 7, 6, 100, "x"), LastEntry, true},
		"copied by a replication":       {stored(c, 7, 50, 100, "x"), 7, true},
		"another entry":                 {stored(c, 8, 6, 100, "x"), 7, false},
		"another ledger's":              {stored(codec(t, 6, metadata.CRC32C, ""), 7, 6, 100, "x"), 7, false},
		"a negative entry":              {stored(c, -5, -6, 100, "x"), LastEntry, false},
		"a LAC below none":              {stored(c, 7, -2, 100, "x"), 7, false},
		"a ledger shorter than the one": {stored(c, 7, 6, 0, "x"), 7, false},
	} {
		if _, err := c.Parse(f.stored, f.entry); (err == nil) != f.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without a digest the ids are all there is to check.
	dummy := codec(t, 5, metadata.Dummy, "")
	if _, err := dummy.Parse(stored(dummy, 7, 6, 100, "x"), 6); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another entry without digest: %v", err)
	}
}

func TestRequestsComeBack(t *testing.T) {
	key := NewMasterKey([]byte("k"))
	for _, flags := range []Flags{0, DoFencing, HighPriority, DoFencing | HighPriority} {
		want := Request{Version: 2, Op: OpRead, Flags: flags, Ledger: 1 << 33, Entry: 12}
		if flags&DoFencing != 0 {
			want.Key = key
		}
		check := func(frame []byte) {
			t.Helper()
			got, err := ParseRequest(frame[LengthBytes:])
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
			for n := range len(frame) - LengthBytes {
				if _, err := ParseRequest(frame[LengthBytes : LengthBytes+n]); !errors.Is(err, ErrMalformed) {
					t.Errorf("%v cut to %d bytes: %v", want.Op, n, err)
				}
			}
		}
		check(AppendRead(nil, flags, want.Ledger, want.Entry, key))
		want.Op, want.RequestID, want.MaxEntries, want.MaxBytes = OpBatchRead, 99, 3, 1<<34
		check(AppendBatchRead(nil, flags, want.Ledger, Batch{First: 12, RequestID: 99, MaxEntries: 3, MaxBytes: 1 << 34}, key))
	}
}

func TestMalformed(t *testing.T) {
	for _, header := range []string{"00020000", "02000000", "02030000", "02040000", "02050000", "02060000", "02080000", "02090000", "0a060803"} {
		frame := append(unhex(t, header), make([]byte, 100)...)
		if _, err := ParseRequest(frame); !errors.Is(err, ErrMalformed) {
			t.Errorf("request %s: %v", header, err)
		}
	}
	for _, header := range []string{"02000000", "02030000", "02040000", "02080000"} {
		if _, err := ParseResponse(append(unhex(t, header), make([]byte, 20)...)); !errors.Is(err, ErrMalformed) {
			t.Errorf("answer %s: %v", header, err)
		}
	}
	if _, err := ParseResponse(append(unhex(t, "02010000"), make([]byte, 19)...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("short answer: %v", err)
	}
	for _, s := range []string{"", "0a06080310091801d206", "0a06080210091801d20600", "0a06080310011801d20600", "ffffffffffffffffffffff"} {
		if _, err := ParseStartTLS(unhex(t, s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("START_TLS %q: %v", s, err)
		}
	}
}

func TestStartTLSAnswer(t *testing.T) {
	for _, code := range []Code{OK, 404} {
		frame := AppendStartTLSResponse(nil, 1<<40, code)
		got, err := ParseStartTLS(frame[LengthBytes:])
		if err != nil || got.TxnID != 1<<40 || got.Status != code {
			t.Errorf("answer %d: %+v, %v", code, got, err)
		}
		if len(frame) > LengthBytes+MaxStartTLSBytes {
			t.Errorf("answer of %d bytes", len(frame))
		}
	}
}

func TestBatch(t *testing.T) {
	body := AppendBatchID(nil, 42)
	want := []string{"one", "", "three"}
	for _, s := range want {
		body = AppendInBatch(body, []byte(s))
	}
	id, rest, err := ParseBatch(body)
	if id != 42 || err != nil {
		t.Fatalf("id %d, %v", id, err)
	}
	for _, s := range want {
		var got []byte
		if got, rest, err = NextInBatch(rest); err != nil || string(got) != s {
			t.Errorf("got %q, %v, want %q", got, err, s)
		}
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes are left", len(rest))
	}
	for _, bad := range [][]byte{nil, {0, 0, 0}, {0, 0, 0, 2, 1}, {0xff, 0xff, 0xff, 0xff, 1}} {
		if _, _, err := NextInBatch(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("batch %x: %v", bad, err)
		}
	}
	if _, _, err := ParseBatch(make([]byte, 7)); !errors.Is(err, ErrMalformed) {
		t.Errorf("short batch: %v", err)
	}
}

func TestCodes(t *testing.T) {
	seen := map[string]Code{}
	for _, c := range []Code{OK, NoLedger, NoEntry, BadRequest, IOError, Unauthorized, BadVersion, Fenced, ReadOnly, TooManyRequests, UnknownLedgerState, 9} {
		for _, s := range []string{c.String(), c.Error()} {
			if old, dup := seen[s]; dup {
				t.Errorf("codes %d and %d are both %q", old, c, s)
			}
			seen[s] = c
		}
		got, ok := CodeOf(fmt.Errorf("bookie: %w", c))
		if got != c || !ok || !errors.Is(fmt.Errorf("bookie: %w", c), c) {
			t.Errorf("code of a wrapped %v: %v, %v", c, got, ok)
		}
	}
	if c, ok := CodeOf(nil); c != OK || !ok {
		t.Errorf("code of no error: %v, %v", c, ok)
	}
	if c, ok := CodeOf(ErrCorrupt); ok {
		t.Errorf("a corrupt entry has the code %v", c)
	}
}

func TestLargestPayloadFitsBothWays(t *testing.T) {
	c := codec(t, 1, metadata.HMAC, "")
	payload := make([]byte, MaxPayloadBytes(DefaultMaxFrameBytes))
	frame := c.AppendAdd(nil, 0, 0, -1, int64(len(payload)), payload, nil)
	if len(frame) != DefaultMaxFrameBytes {
		t.Errorf("an add has %d bytes, want %d", len(frame), DefaultMaxFrameBytes)
	}
	answer := AppendResponse(nil, Response{Op: OpRead}, frame[LengthBytes+addPrefixBytes:])
	if len(answer) > DefaultMaxFrameBytes {
		t.Errorf("an answer has %d bytes, more than %d", len(answer), DefaultMaxFrameBytes)
	}
}

func TestAppendAddAllocatesNothing(t *testing.T) {
	room := make([]byte, 0, 256)
	head, body := make([]byte, 30), make([]byte, 1000)
	for _, d := range digests {
		c := codec(t, 1, d.kind, "passwd")
		if n := testing.AllocsPerRun(100, func() { room = c.AppendAdd(room[:0], 0, 5, 4, 100, head, body) }); n >= 1 && d.kind != metadata.HMAC {
			t.Errorf("%v: %v allocations", d.kind, n)
		}
	}
}

func BenchmarkAppendAdd(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := codec(b, 1, metadata.CRC32C, "")
			room, body := make([]byte, 0, 256), make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := range b.N {
				room = c.AppendAdd(room[:0], 0, int64(i), int64(i)-1, 100, nil, body)
			}
		})
	}
}

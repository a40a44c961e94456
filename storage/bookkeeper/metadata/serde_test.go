package metadata_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// golden are bytes that BookKeeper wrote, or accepted from another implementation.
var golden = map[string]struct {
	hex    string
	ledger metadata.Ledger
}{
	"closed, two segments": {
		"426f6f6b69654d65746164617461466f726d617456657273696f6e09330a7b0803100318e8072009280332320a0e3132372e302e302e313a333138310a0e3132372e302e302e313a333138320a0e" +
			"3132372e302e302e313a33313833100032320a0e3132372e302e302e313a333138310a0e3132372e302e302e313a333138340a0e3132372e302e302e313a3331383310053803420048026000",
		metadata.Ledger{
			Ensemble: 3, WriteQuorum: 3, AckQuorum: 2, State: metadata.Closed, LastEntry: 9, Length: 1000, Digest: metadata.CRC32C, Password: []byte{},
			Segments: []metadata.Segment{
				{First: 0, Bookies: []metadata.BookieID{"127.0.0.1:3181", "127.0.0.1:3182", "127.0.0.1:3183"}},
				{First: 5, Bookies: []metadata.BookieID{"127.0.0.1:3181", "127.0.0.1:3184", "127.0.0.1:3183"}},
			},
		},
	},
	"open, creator's token": {
		"426f6f6b69654d65746164617461466f726d617456657273696f6e09330a4708021002180020ffffffffffffffffff01280132220a0e3132372e302e302e313a333138310a0e3132372e302e302e313a33313832" +
			"100038034200480260888e98a8c0e0808101",
		metadata.Ledger{
			Ensemble: 2, WriteQuorum: 2, AckQuorum: 2, State: metadata.Open, LastEntry: metadata.NoEntry, Digest: metadata.CRC32C, Password: []byte{},
			Segments: []metadata.Segment{{First: 0, Bookies: []metadata.BookieID{"127.0.0.1:3181", "127.0.0.1:3182"}}},
			CToken:   0x0102030405060708,
		},
	},
	"closed by a live cluster, custom metadata": {
		"426f6f6b69654d65746164617461466f726d617456657273696f6e09330a5f0803100318e807200928033235" +
			"0a0f3132372e302e302e313a33313831310a0f3132372e302e302e313a33313831330a0f3132372e302e302e313a333138313210003803420048025a130a0b6170706c69636174696f6e1204746f6f6c6000",
		metadata.Ledger{
			Ensemble: 3, WriteQuorum: 3, AckQuorum: 2, State: metadata.Closed, LastEntry: 9, Length: 1000, Digest: metadata.CRC32C, Password: []byte{},
			Segments: []metadata.Segment{{First: 0, Bookies: []metadata.BookieID{"127.0.0.1:31811", "127.0.0.1:31813", "127.0.0.1:31812"}}},
			Custom:   map[string][]byte{"application": []byte("tool")},
		},
	},
}

func decode(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for name, g := range golden {
		data := decode(t, g.hex)
		g.ledger.ID = 7
		got, err := metadata.ParseLedger(7, data)
		if err != nil || !reflect.DeepEqual(got, &g.ledger) {
			t.Errorf("%s: parsed %+v, %v\nwant %+v", name, got, err, g.ledger)
		}
		if back, err := metadata.AppendLedger([]byte("x"), &g.ledger); err != nil || !bytes.Equal(back, append([]byte("x"), data...)) {
			t.Errorf("%s: wrote %x, %v\nwant 78%x", name, back, err, data)
		}
	}
}

// message wraps fields as a ledger's metadata.
func message(fields []byte) []byte {
	return append(protowire.AppendVarint([]byte("BookieMetadataFormatVersion\t3\n"), uint64(len(fields))), fields...)
}

// fields returns the message inside a golden ledger.
func fields(t testing.TB, name string) []byte {
	t.Helper()
	return decode(t, golden[name].hex)[31:]
}

func varint(field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), uint64(v))
}

func lengthPrefixed(field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), v)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// What a newer BookKeeper adds to version 3 survives a change of the rest, in the
// ledger, in its segments and in their copies.
func TestUnknownFieldsAreKept(t *testing.T) {
	fixed32 := protowire.AppendFixed32(protowire.AppendTag(nil, 40, protowire.Fixed32Type), 0xdeadbeef)
	fixed64 := protowire.AppendFixed64(protowire.AppendTag(nil, 41, protowire.Fixed64Type), 1)
	inLedger := join(varint(13, 5), lengthPrefixed(1000, []byte("later")), fixed32, fixed64)
	inSegment := join(lengthPrefixed(3, []byte("more")), fixed64)
	segment := func(first int64, more []byte) []byte {
		return lengthPrefixed(6, join(lengthPrefixed(1, []byte("a")), varint(2, first), more))
	}
	ledger := func(last, length, state int64, segments, more []byte) []byte {
		return message(join(varint(1, 1), varint(2, 1), varint(3, length), varint(4, last), varint(5, state), segments,
			varint(7, 3), lengthPrefixed(8, nil), varint(9, 1), varint(12, 0), more))
	}
	l, err := metadata.ParseLedger(1, ledger(-1, 0, 1, segment(0, inSegment), inLedger))
	if err != nil {
		t.Fatal(err)
	}
	l = l.Clone()
	l.State, l.LastEntry, l.Length = metadata.Closed, 3, 30
	l.Segments = append(l.Segments, metadata.Segment{First: 2, Bookies: []metadata.BookieID{"a"}})
	got, err := metadata.AppendLedger(nil, l)
	want := ledger(3, 30, 3, join(segment(0, inSegment), segment(2, nil)), inLedger)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrote %x, %v\nwant %x", got, err, want)
	}
}

// Fields that old ledgers lack, that come in any order, and that say nothing
// before a ledger is closed.
func TestReadingRules(t *testing.T) {
	segment := func(first int64) []byte {
		return lengthPrefixed(6, join(varint(2, first), lengthPrefixed(1, []byte("a")), lengthPrefixed(1, []byte("b"))))
	}
	l, err := metadata.ParseLedger(1, message(join(segment(8), varint(5, 2), varint(4, 77), varint(3, 99), segment(0), varint(2, 2), varint(1, 2), varint(10, 1234))))
	if err != nil {
		t.Fatal(err)
	}
	want := &metadata.Ledger{
		ID: 1, Ensemble: 2, WriteQuorum: 2, AckQuorum: 2, State: metadata.InRecovery, LastEntry: metadata.NoEntry, CreatedMS: 1234,
		Segments: []metadata.Segment{
			{First: 0, Bookies: []metadata.BookieID{"a", "b"}}, {First: 8, Bookies: []metadata.BookieID{"a", "b"}},
		},
	}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("parsed %+v\nwant %+v", l, want)
	}
}

func TestParseRefuses(t *testing.T) {
	const header = "BookieMetadataFormatVersion\t"
	closed := fields(t, "closed, two segments")
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":               {nil, metadata.ErrCorrupt},
		"another header":        {[]byte("BookieMetadataFormatVersion 3\n"), metadata.ErrCorrupt},
		"no version":            {[]byte(header), metadata.ErrCorrupt},
		"version without end":   {[]byte(header + "3"), metadata.ErrCorrupt},
		"version of letters":    {[]byte(header + "three\n"), metadata.ErrCorrupt},
		"version 0":             {[]byte(header + "0\n"), metadata.ErrCorrupt},
		"version with a sign":   {[]byte(header + "-4\n"), metadata.ErrCorrupt},
		"endless version":       {[]byte(header + strings.Repeat("4", 1000) + "\n"), metadata.ErrCorrupt},
		"version 1":             {[]byte(header + "1\n3\n3\n0\n0\ta\tb\tc"), metadata.ErrOldVersion},
		"version 2":             {[]byte(header + "2\nquorumSize: 3\n"), metadata.ErrOldVersion},
		"version 4":             {[]byte(header + "4\n"), metadata.ErrNewerVersion},
		"version 33":            {[]byte(header + "33\n"), metadata.ErrNewerVersion},
		"no length":             {[]byte(header + "3\n"), metadata.ErrCorrupt},
		"endless length":        {append([]byte(header+"3\n"), bytes.Repeat([]byte{0xff}, 20)...), metadata.ErrCorrupt},
		"cut short":             {message(closed)[:60], metadata.ErrCorrupt},
		"a field after it":      {append(message(closed), varint(13, 1)...), metadata.ErrCorrupt},
		"empty message":         {message(nil), metadata.ErrCorrupt},
		"no message":            {message([]byte{0xff}), metadata.ErrCorrupt},
		"state 0":               {message(join(closed, varint(5, 0))), metadata.ErrCorrupt},
		"state 4":               {message(join(closed, varint(5, 4))), metadata.ErrCorrupt},
		"state 257":             {message(join(closed, varint(5, 257))), metadata.ErrCorrupt},
		"digest 5":              {message(join(closed, varint(7, 5))), metadata.ErrCorrupt},
		"digest 259":            {message(join(closed, varint(7, 259))), metadata.ErrCorrupt},
		"write quorum 4 of 3":   {message(join(closed, varint(1, 4))), metadata.ErrCorrupt},
		"write quorum 2^32+3":   {message(join(closed, varint(1, 1<<32+3))), metadata.ErrCorrupt},
		"ack quorum 0":          {message(join(closed, varint(9, 0))), metadata.ErrCorrupt},
		"ensemble 4":            {message(join(closed, varint(2, 4))), metadata.ErrCorrupt},
		"last entry -2":         {message(join(closed, varint(4, -2))), metadata.ErrCorrupt},
		"length -1":             {message(join(closed, varint(3, -1))), metadata.ErrCorrupt},
		"segment twice":         {message(join(closed, closed[bytes.Index(closed, []byte{0x32, 0x32}):][:52])), metadata.ErrCorrupt},
		"bookie number":         {message(join(closed, lengthPrefixed(6, varint(1, 1)))), metadata.ErrCorrupt},
		"segment's first bytes": {message(join(closed, lengthPrefixed(6, lengthPrefixed(2, nil)))), metadata.ErrCorrupt},
		"segment is no message": {message(join(closed, lengthPrefixed(6, []byte{0xff}))), metadata.ErrCorrupt},
		"state is bytes":        {message(join(closed, lengthPrefixed(5, []byte{1}))), metadata.ErrCorrupt},
		"password is a number":  {message(join(closed, varint(8, 1))), metadata.ErrCorrupt},
		"custom is no message":  {message(join(closed, lengthPrefixed(11, []byte{0x80}))), metadata.ErrCorrupt},
		"custom key a number":   {message(join(closed, lengthPrefixed(11, varint(1, 1)))), metadata.ErrCorrupt},
	} {
		l, err := metadata.ParseLedger(3, c.data)
		if !errors.Is(err, c.want) || l != nil {
			t.Errorf("%s: %+v, %v, want %v", name, l, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "ledger 3: ") {
			t.Errorf("%s: the error does not name the ledger: %v", name, err)
		}
	}
}

// Before a ledger is closed nobody knows its end, whatever the writer believes.
func TestOpenLedgerHasNoEnd(t *testing.T) {
	g := golden["open, creator's token"]
	for _, state := range []metadata.State{metadata.Open, metadata.InRecovery} {
		l := g.ledger.Clone()
		l.State, l.LastEntry, l.Length = state, 77, 770
		data, err := metadata.AppendLedger(nil, l)
		want := bytes.Replace(decode(t, g.hex), []byte{0x28, 1}, []byte{0x28, byte(state)}, 1)
		if err != nil || !bytes.Equal(data, want) {
			t.Errorf("%v: wrote %x, %v\nwant %x", state, data, err, want)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	base := golden["closed, two segments"].ledger
	for name, spoil := range map[string]func(*metadata.Ledger){
		"no quorum":         func(l *metadata.Ledger) { l.WriteQuorum = 0 },
		"ack quorum":        func(l *metadata.Ledger) { l.AckQuorum = 4 },
		"huge ensemble":     func(l *metadata.Ledger) { l.Ensemble = metadata.MaxEnsemble + 1 },
		"state":             func(l *metadata.Ledger) { l.State = 0 },
		"digest":            func(l *metadata.Ledger) { l.Digest = 5 },
		"no segments":       func(l *metadata.Ledger) { l.Segments = nil },
		"first segment":     func(l *metadata.Ledger) { l.Segments[0].First = 1 },
		"order of segments": func(l *metadata.Ledger) { l.Segments[1].First = 0 },
		"short segment":     func(l *metadata.Ledger) { l.Segments[1].Bookies = l.Segments[1].Bookies[:2] },
		"bookie twice":      func(l *metadata.Ledger) { l.Segments[1].Bookies[0] = l.Segments[1].Bookies[1] },
		"empty bookie":      func(l *metadata.Ledger) { l.Segments[1].Bookies[0] = "" },
		"last entry":        func(l *metadata.Ledger) { l.LastEntry = -2 },
		"negative id":       func(l *metadata.Ledger) { l.ID = -1 },
	} {
		l := base.Clone()
		spoil(l)
		if b, err := metadata.AppendLedger(nil, l); !errors.Is(err, metadata.ErrInvalid) {
			t.Errorf("%s: %x, %v, want ErrInvalid", name, b, err)
		}
	}
}

// genLedger draws any ledger that makes sense.
func genLedger(t *rapid.T) *metadata.Ledger {
	e := rapid.IntRange(1, 7).Draw(t, "ensemble")
	wq := rapid.IntRange(1, e).Draw(t, "write quorum")
	l := &metadata.Ledger{
		ID:       rapid.Int64Min(0).Draw(t, "id"),
		Ensemble: e, WriteQuorum: wq, AckQuorum: rapid.IntRange(1, wq).Draw(t, "ack quorum"),
		State:     metadata.State(rapid.IntRange(1, 3).Draw(t, "state")),
		LastEntry: metadata.NoEntry,
		CToken:    rapid.Int64().Draw(t, "token"),
		CreatedMS: rapid.Int64().Draw(t, "created"),
	}
	if l.Digest = metadata.Digest(rapid.IntRange(0, 4).Draw(t, "digest")); l.Digest != 0 {
		l.Password = append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "password")...)
	}
	if l.State == metadata.Closed {
		l.LastEntry, l.Length = rapid.Int64Min(-1).Draw(t, "last"), rapid.Int64Min(0).Draw(t, "length")
	}
	bookies := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zA-Z0-9:_.-]{1,30}`).Filter(func(s string) bool { return s != "readonly" }), e, e, rapid.ID)
	first := int64(0)
	for range rapid.IntRange(1, 4).Draw(t, "segments") {
		s := metadata.Segment{First: first}
		for _, b := range bookies.Draw(t, "bookies") {
			s.Bookies = append(s.Bookies, metadata.BookieID(b))
		}
		l.Segments = append(l.Segments, s)
		first += rapid.Int64Range(1, 1<<60).Draw(t, "entries")
	}
	for k, v := range rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.Byte())).Draw(t, "custom") {
		if l.Custom == nil {
			l.Custom = make(map[string][]byte)
		}
		l.Custom[k] = append([]byte{}, v...)
	}
	return l
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := genLedger(t)
		data, err := metadata.AppendLedger(nil, l)
		if err != nil {
			t.Fatal(err)
		}
		got, err := metadata.ParseLedger(l.ID, data)
		if err != nil || !reflect.DeepEqual(got, l) {
			t.Fatalf("%+v, %v\nwant %+v", got, err, l)
		}
	})
}

// Whatever is accepted is written in such a way that it reads the same, and
// writing it again changes nothing.
func FuzzParseLedger(f *testing.F) {
	for _, g := range golden {
		f.Add(decode(f, g.hex))
	}
	f.Add(message(join(varint(1, 1), varint(2, 1), varint(5, 1), lengthPrefixed(6, join(lengthPrefixed(1, []byte("a")), varint(2, 0))))))
	f.Add([]byte("BookieMetadataFormatVersion\t4\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := metadata.ParseLedger(1, data)
		if err != nil {
			if !errors.Is(err, metadata.ErrCorrupt) && !errors.Is(err, metadata.ErrNewerVersion) && !errors.Is(err, metadata.ErrOldVersion) {
				t.Fatalf("an error of no class: %v", err)
			}
			return
		}
		written, err := metadata.AppendLedger(nil, l)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := metadata.ParseLedger(1, written)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		rewritten, err := metadata.AppendLedger(nil, again)
		if err != nil || !bytes.Equal(rewritten, written) {
			t.Fatalf("%x, %v\nafter %x", rewritten, err, written)
		}
	})
}

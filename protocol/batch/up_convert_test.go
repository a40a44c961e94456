package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
)

var wide = UpConvertOptions{MaxInflatedBytes: 1 << 20}

// legacyCodecs are those of the old formats.
var legacyCodecs = []Codec{None, Gzip, Snappy, LZ4}

// canonical is what the fixtures hold: null and empty keys and values, and every byte.
func canonical(n int) (all []flat) {
	for i := range n {
		f := flat{offset: int64(i), timestamp: 1600000000000 + 1000*int64(i), key: fmt.Appendf(nil, "k%d", i)}
		if i%7 == 3 {
			f.key = nil
		}
		switch {
		case i%11 == 5:
		case i%13 == 8:
			f.value = []byte{}
		case i%10 == 6:
			for b := range 256 {
				f.value = append(f.value, byte(b))
			}
		default:
			f.value = bytes.Repeat(fmt.Appendf(nil, "v%d-", i), 40)[:100]
		}
		all = append(all, f)
	}
	return all
}

// set makes a message set of the messages with their offsets as they are,
// in a wrapper if c is a codec, of the last offset.
func set(t testing.TB, magic int8, c Codec, all []flat) []byte {
	var raw [][]byte
	newest := NoTimestamp
	for _, f := range all {
		raw = append(raw, message(magic, 0, f))
		newest = max(newest, f.timestamp)
	}
	if c == None {
		return slices.Concat(raw...)
	}
	return wrapper(t, magic, c, flat{offset: all[len(all)-1].offset, timestamp: newest}, raw...)
}

// noise returns n bytes that do not compress, the same for each seed.
func noise(seed, n int) []byte {
	rng := rand.NewPCG(uint64(seed), 9)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint64())
	}
	return b
}

func rawSnappy(b []byte) []byte { return s2.EncodeSnappy(nil, b) }

// readBatches reads what UpConvert made, with offsets from 0 on.
func readBatches(t testing.TB, raw []byte) (all []flat, codecs []Codec) {
	t.Helper()
	for len(raw) > 0 {
		b, rest, err := Next(raw)
		if err != nil {
			t.Fatal(err)
		}
		raw = rest
		if err := b.Verify(); err != nil {
			t.Fatal(err)
		}
		if b.BaseOffset() != 0 || b.ProducerID() != NoProducerID || b.ProducerEpoch() != -1 || b.BaseSequence() != -1 || b.Attributes()&^attrCodec != 0 {
			t.Fatalf("base offset %d, producer %d %d %d, attributes %x", b.BaseOffset(), b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.Attributes())
		}
		codecs = append(codecs, b.Codec())
		records, err := Decompress(nil, b.Codec(), b.Records(), 1<<26)
		if err != nil {
			t.Fatal(err)
		}
		newest := int64(-1 << 63)
		it := b.Iterate(records)
		var r Record
		for it.Next(&r) {
			f := flat{int64(len(all)), b.BaseTimestamp() + r.TimestampDelta, r.Key, r.Value}
			if r.Headers.Len() != 0 || r.Attributes != 0 {
				t.Fatalf("record %d has %d headers, attributes %x", len(all), r.Headers.Len(), r.Attributes)
			}
			all = append(all, f)
			newest = max(newest, f.timestamp)
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
		if newest != b.MaxTimestamp() {
			t.Fatalf("max timestamp %d, not %d", b.MaxTimestamp(), newest)
		}
	}
	return all, codecs
}

// asUpConverted is what messages become: offsets from 0, no timestamps in magic 0.
func asUpConverted(magic int8, all []flat) []flat {
	all = slices.Clone(all)
	for i := range all {
		all[i].offset = int64(i)
		if magic == 0 {
			all[i].timestamp = NoTimestamp
		}
	}
	return all
}

// TestUpConvertOldClients reads what the Java clients of those years wrote.
func TestUpConvertOldClients(t *testing.T) {
	files, err := filepath.Glob("testdata/message_sets/java-*-magic*.bin")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d fixtures: %v", len(files), err)
	}
	for _, file := range files {
		in, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		magic := int8(0)
		if strings.Contains(file, "magic1") {
			magic = 1
		}
		var codec Codec
		for _, c := range legacyCodecs {
			if strings.HasSuffix(file, c.String()+".bin") {
				codec = c
			}
		}
		out, err := UpConvert([]byte("head"), in, wide)
		if err != nil || !bytes.HasPrefix(out, []byte("head")) {
			t.Fatalf("%s: %v", file, err)
		}
		all, codecs := readBatches(t, out[4:])
		if !slices.Equal(codecs, []Codec{codec}) {
			t.Fatalf("%s: became batches of %v", file, codecs)
		}
		compareFlat(t, file, all, asUpConverted(magic, canonical(30)))
	}
}

func TestUpConvert(t *testing.T) {
	some := canonical(5)
	renumbered := func(offsets ...int64) []flat {
		all := slices.Clone(some)
		for i := range all {
			all[i].offset = offsets[i]
		}
		return all
	}
	for magic := range int8(2) {
		for _, c := range legacyCodecs {
			for name, in := range map[string][]byte{
				"offsets from 0":            set(t, magic, c, some),
				"offsets all 0":             set(t, magic, c, renumbered(0, 0, 0, 0, 0)),
				"offsets absolute":          set(t, magic, c, renumbered(100, 101, 102, 103, 104)),
				"offsets with gaps":         set(t, magic, c, renumbered(0, 7, 8, 70, 71)),
				"offsets that fall":         set(t, magic, c, renumbered(9, 8, 7, 6, 5)),
				"offsets that are negative": set(t, magic, c, renumbered(-9, -8, -7, -6, -5)),
				"offset beyond any":         set(t, magic, c, renumbered(-1<<63, 1<<63-1, 0, 1, 2)),
				"cut off at the end":        append(set(t, magic, c, some), set(t, magic, c, some)[:50]...),
				"one byte too many":         append(set(t, magic, c, some), 0),
			} {
				what := fmt.Sprintf("magic %d, %v, %s", magic, c, name)
				out, err := UpConvert(nil, in, wide)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				all, codecs := readBatches(t, out)
				if !slices.Equal(codecs, []Codec{c}) {
					t.Fatalf("%s: became batches of %v", what, codecs)
				}
				compareFlat(t, what, all, asUpConverted(magic, some))
			}
		}
	}
}

func TestUpConvertWrappers(t *testing.T) {
	some := canonical(3)
	var raw [][]byte
	for _, f := range some {
		raw = append(raw, message(1, 0, f))
	}
	read := func(in []byte) []flat {
		t.Helper()
		out, err := UpConvert(nil, in, wide)
		if err != nil {
			t.Fatal(err)
		}
		all, _ := readBatches(t, out)
		return all
	}
	compareFlat(t, "wrapper offset 0, of librdkafka", read(wrapper(t, 1, Gzip, flat{}, raw...)), some)
	compareFlat(t, "wrapper offset beyond", read(wrapper(t, 1, Gzip, flat{offset: 99}, raw...)), some)
	compareFlat(t, "wrapper with a key", read(wrapper(t, 1, Gzip, flat{key: []byte("k")}, raw...)), some)
	compareFlat(t, "inner set cut off at its end", read(wrapper(t, 1, Gzip, flat{}, append(raw, raw[0][:40])...)), some)
	compareFlat(t, "inner set with an odd byte", read(wrapper(t, 1, Gzip, flat{}, append(raw, []byte{0})...)), some)
	compareFlat(t, "raw snappy", read(message(1, int8(Snappy), flat{value: rawSnappy(slices.Concat(raw...))})), some)

	// Every negative length is null, and bytes after the value are nothing.
	odd := message(1, 0, flat{timestamp: 5})
	odd = altered(append(odd, 1, 2, 3), func(m []byte) {
		binary.BigEndian.PutUint32(m[8:], uint32(len(m)-12))
		binary.BigEndian.PutUint32(m[26:], 0x80000000)
		binary.BigEndian.PutUint32(m[30:], 0xfffffffe)
	})
	compareFlat(t, "odd lengths", read(odd), []flat{{timestamp: 5}})
}

func TestUpConvertTimestamps(t *testing.T) {
	plain := func(times ...int64) (raw [][]byte) {
		for _, ms := range times {
			raw = append(raw, message(1, 0, flat{timestamp: ms, key: []byte("k")}))
		}
		return raw
	}
	appendTime := func(ms int64, inner ...[]byte) []byte {
		return altered(wrapper(t, 1, Gzip, flat{timestamp: ms}, inner...), func(m []byte) { m[17] |= 8 })
	}
	for name, c := range map[string]struct {
		in   []byte
		want []int64
	}{
		"their own":                {slices.Concat(plain(7, -1, 5)...), []int64{7, -1, 5}},
		"their own in a wrapper":   {wrapper(t, 1, Gzip, flat{timestamp: 99}, plain(7, -1, 5)...), []int64{7, -1, 5}},
		"the wrapper's":            {appendTime(99, plain(7, -1, 5)...), []int64{99, 99, 99}},
		"largest and none":         {slices.Concat(plain(1<<63-1, -1)...), []int64{1<<63 - 1, -1}},
		"none and largest":         {slices.Concat(plain(-1, 1<<63-1)...), []int64{-1, 1<<63 - 1}},
		"type of a plain message":  {altered(plain(7)[0], func(m []byte) { m[17] |= 8 }), []int64{7}},
		"type of an inner message": {wrapper(t, 1, Gzip, flat{}, altered(plain(7)[0], func(m []byte) { m[17] |= 8 })), []int64{7}},
		"no type of the wrapper":   {wrapper(t, 1, Gzip, flat{}, altered(plain(-1)[0], func(m []byte) { m[17] |= 8 })), []int64{-1}},
		"type in magic 0":          {altered(message(0, 0, flat{}), func(m []byte) { m[17] |= 8 }), []int64{-1}},
	} {
		out, err := UpConvert(nil, c.in, wide)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all, _ := readBatches(t, out)
		var got []int64
		for _, f := range all {
			got = append(got, f.timestamp)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %d, not %d", name, got, c.want)
		}
	}
}

func TestUpConvertSplits(t *testing.T) {
	var all []flat
	for i := range 400 {
		all = append(all, flat{int64(i), int64(i), fmt.Appendf(nil, "k%d", i), noise(i, 100)})
	}
	for magic := range int8(2) {
		for _, c := range legacyCodecs {
			in := set(t, magic, None, all)
			o := wide
			o.MaxBatchBytes = 5000
			if c != None {
				// The wrapper itself is within the limit, as a batch made anew it need not be.
				in = set(t, magic, c, all)
				o.MaxBatchBytes = len(in)
				o.Recode, o.Codec = true, None
			}
			out, err := UpConvert(nil, in, o)
			if err != nil {
				t.Fatalf("magic %d, %v: %v", magic, c, err)
			}
			got, codecs := readBatches(t, out)
			for rest := out; len(rest) > 0; {
				b, after, _ := Next(rest)
				if len(b) > o.MaxBatchBytes {
					t.Fatalf("batch of %d bytes, of at most %d", len(b), o.MaxBatchBytes)
				}
				rest = after
			}
			if c == None && len(codecs) != 10 {
				t.Fatalf("magic %d, %v: %d batches", magic, c, len(codecs))
			}
			compareFlat(t, "split", got, asUpConverted(magic, all))

			// Compressed by another codec, the batches' sizes are not known before they are made.
			if c == None {
				o.Recode, o.Codec = true, Gzip
				if out, err = UpConvert(out[:0], in, o); err != nil {
					t.Fatal(err)
				}
				got, codecs = readBatches(t, out)
				if len(codecs) < 7 || len(codecs) > 20 || slices.ContainsFunc(codecs, func(c Codec) bool { return c != Gzip }) {
					t.Fatalf("gzip: batches of %v", codecs)
				}
				compareFlat(t, "split", got, asUpConverted(magic, all))
			}
		}
	}
}

func TestUpConvertRecodes(t *testing.T) {
	some := canonical(30)
	for _, from := range legacyCodecs {
		for _, to := range codecs {
			o := wide
			o.Recode, o.Codec = true, to
			out, err := UpConvert(nil, set(t, 1, from, some), o)
			if err != nil {
				t.Fatal(err)
			}
			all, used := readBatches(t, out)
			if !slices.Equal(used, []Codec{to}) {
				t.Fatalf("%v to %v: batches of %v", from, to, used)
			}
			compareFlat(t, "recoded", all, some)
		}
	}
}

// TestUpConvertNothing shows the sets without a whole message, which are no error.
func TestUpConvertNothing(t *testing.T) {
	m := message(1, 0, flat{key: []byte("k")})
	for n := range len(m) {
		if out, err := UpConvert([]byte("head"), m[:n], wide); err != nil || string(out) != "head" {
			t.Fatalf("%d bytes: %q, %v", n, out, err)
		}
	}
}

// TestUpConvertBatch shows what becomes of v2 batches in Produce v0–v2.
func TestUpConvertBatch(t *testing.T) {
	b := reference(None, nil, threeRecords()...)
	out, err := UpConvert([]byte("head"), append(bytes.Clone(b), b[:40]...), wide)
	if err != nil || !bytes.Equal(out, append([]byte("head"), b...)) {
		t.Fatalf("%x: %v", out, err)
	}
}

// refusal is a message set that must be refused.
type refusal struct {
	set   []byte
	want  error
	index int // of the message at fault, -1: none is
	opts  func(*UpConvertOptions)
}

// refusals is the corpus of what producers may get wrong.
func refusals(t testing.TB) map[string]refusal {
	v0 := message(0, 0, flat{0, 0, []byte("k"), []byte("v")})
	v1 := message(1, 0, flat{0, 5, []byte("k"), []byte("v")})
	v1next := message(1, 0, flat{1, 6, []byte("k"), []byte("w")})
	flip := func(m []byte, at int) []byte {
		m = bytes.Clone(m)
		m[at] ^= 1
		return m
	}
	sized := func(m []byte, n int32) []byte {
		return altered(m, func(m []byte) { binary.BigEndian.PutUint32(m[8:], uint32(n)) })
	}
	length := func(m []byte, at int, n int32) []byte {
		return altered(m, func(m []byte) { binary.BigEndian.PutUint32(m[at:], uint32(n)) })
	}
	typed := func(m []byte) []byte { return altered(m, func(m []byte) { m[17] |= 8 }) }
	gz := func(f flat, inner ...[]byte) []byte { return wrapper(t, 1, Gzip, f, inner...) }
	batch := reference(None, nil, threeRecords()...)
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	keys := func(o *UpConvertOptions) { o.RequireKeys = true }
	bounds := func(o *UpConvertOptions) { o.MinTimestamp, o.MaxTimestamp = 5, 6 }
	appendTime := func(o *UpConvertOptions) { o.LogAppendTime = true }
	limit := func(n int) func(*UpConvertOptions) {
		return func(o *UpConvertOptions) { o.MaxBatchBytes = n }
	}
	keyless := message(1, 0, flat{0, 5, nil, []byte("v")})
	all := map[string]refusal{
		"size negative":           {sized(v1, -1), ErrCorrupt, 0, nil},
		"size too small":          {sized(v1, 13), ErrCorrupt, 0, nil},
		"second size too small":   {cat(v1, sized(v1, 13)), ErrCorrupt, 1, nil},
		"magic 1 in 14 bytes":     {summed(sized(v1, 14)[:26]), ErrCorrupt, 0, nil},
		"magic unknown":           {altered(v1, func(m []byte) { m[16] = 3 }), ErrCorrupt, 0, nil},
		"second magic unknown":    {cat(v1, altered(v1, func(m []byte) { m[16] = 0x80 })), ErrCorrupt, 1, nil},
		"CRC":                     {flip(v1, 30), ErrCorrupt, 0, nil},
		"CRC of magic 0":          {flip(v0, 12), ErrCorrupt, 0, nil},
		"second CRC":              {cat(v1, flip(v1, 30)), ErrCorrupt, 1, nil},
		"CRC of a wrapper":        {flip(gz(flat{}, v1), 40), ErrCorrupt, 0, nil},
		"codec unknown":           {altered(v1, func(m []byte) { m[17] = 5 }), ErrUnknownCodec, 0, nil},
		"key beyond":              {length(v1, 26, 3), ErrInvalid, 0, nil},
		"key far beyond":          {length(v1, 26, 1<<31-1), ErrInvalid, 0, nil},
		"value beyond":            {length(v1, 31, 2), ErrInvalid, 0, nil},
		"no room for a value":     {length(v1, 26, 4), ErrInvalid, 0, nil},
		"second value beyond":     {cat(v0, length(v0, 23, 2)), ErrInvalid, 1, nil},
		"two magics":              {cat(v0, v1), ErrInvalid, 1, nil},
		"two magics, newer first": {cat(v1, v1, v0), ErrInvalid, 2, nil},
		"batch after a message":   {cat(v1, batch), ErrInvalid, 1, nil},
		"message after a batch":   {cat(batch, v1), ErrInvalid, -1, nil},
		"two batches":             {cat(batch, batch), ErrInvalid, -1, nil},
		"batch at another offset": {func() []byte { b := bytes.Clone(batch); b[7] = 1; return b }(), ErrInvalid, 0, nil},
		"batch with a bad CRC":    {flip(batch, 70), ErrCorrupt, 0, nil},
		"batch that miscounts": {func() []byte {
			b := Batch(bytes.Clone(batch))
			b[offCount+3]++
			b.sum()
			return b
		}(), ErrInvalid, -1, nil},
		"two wrappers":            {cat(gz(flat{}, v1), gz(flat{}, v1)), ErrInvalid, -1, nil},
		"message after wrapper":   {cat(gz(flat{}, v1), v1), ErrInvalid, -1, nil},
		"wrapper after message":   {cat(v1, gz(flat{}, v1)), ErrInvalid, -1, nil},
		"wrapper null":            {message(1, int8(Gzip), flat{}), ErrInvalid, -1, nil},
		"wrapper value beyond":    {length(gz(flat{}, v1), 30, 1<<30), ErrInvalid, -1, nil},
		"wrapper empty":           {message(1, int8(Gzip), flat{value: []byte{}}), ErrInvalid, -1, nil},
		"wrapper of noise":        {message(1, int8(LZ4), flat{value: []byte("not LZ4 at all")}), ErrInvalid, -1, nil},
		"wrapper cut off":         {message(1, int8(Gzip), flat{value: gz(flat{}, v1)[34:50]}), ErrInvalid, -1, nil},
		"wrapper of nothing":      {gz(flat{}), ErrInvalid, -1, nil},
		"wrapper of a part":       {gz(flat{}, v1[:30]), ErrInvalid, -1, nil},
		"wrapper zstd":            {wrapper(t, 1, Zstd, flat{}, v1), ErrInvalid, -1, nil},
		"offset overflow":         {gz(flat{offset: 1}, v1, v1, altered(v1, func(m []byte) { m[7] = 2 })), ErrInvalid, -1, nil},
		"offset negative":         {gz(flat{offset: -1}, v1), ErrInvalid, -1, nil},
		"nested":                  {gz(flat{}, v1, gz(flat{}, v1)), ErrInvalid, 1, nil},
		"nested unknown codec":    {gz(flat{}, altered(v1, func(m []byte) { m[17] = 7 })), ErrInvalid, 0, nil},
		"inner magic 0 in 1":      {gz(flat{}, v1, v0), ErrInvalid, 1, nil},
		"inner magic 1 in 0":      {wrapper(t, 0, Snappy, flat{}, v0, v1), ErrInvalid, 1, nil},
		"inner magic 2":           {gz(flat{}, altered(v1, func(m []byte) { m[16] = 2 })), ErrInvalid, 0, nil},
		"inner magic unknown":     {gz(flat{}, v1, altered(v1, func(m []byte) { m[16] = 9 })), ErrInvalid, 1, nil},
		"inner CRC":               {gz(flat{}, v1, flip(v1next, 30)), ErrCorrupt, 1, nil},
		"inner size too small":    {gz(flat{}, v1, sized(v1, 13)), ErrCorrupt, 1, nil},
		"inner size negative":     {gz(flat{}, sized(v1, -5)), ErrCorrupt, 0, nil},
		"inner magic 1 too small": {gz(flat{}, summed(sized(v1, 21)[:33])), ErrCorrupt, 0, nil},
		"inner key beyond":        {gz(flat{}, v1, length(v1, 26, 1<<20)), ErrInvalid, 1, nil},
		"a size before a CRC":     {gz(flat{}, flip(v1, 30), sized(v1, 13)), ErrCorrupt, 1, nil},
		"a CRC after a record":    {gz(flat{}, v0, flip(v1, 30)), ErrCorrupt, 1, nil},
		"nested after a record":   {gz(flat{}, v0, gz(flat{}, v1)), ErrInvalid, 1, nil},

		"no key":                 {cat(v1, keyless), ErrInvalid, 1, keys},
		"no key in a wrapper":    {gz(flat{}, v1, v1, keyless), ErrInvalid, 2, keys},
		"time before":            {cat(v1, message(1, 0, flat{timestamp: 4})), ErrTimestamp, 1, bounds},
		"time after":             {gz(flat{}, v1, message(1, 0, flat{timestamp: 7})), ErrTimestamp, 1, bounds},
		"time after any no key":  {gz(flat{}, keyless, message(1, 0, flat{timestamp: 7, key: []byte("k")})), ErrTimestamp, 1, func(o *UpConvertOptions) { keys(o); bounds(o) }},
		"the first bad of plain": {cat(keyless, message(1, 0, flat{timestamp: 7, key: []byte("k")})), ErrInvalid, 0, func(o *UpConvertOptions) { keys(o); bounds(o) }},
		"time of a wrapper":      {typed(gz(flat{timestamp: 7}, v1)), ErrTimestamp, 0, bounds},
		"time negative":          {message(1, 0, flat{timestamp: -2}), ErrTimestamp, 0, nil},
		"time negative in one":   {gz(flat{}, message(1, 0, flat{timestamp: -1 << 63})), ErrTimestamp, 0, nil},

		"type LogAppendTime":             {typed(v1), ErrTimestamp, 0, appendTime},
		"type LogAppendTime, no time":    {typed(message(1, 0, flat{timestamp: -1})), ErrTimestamp, 0, nil},
		"type LogAppendTime of wrapper":  {typed(gz(flat{timestamp: 5}, v1)), ErrTimestamp, 0, appendTime},
		"type LogAppendTime, no time of": {typed(gz(flat{timestamp: -1}, v1)), ErrTimestamp, 0, nil},

		"message too large":          {v1, ErrTooLarge, 0, limit(len(v1) - 1)},
		"message too large as batch": {v1, ErrTooLarge, 0, limit(len(v1))},
		"second too large":           {cat(v1, message(1, 0, flat{key: noise(1, 100)})), ErrTooLarge, 1, limit(150)},
		"inner too large as batch":   {gz(flat{}, v1, message(1, 0, flat{key: make([]byte, 300)})), ErrTooLarge, 1, func(o *UpConvertOptions) { o.MaxBatchBytes, o.Recode = 200, true }},
		"wrapper too large":          {gz(flat{}, v1), ErrTooLarge, 0, limit(60)},
		"inflates too far":           {gz(flat{}, message(1, 0, flat{value: make([]byte, 1<<20)})), ErrTooLarge, -1, nil},
		"codec of the topic unknown": {v1, ErrUnknownCodec, -1, func(o *UpConvertOptions) { o.Recode, o.Codec = true, 6 }},
		"a CRC before a size":        {cat(flip(v1, 30), sized(v1, 13)), ErrCorrupt, 0, nil},
		"too large before a CRC":     {flip(v1, 30), ErrTooLarge, 0, limit(20)},
		"a CRC before two magics":    {cat(v0, v1, flip(v1, 30)), ErrCorrupt, 2, nil},
	}
	for _, c := range legacyCodecs[1:] {
		for magic := range int8(2) {
			inner := message(magic, 0, flat{value: []byte("v")})
			all[fmt.Sprintf("inner CRC of magic %d in %v", magic, c)] = refusal{wrapper(t, magic, c, flat{}, inner, flip(inner, 13)), ErrCorrupt, 1, nil}
		}
	}
	return all
}

func TestUpConvertRefuses(t *testing.T) {
	head := []byte("head")
	for name, c := range refusals(t) {
		o := wide
		if c.opts != nil {
			c.opts(&o)
		}
		before := bytes.Clone(c.set)
		out, err := UpConvert(head, c.set, o)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
		for _, other := range []error{ErrCorrupt, ErrInvalid, ErrTimestamp, ErrTooLarge, ErrUnknownCodec} {
			if other != c.want && errors.Is(err, other) {
				t.Errorf("%s: %v is %v too", name, err, other)
			}
		}
		index := -1
		if at := new(MessageError); errors.As(err, &at) {
			index = at.Index
		}
		if index != c.index {
			t.Errorf("%s: message %d is at fault, not %d: %v", name, index, c.index, err)
		}
		if string(out) != "head" || !bytes.Equal(before, c.set) {
			t.Errorf("%s: changed what it was given", name)
		}
	}
}

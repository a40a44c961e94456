package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// canonicalCount is how many records a topic of the cross matrix holds.
const canonicalCount = 30

// canonicalTime is the timestamp of the first of them, in ms; the others follow
// a second apart.
const canonicalTime = 1_600_000_000_000

// A record is what a program prints of one record. Bytes are in hexadecimal.
type record struct {
	Topic     string     `json:"topic"`
	Key       *string    `json:"k"`
	Value     *string    `json:"v"`
	Timestamp *int64     `json:"t"`
	Headers   *[]*header `json:"h"` // null when the client has none
}

// A header is [name, value], the value null or in hexadecimal.
type header struct {
	Name  string
	Value *string
}

func (h *header) UnmarshalJSON(b []byte) error {
	var pair []*string
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 || pair[0] == nil {
		return fmt.Errorf("header %s: want [name, value]", b)
	}
	h.Name, h.Value = *pair[0], pair[1]
	return nil
}

// canonical returns the key and the value, nil for null, of record i.
func canonical(i int) (key, value []byte) {
	if i%7 != 3 {
		key = fmt.Appendf(nil, "k%d", i)
	}
	switch {
	case i%11 == 5:
	case i%13 == 8:
		value = []byte{}
	case i%10 == 6:
		for b := range 256 {
			value = append(value, byte(b))
		}
	default:
		one := fmt.Appendf(nil, "v%d-", i)
		value = bytes.Repeat(one, 100/len(one)+1)[:100]
	}
	return key, value
}

// compare says how what the consumer read differs from what the producer must
// have written, "" for not at all. Both rows say what can be compared.
func compare(producer, consumer Row, got []record) string {
	for i, r := range got[:min(len(got), canonicalCount)] {
		key, value := canonical(i)
		nulls := producer.Nulls && consumer.Nulls
		if s := compareBytes(r.Key, key, nulls); s != "" {
			return fmt.Sprintf("record %d: key %s", i, s)
		}
		if s := compareBytes(r.Value, value, nulls); s != "" {
			return fmt.Sprintf("record %d: value %s", i, s)
		}
		if s := compareTime(producer, consumer, r.Timestamp, canonicalTime+1000*int64(i)); s != "" {
			return fmt.Sprintf("record %d: timestamp %s", i, s)
		}
		if s := compareHeaders(producer, consumer, r.Headers, i); s != "" {
			return fmt.Sprintf("record %d: headers %s", i, s)
		}
	}
	if len(got) != canonicalCount {
		return fmt.Sprintf("%d records instead of %d", len(got), canonicalCount)
	}
	return ""
}

// compareBytes takes null for empty unless nulls are told apart.
func compareBytes(got *string, want []byte, nulls bool) string {
	if nulls && (got == nil) != (want == nil) {
		return fmt.Sprintf("is %s, want %s", show(got), showBytes(want))
	}
	text := ""
	if got != nil {
		text = *got
	}
	if text != hex.EncodeToString(want) {
		return fmt.Sprintf("is %s, want %s", show(got), showBytes(want))
	}
	return ""
}

func compareTime(producer, consumer Row, got *int64, want int64) string {
	switch {
	case !consumer.Timestamps:
		return ""
	case got == nil:
		return "is missing"
	case producer.Timestamps && *got != want:
		return fmt.Sprintf("is %d, want %d", *got, want)
	}
	return "" // the time of writing, or -1 from message format 0
}

func compareHeaders(producer, consumer Row, got *[]*header, i int) string {
	if !consumer.Headers {
		return ""
	}
	var headers []*header
	if got != nil {
		headers = *got
	}
	want := 0
	if producer.Headers && i%3 == 0 {
		want = 2
	}
	if len(headers) != want {
		return fmt.Sprintf("are %d, want %d", len(headers), want)
	}
	if want == 0 {
		return ""
	}
	first, second := headers[0], headers[1]
	if first == nil || second == nil || first.Name != "h" || second.Name != "n" {
		return "have other names than h and n"
	}
	if s := compareBytes(first.Value, fmt.Appendf(nil, "x%d", i), true); s != "" {
		return "h " + s
	}
	if second.Value != nil && *second.Value != "" {
		return "n is " + show(second.Value) + ", want null or empty"
	}
	return ""
}

func show(s *string) string {
	if s == nil {
		return "null"
	}
	if len(*s) > 40 {
		return fmt.Sprintf("%s… (%d bytes)", (*s)[:40], len(*s)/2)
	}
	return `"` + *s + `"`
}

func showBytes(b []byte) string {
	if b == nil {
		return "null"
	}
	s := hex.EncodeToString(b)
	return show(&s)
}

// A check is what a program prints of one thing it tried.
type check struct {
	Name  string `json:"check"`
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

// parseLine reads one line of a program's standard output: a check or a record.
// Everything that is not a JSON object is some library's chatter.
func parseLine(line []byte) (c *check, r *record, err error) {
	line = bytes.TrimSpace(line)
	if !bytes.HasPrefix(line, []byte("{")) {
		return nil, nil, nil
	}
	var kind struct {
		Check *string `json:"check"`
		Topic *string `json:"topic"`
	}
	if err := json.Unmarshal(line, &kind); err != nil {
		return nil, nil, fmt.Errorf("line %.80q: %w", line, err)
	}
	switch {
	case kind.Check != nil:
		c = new(check)
		err = json.Unmarshal(line, c)
		// One line of a table, and of a text file.
		c.Error = strings.Join(strings.Fields(c.Error), " ")
		if err == nil && !checkName.MatchString(c.Name) {
			err = fmt.Errorf("check %q: want small letters, digits and '-'", c.Name)
		}
	case kind.Topic != nil:
		r = new(record)
		err = json.Unmarshal(line, r)
	default:
		err = fmt.Errorf("line %.80q is neither a check nor a record", line)
	}
	return c, r, err
}

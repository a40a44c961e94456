package api

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
)

// kafkaRanges is what Apache Kafka 3.9 and 4.x serve together, by key: the
// lowest minimum and the highest maximum of both.
var kafkaRanges = map[int16][2]int16{
	0: {0, 13}, 1: {0, 18}, 2: {0, 11}, 3: {0, 13},
	8: {0, 10}, 9: {0, 10}, 10: {0, 6}, 11: {0, 9}, 12: {0, 4}, 13: {0, 5}, 14: {0, 5}, 15: {0, 6}, 16: {0, 5}, 18: {0, 5}, 19: {0, 7}, 20: {0, 6}, 21: {0, 2},
	22: {0, 5}, 23: {0, 4}, 32: {0, 4}, 33: {0, 2}, 35: {0, 5}, 37: {0, 3}, 42: {0, 3}, 44: {0, 1}, 47: {0, 0},
	17: {0, 1}, 29: {0, 3}, 30: {0, 3}, 31: {0, 3}, 34: {0, 2}, 36: {0, 2}, 38: {0, 3}, 39: {0, 2}, 40: {0, 2}, 41: {0, 3},
	43: {0, 2}, 45: {0, 1}, 46: {0, 0}, 48: {0, 1}, 49: {0, 1}, 50: {0, 0}, 51: {0, 0}, 55: {0, 2}, 57: {0, 2},
	60: {0, 2}, 61: {0, 0}, 64: {0, 0}, 65: {0, 0}, 66: {0, 2}, 68: {0, 1}, 69: {0, 1}, 74: {0, 1}, 75: {0, 0},
}

func TestTable(t *testing.T) {
	files, err := os.ReadDir(".")
	check(t, err)
	byPrefix := make(map[string]string)
	for _, f := range files {
		if number, rest, ok := strings.Cut(f.Name(), "_"); ok && len(number) == 2 && strings.Trim(number, "0123456789") == "" && !strings.HasSuffix(rest, "_test.go") {
			byPrefix[number] = f.Name()
		}
	}
	last := int16(-1)
	for i := range table {
		row := &table[i]
		if row.key <= last {
			t.Errorf("key %d comes after %d", row.key, last)
		}
		last = row.key
		number := fmt.Sprintf("%02d", row.key)
		if byPrefix[number] == "" {
			t.Errorf("key %d has no file %s_….go", row.key, number)
		}
		delete(byPrefix, number)
		kafka, ok := kafkaRanges[row.key]
		if !ok || row.min < kafka[0] || row.max > kafka[1] {
			t.Errorf("key %d: v%d-%d is served, Kafka has v%d-%d", row.key, row.min, row.max, kafka[0], kafka[1])
		}
		q := kmsg.RequestForKey(row.key)
		if row.max > q.MaxVersion() {
			t.Errorf("key %d: v%d is beyond the codec's v%d", row.key, row.max, q.MaxVersion())
		}
		for v := row.min; v <= row.max; v++ {
			q.SetVersion(v)
			if q.IsFlexible() != protocol.FlexibleRequest(row.key, v) {
				t.Errorf("key %d v%d: flexible is %v for the codec", row.key, v, q.IsFlexible())
			}
		}
	}
	for number, name := range byPrefix {
		t.Errorf("%s belongs to key %s, which the table lacks", name, number)
	}
}

func TestAccepts(t *testing.T) {
	h := &Handlers{rows: index(table)}
	for i := range table {
		row := &table[i]
		for v, want := range map[int16]bool{row.min: true, row.max: true, row.min - 1: false, row.max + 1: false} {
			if h.Accepts(row.key, v) != want {
				t.Errorf("Accepts(%d, %d) is not %v", row.key, v, want)
			}
		}
	}
	for _, key := range []int16{-1, 4, 7, 127, 128, 32767} {
		if h.Accepts(key, 0) {
			t.Errorf("key %d is accepted", key)
		}
	}
}

// TestErrorsAreRetriable holds that no error becomes UNKNOWN_SERVER_ERROR and
// that an error nobody has named makes clients try again.
func TestErrorsAreRetriable(t *testing.T) {
	for _, c := range []*codes{&fetchErrors, &dataErrors, &adminErrors, &metadataErrors, &groupErrors, &producerIDErrors} {
		if code := c.code(os.ErrPermission); !code.Retriable() {
			t.Errorf("an internal failure becomes %s, which is not retried", code.Name())
		}
		if code := c.code(nil); code != protocol.None {
			t.Errorf("no error becomes %s", code.Name())
		}
		for _, rows := range [][]codeOf{c.rows, everywhere} {
			for _, r := range rows {
				if r.code == protocol.UnknownServerError || r.code == protocol.None {
					t.Errorf("%v becomes %s", r.err, r.code.Name())
				}
			}
		}
	}
}

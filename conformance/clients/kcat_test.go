package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
)

// kcat runs kcat with the server's address and returns its standard output.
func kcat(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*stepTimeout)
	defer cancel()
	path, err := peer.Kcat(ctx)
	need(t, err)
	cmd := exec.CommandContext(ctx, path, append([]string{"-b", broker.Addr()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("kcat %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String()
}

// kcatConsume reads partition 0 from an offset to its end. Lengths come before
// the bytes, so nothing in a key or value can be taken for a separator.
func kcatConsume(t *testing.T, topic string, from int64) []record {
	t.Helper()
	out := kcat(t, "", "-C", "-q", "-t", topic, "-p", "0", "-o", fmt.Sprint(from), "-e", "-f", `%T %K %S\n%k%s\n`)
	var records []record
	for out != "" {
		line, rest, _ := strings.Cut(out, "\n")
		var r record
		var key, value int
		if _, err := fmt.Sscanf(line, "%d %d %d", &r.Millis, &key, &value); err != nil {
			t.Fatalf("kcat: line %q: %v", line, err)
		}
		take := func(n int) []byte {
			if n < 0 { // null; kcat then prints nothing, or the word NULL
				rest = strings.TrimPrefix(rest, "NULL")
				return nil
			}
			b := []byte(rest[:n])
			rest = rest[n:]
			return b
		}
		r.Key, r.Value = take(key), take(value)
		records = append(records, r)
		out = strings.TrimPrefix(rest, "\n")
	}
	return records
}

func TestKcatProduceConsume(t *testing.T) {
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			topic := newTopic(t, 1)
			var in strings.Builder
			var want []record
			for i := range 500 {
				key, value := strconv.Itoa(i), strings.Repeat("value "+strconv.Itoa(i)+" ", i%20+1)
				fmt.Fprintf(&in, "%s:%s\n", key, value)
				want = append(want, record{Key: []byte(key), Value: []byte(value)})
			}
			kcat(t, in.String(), "-P", "-t", topic, "-p", "0", "-K:", "-z", codec, "-X", "linger.ms=50")
			got := kcatConsume(t, topic, 0)
			for i := range got {
				if got[i].Millis <= 0 {
					t.Fatalf("record %d has time %d", i, got[i].Millis)
				}
				got[i].Millis = 0 // kcat sets the present time
			}
			diff(t, "kcat", got, want)
			diff(t, "kcat from the middle", noTimes(kcatConsume(t, topic, 250)), want[250:])
		})
	}
}

func noTimes(records []record) []record {
	for i := range records {
		records[i].Millis = 0
	}
	return records
}

func TestKcatIdempotentAndAcks(t *testing.T) {
	for _, option := range []string{"enable.idempotence=true", "acks=0", "acks=1", "acks=all"} {
		t.Run(option, func(t *testing.T) {
			topic := newTopic(t, 1)
			kcat(t, "one\ntwo\nthree\n", "-P", "-t", topic, "-p", "0", "-X", option)
			var got []string
			for _, r := range kcatConsume(t, topic, 0) {
				got = append(got, string(r.Value))
			}
			if strings.Join(got, " ") != "one two three" {
				t.Fatalf("got %v", got)
			}
		})
	}
}

func TestKcatHeadersAndTombstone(t *testing.T) {
	topic := newTopic(t, 1)
	kcat(t, "key:value\n", "-P", "-t", topic, "-p", "0", "-K:", "-H", "a=1", "-H", "b=two")
	kcat(t, "key:\n", "-P", "-Z", "-t", topic, "-p", "0", "-K:")
	got := noTimes(fromFranz(consume(t, topic, 0, 0, 2)))
	diff(t, "franz-go", got, []record{
		{Key: []byte("key"), Value: []byte("value"), Headers: []header{{"a", []byte("1")}, {"b", []byte("two")}}},
		{Key: []byte("key"), Value: nil},
	})
	var seen struct {
		Topic   string   `json:"topic"`
		Offset  int64    `json:"offset"`
		Headers []string `json:"headers"`
		Key     string   `json:"key"`
		Payload string   `json:"payload"`
	}
	line := kcat(t, "", "-C", "-q", "-J", "-t", topic, "-p", "0", "-o", "0", "-c", "1", "-e")
	if err := json.Unmarshal([]byte(line), &seen); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if seen.Topic != topic || seen.Offset != 0 || strings.Join(seen.Headers, " ") != "a 1 b two" || seen.Key != "key" || seen.Payload != "value" {
		t.Fatalf("kcat -J: %+v", seen)
	}
}

func TestKcatMetadata(t *testing.T) {
	topic := newTopic(t, 3)
	var seen struct {
		Brokers []struct {
			Name string `json:"name"`
		} `json:"brokers"`
		Topics []struct {
			Topic      string `json:"topic"`
			Partitions []struct {
				Partition int `json:"partition"`
				Leader    int `json:"leader"`
			} `json:"partitions"`
		} `json:"topics"`
	}
	out := kcat(t, "", "-L", "-J", "-t", topic)
	if err := json.Unmarshal([]byte(out), &seen); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(seen.Brokers) != 1 || seen.Brokers[0].Name != broker.Addr() {
		t.Errorf("brokers %+v, want %s", seen.Brokers, broker.Addr())
	}
	if len(seen.Topics) != 1 || seen.Topics[0].Topic != topic || len(seen.Topics[0].Partitions) != 3 {
		t.Errorf("topics %+v", seen.Topics)
	}
	if all := kcat(t, "", "-L"); !strings.Contains(all, topic) {
		t.Errorf("kcat -L does not list %s:\n%s", topic, all)
	}
}

func TestKcatQueryOffsets(t *testing.T) {
	topic := newTopic(t, 1)
	records := samples()[:50]
	for i := range records {
		records[i].Millis = firstMillis + int64(i)*1000
	}
	produce(t, topic, toFranz(records))
	for _, q := range []struct{ millis, offset int64 }{
		{-2, 0}, {-1, 50}, {firstMillis, 0}, {firstMillis + 20_500, 21}, {firstMillis + 49_000, 49},
	} {
		out := kcat(t, "", "-Q", "-t", fmt.Sprintf("%s:0:%d", topic, q.millis))
		if want := fmt.Sprintf("offset %d", q.offset); !strings.HasSuffix(strings.TrimSpace(out), want) {
			t.Errorf("time %d: %q, want %q", q.millis, out, want)
		}
	}
}

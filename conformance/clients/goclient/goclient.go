// Package goclient is what the zoo's Go programs have in common: the settings
// that the runner hands over, the canonical records, the checks that every
// client passes, and the report, one JSON line per check on standard output.
//
// A program fills in a Client and calls Main. The environment says the rest:
//
//	ZOO_BOOTSTRAP  host:port of the server
//	ZOO_ROW        the row's name, part of the names of topics and groups
//	ZOO_PHASE      own, produce or consume
//	ZOO_TOPICS     topics of produce (their names end in -codec) and consume
//	ZOO_CODECS     codecs that the row has
//	ZOO_CARRIES    what its format and API carry: headers, timestamps, nulls
//	ZOO_VERSION    the protocol version to speak, for clients that are told one
package goclient

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// checkTimeout bounds every check, rebalances included.
const checkTimeout = 40 * time.Second

// A Client is a client library at work. Every function gets a context that
// ends with the check's time. Nil functions are calls that the client, or the
// version that it speaks, does not have.
type Client struct {
	// Produce writes records in order to one partition and returns when all
	// are acknowledged.
	Produce func(ctx context.Context, topic string, partition int32, codec string, records []Record) error

	// Consume reads partition 0 from its beginning to its present end.
	Consume func(ctx context.Context, topic string) ([]Record, error)

	// Group joins the group, reads count records from where the group's
	// commits stand (the beginning, where there are none), commits what it
	// read and leaves.
	Group func(ctx context.Context, group, topic string, count int) ([]Record, error)

	// Resume is Group without members, for clients that only have commits:
	// it reads on from the group's commit and commits.
	Resume func(ctx context.Context, group, topic string, count int) ([]Record, error)

	// CreateTopic creates a topic; without it topics come into being by being
	// written to.
	CreateTopic func(ctx context.Context, topic string, partitions int) error

	// OffsetAt returns the offset of the first record at or after a time.
	OffsetAt func(ctx context.Context, topic string, millis int64) (int64, error)

	// Checks are this client's own, run last and in order.
	Checks []Check
}

// A Check is one line of the report. The topic that it gets holds the
// canonical records in partition 0, the group has committed all of them
// (both "" when what makes them failed).
type Check struct {
	Name string
	Run  func(ctx context.Context, env Env) error
}

// Env is what a check works on.
type Env struct {
	Topic string // holds the canonical records in partition 0
	Group string // has committed the end of Topic; "" for a client without groups
	Fresh string // a name for a topic of this check's own
}

type settings struct {
	row, phase string
	topics     []string
	codecs     []string
	carried    []string
}

func (s settings) carries(what string) bool { return slices.Contains(s.carried, what) }

// Bootstrap is the server's address, host:port.
func Bootstrap() string { return os.Getenv("ZOO_BOOTSTRAP") }

// Version is the protocol version that the row speaks, "" for the client's own.
func Version() string { return os.Getenv("ZOO_VERSION") }

func list(name string) []string {
	return strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ',' })
}

// Carries says whether the row's format and API carry headers, timestamps or
// nulls; a program leaves out what it cannot write.
func Carries(what string) bool { return slices.Contains(list("ZOO_CARRIES"), what) }

// Main runs the phase that the environment names. It exits with 1 when the
// phase cannot be run; a check that fails is a line of the report.
func Main(c Client) {
	s := settings{
		row: os.Getenv("ZOO_ROW"), phase: os.Getenv("ZOO_PHASE"),
		topics: list("ZOO_TOPICS"), codecs: list("ZOO_CODECS"), carried: list("ZOO_CARRIES"),
	}
	switch s.phase {
	case "own":
		own(c, s)
	case "produce":
		for _, topic := range s.topics {
			codec := topic[strings.LastIndexByte(topic, '-')+1:]
			run("produce-"+codec, func(ctx context.Context) error { return c.Produce(ctx, topic, 0, codec, Canonical()) })
		}
	case "consume":
		// Most of a short read is waiting: for a connection, a long poll, a
		// library that closes.
		const atOnce = 8
		slots := make(chan struct{}, atOnce)
		var reading sync.WaitGroup
		for _, topic := range s.topics {
			slots <- struct{}{}
			reading.Go(func() {
				defer func() { <-slots }()
				run("consume", func(ctx context.Context) error { return s.print(ctx, c, topic) })
			})
		}
		reading.Wait()
	default:
		fmt.Fprintf(os.Stderr, "ZOO_PHASE is %q: want own, produce or consume\n", s.phase)
		os.Exit(1)
	}
}

// print reads a topic and writes a line for each record.
func (s settings) print(ctx context.Context, c Client, topic string) error {
	records, err := c.Consume(ctx, topic)
	for _, r := range records {
		write(s.readLine(topic, r))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", topic, err)
	}
	return nil
}

// own runs every check on topics and groups of the row's own.
func own(c Client, s settings) {
	name := func(what string) string { return "zoo-" + s.row + "-" + what }
	for _, codec := range s.codecs {
		topic := name("own-" + codec)
		if run("produce-"+codec, func(ctx context.Context) error { return c.create(ctx, topic, codec, Canonical()) }) {
			run("consume-"+codec, func(ctx context.Context) error {
				got, err := c.Consume(ctx, topic)
				if err != nil {
					return err
				}
				return s.same(got, Canonical())
			})
		}
	}
	env := Env{Topic: name("own-none")}
	if s.carries("nulls") {
		run("tombstone", func(ctx context.Context) error {
			want := []Record{{Key: []byte("gone"), Value: []byte("value"), Millis: firstMillis}, {Key: []byte("gone"), Millis: firstMillis + 1}}
			return s.roundTrip(ctx, c, name("tombstone"), want)
		})
	}
	run("large", func(ctx context.Context) error {
		large := bytes.Repeat([]byte("0123456789"), 50_000)
		return s.roundTrip(ctx, c, name("large"), []Record{{Key: []byte("large"), Value: large, Millis: firstMillis}})
	})
	if c.OffsetAt != nil {
		run("seek-time", func(ctx context.Context) error {
			type found struct{ millis, offset int64 }
			times := []found{{firstMillis - 1, 0}, {firstMillis, 0}}
			if s.carries("timestamps") { // Else all records are of now.
				times = append(times, found{firstMillis + 11_500, 12}, found{firstMillis + 1000*(canonicalCount-1), canonicalCount - 1})
			}
			for _, at := range times {
				offset, err := c.OffsetAt(ctx, env.Topic, at.millis)
				if err != nil {
					return err
				}
				if offset != at.offset {
					return fmt.Errorf("time %d is at offset %d, want %d", at.millis, offset, at.offset)
				}
			}
			return nil
		})
	}
	resume := c.Resume
	if c.Group != nil {
		resume = c.Group
		run("group", func(ctx context.Context) error { return s.group(ctx, c, name("grouped")) })
	}
	if resume != nil {
		env.Group = name("group")
		run("commit", func(ctx context.Context) error {
			const part = 10
			first, err := resume(ctx, env.Group, env.Topic, part)
			if err != nil {
				return fmt.Errorf("the first consumer: %w", err)
			}
			rest, err := resume(ctx, env.Group, env.Topic, canonicalCount-part)
			if err != nil {
				return fmt.Errorf("the second consumer: %w", err)
			}
			return s.same(append(first, rest...), Canonical())
		})
	}
	for _, check := range c.Checks {
		env := env
		env.Fresh = name(check.Name)
		run(check.Name, func(ctx context.Context) error { return check.Run(ctx, env) })
	}
}

// create writes records to a new topic.
func (c Client) create(ctx context.Context, topic, codec string, records []Record) error {
	if c.CreateTopic != nil {
		if err := c.CreateTopic(ctx, topic, 1); err != nil {
			return fmt.Errorf("create topic: %w", err)
		}
	}
	return c.Produce(ctx, topic, 0, codec, records)
}

func (s settings) roundTrip(ctx context.Context, c Client, topic string, records []Record) error {
	if err := c.create(ctx, topic, "none", records); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	got, err := c.Consume(ctx, topic)
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return s.same(got, records)
}

// group reads the canonical records, spread over the partitions of a topic,
// through a group.
func (s settings) group(ctx context.Context, c Client, topic string) error {
	partitions := 1
	if c.CreateTopic != nil {
		partitions = 3
		if err := c.CreateTopic(ctx, topic, partitions); err != nil {
			return fmt.Errorf("create topic: %w", err)
		}
	}
	want := Canonical()
	for p := range partitions {
		part := want[p*len(want)/partitions : (p+1)*len(want)/partitions]
		if err := c.Produce(ctx, topic, int32(p), "none", part); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	got, err := c.Group(ctx, topic, topic, len(want))
	if err != nil {
		return err
	}
	for _, w := range want {
		i := slices.IndexFunc(got, func(r Record) bool { return s.sameRecord(r, w) == nil })
		if i < 0 {
			return fmt.Errorf("the record with key %q and value %.20q was not read", w.Key, w.Value)
		}
		got = slices.Delete(got, i, i+1)
	}
	return nil
}

// line is a line of the report.
type line struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// run reports one check and returns whether it passed. A check that does not
// heed its context is left behind: it ends with the program.
func run(name string, check func(context.Context) error) bool {
	ctx, cancel := context.WithTimeoutCause(context.Background(), checkTimeout, errTime)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- check(ctx) }()
	const grace = time.Second
	var err error
	select {
	case err = <-done:
	case <-time.After(checkTimeout + grace):
		err = errTime
	}
	if err != nil && ctx.Err() != nil && !errors.Is(err, errTime) {
		err = fmt.Errorf("%w: %w", errTime, err)
	}
	l := line{Check: name, OK: err == nil}
	if err != nil {
		l.Error = err.Error()
	}
	write(l)
	return err == nil
}

var errTime = fmt.Errorf("not done within %v", checkTimeout)

// read is a line of phase consume.
type read struct {
	Topic   string       `json:"topic"`
	Key     *string      `json:"k"`
	Value   *string      `json:"v"`
	Millis  *int64       `json:"t"`
	Headers [][2]*string `json:"h"`
}

func (s settings) readLine(topic string, r Record) read {
	l := read{Topic: topic, Key: hexOf(r.Key), Value: hexOf(r.Value)}
	if s.carries("timestamps") {
		l.Millis = &r.Millis
	}
	for _, h := range r.Headers {
		l.Headers = append(l.Headers, [2]*string{&h.Name, hexOf(h.Value)})
	}
	return l
}

func hexOf(b []byte) *string {
	if b == nil {
		return nil
	}
	s := hex.EncodeToString(b)
	return &s
}

// output keeps lines whole.
var output sync.Mutex

func write(l any) {
	b, err := json.Marshal(l)
	if err == nil {
		output.Lock()
		defer output.Unlock()
		_, err = os.Stdout.Write(append(b, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

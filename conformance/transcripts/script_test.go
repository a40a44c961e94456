package transcripts

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A script asks its steps in order, on one connection as long as the server
// leaves it open. Steps never depend on how many versions a server serves:
// what one version changes, another does not read.
type script struct {
	t       *testing.T
	addr    string
	conn    *wire.Conn
	ranges  map[int16][2]int16 // versions that the server advertises, by key
	ids     map[[16]byte]string
	started time.Time
	version int16  // of the step
	own     int32  // a partition that only the step has, -1 for none
	stored  int64  // first offset that the last step stored at, -1 if it did not
	base    int64  // that fetched offsets are counted from
	only    string // names in lists of everything must begin with this
	asked   map[string]bool
	answers []answer
}

// An answer is what came back in one step.
type answer struct {
	step  string // "situation: Key vN"
	lines []string
}

// Lines that stand for the lack of an answer.
const (
	notServed = "not served" // the version is not advertised, and was not asked
	closed    = "connection closed"
	nothing   = "nothing was stored"
	silence   = "no answer" // and the next request was answered
	stuck     = "never answered"
)

func newScript(t *testing.T, addr string) *script {
	s := &script{t: t, addr: addr, ids: map[[16]byte]string{}, asked: map[string]bool{}, ranges: map[int16][2]int16{}, started: time.Now(), own: -1}
	s.redial()
	t.Cleanup(func() { s.conn.Close() })
	resp := s.must(kmsg.NewPtrApiVersionsRequest(), 0).(*kmsg.ApiVersionsResponse)
	for _, k := range resp.ApiKeys {
		s.ranges[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
	}
	return s
}

func (s *script) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.t.Context(), stepTimeout)
}

func (s *script) redial() {
	s.t.Helper()
	if s.conn != nil {
		s.conn.Close()
	}
	ctx, cancel := s.context()
	defer cancel()
	conn, err := wire.Dial(ctx, s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.conn = conn
}

// must asks for what the script needs and does not note.
func (s *script) must(req kmsg.Request, version int16) kmsg.Response {
	s.t.Helper()
	ctx, cancel := s.context()
	defer cancel()
	resp, err := s.conn.Call(ctx, req, version)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

// until repeats a question, which is not noted, until the answer will do:
// Kafka acknowledges changes before its brokers know of them.
func (s *script) until(what string, done func() bool) {
	s.t.Helper()
	deadline := time.After(stepTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("%s: not so after %v", what, stepTimeout)
		}
	}
}

func (s *script) serves(key, version int16) bool {
	r, ok := s.ranges[key]
	return ok && r[0] <= version && version <= r[1]
}

func (s *script) note(step string, lines ...string) {
	s.t.Helper()
	if s.asked[step] {
		s.t.Fatalf("%s: asked twice under one name", step)
	}
	s.asked[step] = true
	s.answers = append(s.answers, answer{step, lines})
}

// all asks at every version that kmsg knows, or of a range.
func (s *script) all(situation string, build func(version int16) kmsg.Request, versions ...int16) {
	s.t.Helper()
	first, last := int16(0), build(0).MaxVersion()
	if len(versions) == 2 {
		first, last = versions[0], min(last, versions[1])
	}
	for v := first; v <= last; v++ {
		req := build(v)
		if p, ok := req.(*kmsg.ProduceRequest); ok && len(p.Topics) > 0 && len(p.Topics[0].Partitions) > 0 {
			s.own = p.Topics[0].Partitions[0].Partition
		}
		s.ask(situation, req, v)
		const readBack = 9
		if p, ok := req.(*kmsg.ProduceRequest); ok && v == readBack && s.own >= 0 {
			stored := situation + ", stored"
			if s.base = s.stored; s.base >= 0 {
				s.ask(stored, s.fetchFrom(fetchPart{p.Topics[0].Topic, s.own, s.base, 1 << 20}), 12)
			} else {
				s.note(stored+": Fetch v12", nothing)
			}
			s.base = 0
		}
		s.own = -1
	}
}

// same makes a build function of one request for every version.
func same(req kmsg.Request) func(int16) kmsg.Request {
	return func(int16) kmsg.Request { return req }
}

// ask sends one request and notes the answer, which it returns too, or nil.
func (s *script) ask(situation string, req kmsg.Request, version int16) kmsg.Response {
	s.t.Helper()
	name := fmt.Sprintf("%s: %s v%d", situation, kmsg.NameForKey(req.Key()), version)
	if !s.serves(req.Key(), version) {
		s.note(name, notServed)
		return nil
	}
	ends := s.ends(req)
	req.SetVersion(version)
	s.version = version
	resp, err := s.exchange(req)
	if err != nil && !errors.Is(err, errClosed) && !errors.Is(err, errOdd) && !errors.Is(err, errStuck) {
		s.t.Fatalf("%s: %v", name, err)
	}
	s.stored = -1
	if p, ok := resp.(*kmsg.ProduceResponse); ok {
		s.relate(req.(*kmsg.ProduceRequest), p, ends)
	}
	if p, ok := req.(*kmsg.ProduceRequest); ok && resp == nil && err == nil && s.own >= 0 {
		// Without an answer (acks 0) only the partition itself tells.
		if end, known := ends[place{p.Topics[0].Topic, s.own}]; known {
			s.stored = end
		}
	}
	if f, ok := resp.(*kmsg.FetchResponse); ok && s.base > 0 {
		for i := range f.Topics {
			for j := range f.Topics[i].Partitions {
				part := &f.Topics[i].Partitions[j]
				part.HighWatermark -= s.base
				part.LastStableOffset = max(-1, part.LastStableOffset-s.base)
			}
		}
	}
	var lines []string
	if resp != nil {
		lines = s.fields(resp)
	} else if err == nil {
		lines = []string{silence}
	}
	if errors.Is(err, errStuck) {
		lines = []string{stuck}
	} else if errors.Is(err, errOdd) {
		lines = append(lines, "encoded in another way")
	} else if err != nil {
		lines = append(lines, closed)
	}
	s.note(name, lines...)
	return resp
}

type place struct {
	topic     string
	partition int32
}

// ends returns where the partitions end that a Produce request names, so that
// what it did is told apart from what was done to them before.
func (s *script) ends(req kmsg.Request) map[place]int64 {
	produce, ok := req.(*kmsg.ProduceRequest)
	if !ok {
		return nil
	}
	ends := map[place]int64{}
	for _, t := range produce.Topics {
		if s.idOrUnknown(t.Topic) == unknownID {
			continue
		}
		for _, p := range t.Partitions {
			got := s.must(listOffsets(t.Topic, -1, p.Partition), 4).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
			if got.ErrorCode == 0 {
				ends[place{t.Topic, p.Partition}] = got.Offset
			}
		}
	}
	return ends
}

// relate counts the offsets of an answer from where the partitions ended, and
// keeps that of the step's own partition in stored.
func (s *script) relate(req *kmsg.ProduceRequest, resp *kmsg.ProduceResponse, ends map[place]int64) {
	for i, t := range resp.Topics {
		topic := t.Topic
		if topic == "" {
			topic = s.ids[t.TopicID]
		}
		for j, p := range t.Partitions {
			if p.ErrorCode != 0 || p.BaseOffset < 0 {
				continue
			}
			if topic == req.Topics[0].Topic && p.Partition == s.own && (s.stored < 0 || p.BaseOffset < s.stored) {
				s.stored = p.BaseOffset
			}
			resp.Topics[i].Partitions[j].BaseOffset -= ends[place{topic, p.Partition}]
		}
	}
}

var (
	errClosed = errors.New("the server closed the connection")
	errStuck  = errors.New("the server does not answer")
	errOdd    = errors.New("the answer has other bytes when it is written again")
)

const requestCorrelation, probeCorrelation = 77, 78

// exchange sends a request and returns its answer, nil if there was none, and
// errClosed if the connection was closed, after an answer or without.
func (s *script) exchange(req kmsg.Request) (kmsg.Response, error) {
	if manyNodes {
		renumber(reflect.ValueOf(req), 1, 0)
	}
	format := kmsg.NewRequestFormatter(kmsg.FormatterClientID("transcript"))
	body, err := s.send(format.AppendRequest(nil, req, requestCorrelation))
	if body == nil {
		return nil, err
	}
	if req.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("the answer's header has tagged fields, or none at all")
		}
		body = body[1:]
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("decode the answer %x: %w", body, err)
	}
	// Bytes behind the end, or a length that is not the shortest, are seen by
	// writing it again.
	if again := resp.AppendTo(nil); !bytes.Equal(again, body) {
		return nil, fmt.Errorf("the answer of %d bytes has %d when written again:\n%x\n%x", len(body), len(again), body, again)
	}
	if manyNodes {
		renumber(reflect.ValueOf(resp), 0, 1)
	}
	return resp, nil
}

// send writes a frame and behind it a request that every server answers, so
// that silence shows. It returns what follows the correlation id of the answer
// to the frame, nil if there was none, and errClosed if the connection was
// closed, after an answer or without.
func (s *script) send(frame []byte) ([]byte, error) {
	patience := stepTimeout
	if _, kafka := files[target]; kafka {
		// Some requests Kafka never answers, because of an exception.
		patience = 5 * time.Second
	}
	s.conn.SetDeadline(time.Now().Add(patience))
	probe := kmsg.NewRequestFormatter().AppendRequest(nil, kmsg.NewPtrApiVersionsRequest(), probeCorrelation)
	if _, err := s.conn.Write(append(frame, probe...)); err != nil {
		s.redial()
		return nil, closeError(err)
	}
	var got []byte
	for {
		body, err := s.conn.ReadFrame()
		if err != nil {
			s.redial()
			return got, closeError(err)
		}
		if len(body) < 4 {
			return nil, fmt.Errorf("an answer of %d bytes", len(body))
		}
		switch correlation := binary.BigEndian.Uint32(body); {
		case correlation == probeCorrelation:
			return got, nil
		case correlation == requestCorrelation && got == nil:
			got = body[4:]
		default:
			return nil, fmt.Errorf("an answer with correlation id %d", correlation)
		}
	}
}

func closeError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStuck
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return errClosed
	}
	return err
}

// raw sends bytes as they are and notes what happens to the connection.
func (s *script) raw(situation string, frame []byte) {
	s.t.Helper()
	body, err := s.send(frame)
	if err != nil && !errors.Is(err, errClosed) {
		s.t.Fatalf("%s: %v", situation, err)
	}
	var lines []string
	const shortBytes = 16 // an answer with nothing in it but an error
	if len(body) > shortBytes {
		lines = append(lines, "answered")
	} else if body != nil {
		lines = append(lines, fmt.Sprintf("answered %x", body))
	}
	if err != nil {
		lines = append(lines, closed)
	}
	if lines == nil {
		lines = []string{silence}
	}
	s.note(situation, lines...)
}

// old runs steps that only the versions before KIP-896 can take part in: they
// look at what Produce v0-2 stored.
func (s *script) old(steps func()) {
	if target != onKafka4 {
		steps()
	}
}

// create makes the topics of a script and waits until they are served.
func (s *script) create(topics ...topicSpec) {
	s.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 30_000
	for _, spec := range topics {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = spec.name, max(1, spec.partitions), 1
		configs := spec.configs
		if !slices.Contains(configs, "retention.ms") {
			// The samples' times are long past.
			configs = append([]string{"retention.ms", "-1"}, configs...)
		}
		for i := 0; i < len(configs); i += 2 {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = configs[i], &configs[i+1]
			t.Configs = append(t.Configs, c)
		}
		req.Topics = append(req.Topics, t)
	}
	for _, t := range s.must(req, 5).(*kmsg.CreateTopicsResponse).Topics {
		if t.ErrorCode != 0 {
			s.t.Fatalf("create topic %s: %v", t.Topic, kerr.ErrorForCode(t.ErrorCode))
		}
	}
	for _, spec := range topics {
		s.await(spec.name, max(1, spec.partitions))
	}
}

type topicSpec struct {
	name       string
	partitions int32
	configs    []string // name, value, name, value…
}

// await returns when every partition of a topic is served, and learns its id.
func (s *script) await(topic string, partitions int32) {
	s.t.Helper()
	s.until("topic "+topic+" is served", func() bool {
		q := kmsg.NewPtrMetadataRequest()
		mt := kmsg.NewMetadataRequestTopic()
		mt.Topic = &topic
		q.Topics = append(q.Topics, mt)
		got := s.must(q, 12).(*kmsg.MetadataResponse).Topics[0]
		if got.ErrorCode != 0 || len(got.Partitions) != int(partitions) {
			return false
		}
		s.ids[got.TopicID] = topic
		offsets := s.must(listOffsets(topic, -1, int32s(0, partitions)...), 4).(*kmsg.ListOffsetsResponse)
		for _, p := range offsets.Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return false
			}
		}
		return true
	})
}

// id returns a topic's id as it was learnt.
func (s *script) id(topic string) [16]byte {
	for id, name := range s.ids {
		if name == topic {
			return id
		}
	}
	s.t.Fatalf("no id of topic %s is known", topic)
	return [16]byte{}
}

func int32s(from, to int32) []int32 {
	var list []int32
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

// hostPort is where clients are told to connect.
func (s *script) hostPort() (string, int32) {
	host, text, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return host, int32(port)
}

// inOrder goes through a table by name, so that the order of steps is fixed.
func inOrder[V any](table map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if !yield(name, table[name]) {
				return
			}
		}
	}
}

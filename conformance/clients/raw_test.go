package clients

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func dial(t *testing.T) *wire.Conn {
	t.Helper()
	conn, err := wire.Dial(step(t), broker.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func batch(producerID int64, epoch int16, sequence int32, value string) []byte {
	return wire.Batch(producerID, epoch, sequence, firstMillis, value)
}

func produceRaw(t *testing.T, conn *wire.Conn, topic string, raw []byte) kmsg.ProduceResponseTopicPartition {
	t.Helper()
	resp, err := conn.Call(step(t), wire.Produce(topic, 0, raw), 9)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
}

// mustClose fails the test unless the server closes the connection without
// answering.
func mustClose(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(stepTimeout))
	n, err := io.Copy(io.Discard, conn)
	if n > 0 {
		t.Errorf("%d bytes of answer", n)
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("not closed: %v", err)
	}
}

// mustServe fails the test unless a new connection is served.
func mustServe(t *testing.T) {
	t.Helper()
	if _, err := dial(t).Call(step(t), kmsg.NewPtrApiVersionsRequest(), 0); err != nil {
		t.Errorf("the server does not serve any more: %v", err)
	}
}

func request(key, version int16, body ...byte) []byte {
	frame := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
	frame = binary.BigEndian.AppendUint16(frame, uint16(key))
	frame = binary.BigEndian.AppendUint16(frame, uint16(version))
	frame = binary.BigEndian.AppendUint32(frame, 7)      // correlation id
	frame = binary.BigEndian.AppendUint16(frame, 0xffff) // client id: null
	return append(frame, body...)
}

func TestBytesThatEndTheConnection(t *testing.T) {
	const tlsClientHello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	for name, sent := range map[string][]byte{
		"frame of minus one bytes":        {0xff, 0xff, 0xff, 0xff},
		"frame of the least size":         {0x80, 0, 0, 0},
		"frame of no bytes":               {0, 0, 0, 0},
		"frame shorter than a header":     {0, 0, 0, 3, 0, 0, 0},
		"frame of 2 GiB less one":         {0x7f, 0xff, 0xff, 0xff},
		"frame a byte over the limit":     binary.BigEndian.AppendUint32(nil, 104857600+1),
		"HTTP":                            []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":                             []byte(tlsClientHello),
		"text":                            []byte(strings.Repeat("hello ", 100)),
		"unknown key":                     request(9999, 0),
		"negative key":                    request(-1, 0),
		"unknown version":                 request(int16(kmsg.Metadata), 99),
		"negative version":                request(int16(kmsg.Metadata), -1),
		"array longer than the frame":     request(int16(kmsg.Metadata), 0, 0x7f, 0xff, 0xff, 0xff),
		"string longer than the frame":    request(int16(kmsg.Metadata), 0, 0, 0, 0, 1, 0x7f, 0xff),
		"client id longer than the frame": {0, 0, 0, 10, 0, 3, 0, 0, 0, 0, 0, 7, 0x7f, 0xff},
		"request cut off":                 request(int16(kmsg.Metadata), 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t)
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			mustClose(t, conn)
			mustServe(t)
		})
	}
}

// KIP-511: a client that is too new learns what it may use.
func TestApiVersionsUnknownVersion(t *testing.T) {
	conn := dial(t)
	conn.SetDeadline(time.Now().Add(stepTimeout))
	if _, err := conn.Write(request(int16(kmsg.ApiVersions), 99, 0, 1, 1, 0)); err != nil {
		t.Fatal(err)
	}
	body, err := conn.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	var resp kmsg.ApiVersionsResponse // version 0
	if err := resp.ReadFrom(body[4:]); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(kerr.ErrorForCode(resp.ErrorCode), kerr.UnsupportedVersion) {
		t.Fatalf("error %d, want %v", resp.ErrorCode, kerr.UnsupportedVersion)
	}
	for _, k := range resp.ApiKeys {
		if k.ApiKey == int16(kmsg.ApiVersions) {
			return
		}
	}
	t.Fatal("the answer does not name ApiVersions")
}

func TestFrameByteByByte(t *testing.T) {
	conn := dial(t)
	conn.SetDeadline(time.Now().Add(stepTimeout))
	for _, b := range request(int16(kmsg.ApiVersions), 0) {
		if _, err := conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	body, err := conn.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(body, []byte{0, 0, 0, 7, 0, 0}) {
		t.Fatalf("answer begins % x", body[:min(len(body), 8)])
	}
}

// A half-written frame holds up nobody else.
func TestFrameNeverFinished(t *testing.T) {
	frame := request(int16(kmsg.ApiVersions), 0)
	for n := 1; n < len(frame); n++ {
		if _, err := dial(t).Write(frame[:n]); err != nil {
			t.Fatal(err)
		}
	}
	mustServe(t)
}

// Many requests in one write are answered in their order, whatever kind they
// are and however long each takes.
func TestPipelinedRequestsKeepTheirOrder(t *testing.T) {
	topic := newTopic(t, 1)
	conn := dial(t)
	conn.SetDeadline(time.Now().Add(stepTimeout))
	format := kmsg.NewRequestFormatter()
	var sent []kmsg.Request
	var out []byte
	for i := range int32(200) {
		var req kmsg.Request
		switch i % 4 {
		case 0, 1:
			p := wire.Produce(topic, 0, batch(-1, -1, -1, "value"))
			p.SetVersion(9)
			req = p
		case 2:
			req = kmsg.NewPtrApiVersionsRequest()
		case 3:
			m := kmsg.NewPtrMetadataRequest()
			m.SetVersion(9)
			mt := kmsg.NewMetadataRequestTopic()
			mt.Topic = &topic
			m.Topics = []kmsg.MetadataRequestTopic{mt}
			req = m
		}
		sent = append(sent, req)
		out = append(out, format.AppendRequest(nil, req, i)...)
	}
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(out)
		written <- err
	}()
	next := int64(0)
	for i, req := range sent {
		body, err := conn.ReadFrame()
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if got := binary.BigEndian.Uint32(body); got != uint32(i) {
			t.Fatalf("answer %d has correlation id %d", i, got)
		}
		if _, ok := req.(*kmsg.ProduceRequest); !ok {
			continue
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		if err := resp.ReadFrom(body[5:]); err != nil {
			t.Fatal(err)
		}
		part := resp.Topics[0].Partitions[0]
		if part.ErrorCode != 0 || part.BaseOffset != next {
			t.Fatalf("answer %d: offset %d error %d, want offset %d", i, part.BaseOffset, part.ErrorCode, next)
		}
		next++
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

// Each bad batch gets its own error, nothing of it is stored, and a good
// partition in the same request is served. Kafka 4.4.0 refuses the whole
// request over an unknown magic, and has no code for an unknown codec.
func TestBadBatches(t *testing.T) {
	topic := newTopic(t, 2)
	good := batch(-1, -1, -1, "good")
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for name, c := range map[string]struct {
		raw          []byte
		want         []error
		kafkaRefuses bool
	}{
		"flipped bit":      {change(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), []error{kerr.CorruptMessage}, false},
		"cut short":        {good[:len(good)-1], []error{kerr.CorruptMessage, kerr.InvalidRecord}, false},
		"magic 3":          {change(func(b []byte) []byte { b[16] = 3; return b }), []error{kerr.CorruptMessage, kerr.InvalidRecord}, true},
		"count too high":   {change(func(b []byte) []byte { b[60] = 2; return wire.Seal(b) }), []error{kerr.InvalidRecord, kerr.CorruptMessage}, false},
		"last delta wrong": {change(func(b []byte) []byte { b[26] = 9; return wire.Seal(b) }), []error{kerr.InvalidRecord}, false},
		"unknown codec":    {change(func(b []byte) []byte { b[22] = 7; return wire.Seal(b) }), []error{kerr.CorruptMessage, kerr.UnsupportedCompressionType, kerr.InvalidRecord}, false},
		"control batch":    {change(func(b []byte) []byte { b[22] = 0x20; return wire.Seal(b) }), []error{kerr.InvalidRecord}, false},
		"two batches":      {append(bytes.Clone(good), good...), []error{kerr.InvalidRecord}, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := [2]int64{endOffset(t, topic, 0), endOffset(t, topic, 1)}
			req := wire.Produce(topic, 0, c.raw)
			part := kmsg.NewProduceRequestTopicPartition()
			part.Partition, part.Records = 1, good
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, part)
			resp, err := dial(t).Call(step(t), req, 9)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range resp.(*kmsg.ProduceResponse).Topics[0].Partitions {
				got := kerr.ErrorForCode(p.ErrorCode)
				if p.Partition == 1 {
					if got != nil && !(onKafka && c.kafkaRefuses) {
						t.Errorf("the good partition: %v", got)
					}
					continue
				}
				if !containsError(c.want, got) && !(onKafka && errors.Is(got, kerr.UnknownServerError)) {
					t.Errorf("got %v, want one of %v", got, c.want)
				}
			}
			if end := endOffset(t, topic, 0); end != before[0] {
				t.Errorf("a bad batch moved the end offset from %d to %d", before[0], end)
			}
			if end := endOffset(t, topic, 1); end != before[1]+1 && !(onKafka && c.kafkaRefuses) {
				t.Errorf("the good batch moved the end offset from %d to %d", before[1], end)
			}
		})
	}
}

func containsError(all []error, err error) bool {
	for _, e := range all {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Every version that the server says it serves of the requests that every
// client needs, answered at that version.
func TestEveryAdvertisedVersion(t *testing.T) {
	topic := newTopic(t, 1)
	conn := dial(t)
	ctx := step(t)
	resp, err := conn.Call(ctx, kmsg.NewPtrApiVersionsRequest(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ranges := map[int16]kmsg.ApiVersionsResponseApiKey{}
	for _, k := range resp.(*kmsg.ApiVersionsResponse).ApiKeys {
		ranges[k.ApiKey] = k
	}
	id := [16]byte(awaitTopic(t, topic, 1).ID)
	requests := map[kmsg.Key]func(version int16) kmsg.Request{
		kmsg.ApiVersions: func(int16) kmsg.Request {
			r := kmsg.NewPtrApiVersionsRequest()
			r.ClientSoftwareName, r.ClientSoftwareVersion = "conformance", "1"
			return r
		},
		kmsg.Metadata: func(int16) kmsg.Request {
			r := kmsg.NewPtrMetadataRequest()
			mt := kmsg.NewMetadataRequestTopic()
			mt.Topic = &topic
			r.Topics = []kmsg.MetadataRequestTopic{mt}
			return r
		},
		kmsg.Produce: func(version int16) kmsg.Request {
			if version < 3 {
				return nil // message sets, the business of old clients
			}
			r := wire.Produce(topic, 0, batch(-1, -1, -1, "value"))
			r.Topics[0].TopicID = id
			return r
		},
		kmsg.Fetch: func(version int16) kmsg.Request {
			if version < 4 {
				return nil
			}
			r := kmsg.NewPtrFetchRequest()
			r.MaxBytes, r.MaxWaitMillis, r.SessionEpoch = 1<<20, 100, -1
			p := kmsg.NewFetchRequestTopicPartition()
			p.PartitionMaxBytes = 1 << 20
			ft := kmsg.NewFetchRequestTopic()
			ft.Topic, ft.TopicID, ft.Partitions = topic, id, []kmsg.FetchRequestTopicPartition{p}
			r.Topics = []kmsg.FetchRequestTopic{ft}
			return r
		},
		kmsg.ListOffsets: func(version int16) kmsg.Request {
			if version < 1 {
				return nil
			}
			r := kmsg.NewPtrListOffsetsRequest()
			r.ReplicaID = -1
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Timestamp = -1
			lt := kmsg.NewListOffsetsRequestTopic()
			lt.Topic, lt.Partitions = topic, []kmsg.ListOffsetsRequestTopicPartition{p}
			r.Topics = []kmsg.ListOffsetsRequestTopic{lt}
			return r
		},
		kmsg.OffsetForLeaderEpoch: func(version int16) kmsg.Request {
			if version < 2 {
				return nil
			}
			r := kmsg.NewPtrOffsetForLeaderEpochRequest()
			r.ReplicaID = -2
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			et := kmsg.NewOffsetForLeaderEpochRequestTopic()
			et.Topic, et.Partitions = topic, []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}
			r.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{et}
			return r
		},
		kmsg.DescribeConfigs: func(int16) kmsg.Request {
			r := kmsg.NewPtrDescribeConfigsRequest()
			res := kmsg.NewDescribeConfigsRequestResource()
			res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, topic
			r.Resources = []kmsg.DescribeConfigsRequestResource{res}
			return r
		},
		kmsg.InitProducerID:  func(int16) kmsg.Request { return kmsg.NewPtrInitProducerIDRequest() },
		kmsg.DescribeCluster: func(int16) kmsg.Request { return kmsg.NewPtrDescribeClusterRequest() },
		kmsg.FindCoordinator: func(int16) kmsg.Request {
			r := kmsg.NewPtrFindCoordinatorRequest()
			r.CoordinatorKey, r.CoordinatorKeys = "group", []string{"group"}
			return r
		},
	}
	for key, build := range requests {
		served, ok := ranges[key.Int16()]
		if !ok {
			t.Errorf("%s is not advertised", key.Name())
			continue
		}
		for version := served.MinVersion; version <= served.MaxVersion; version++ {
			req := build(version)
			if req == nil || version > req.MaxVersion() {
				continue
			}
			if err := callOnce(ctx, req, version); err != nil {
				t.Errorf("%s v%d: %v", key.Name(), version, err)
			}
		}
	}
}

// callOnce sends one request on a connection of its own and looks for an error
// code at the places where these requests have theirs.
func callOnce(ctx context.Context, req kmsg.Request, version int16) error {
	conn, err := wire.Dial(ctx, broker.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := conn.Call(ctx, req, version)
	if err != nil {
		return err
	}
	var code int16
	switch r := resp.(type) {
	case *kmsg.ApiVersionsResponse:
		code = r.ErrorCode
	case *kmsg.MetadataResponse:
		code = r.Topics[0].ErrorCode
	case *kmsg.ProduceResponse:
		code = r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.FetchResponse:
		code = r.ErrorCode
		if code == 0 {
			code = r.Topics[0].Partitions[0].ErrorCode
		}
	case *kmsg.ListOffsetsResponse:
		code = r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.OffsetForLeaderEpochResponse:
		code = r.Topics[0].Partitions[0].ErrorCode
	case *kmsg.DescribeConfigsResponse:
		code = r.Resources[0].ErrorCode
	case *kmsg.InitProducerIDResponse:
		code = r.ErrorCode
	case *kmsg.DescribeClusterResponse:
		code = r.ErrorCode
	}
	return kerr.ErrorForCode(code)
}

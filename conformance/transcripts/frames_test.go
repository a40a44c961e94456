package transcripts

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// everyKey sends the request that has nothing but defaults at every version of
// every key that any server has, and frames that are not of a version.
func (s *script) everyKey() {
	s.only = "nothing, since lists of everything were asked for already"
	for key := range int16(kmsg.MaxKey + 1) {
		req := kmsg.RequestForKey(key)
		if req == nil || key == int16(kmsg.ApiVersions) {
			continue
		}
		req.(interface{ Default() }).Default()
		served := false
		for v := range req.MaxVersion() + 1 {
			if s.serves(key, v) {
				served = true
				s.ask("defaults", req, v)
			} else {
				s.note(fmt.Sprintf("defaults: %s v%d", kmsg.NameForKey(key), v), notServed)
			}
		}
		name := kmsg.NameForKey(key)
		if served {
			s.note("a key that is not served: "+name, "served")
		} else {
			s.raw("a key that is not served: "+name, header(key, 0))
		}
		s.raw("version 99 of "+name, header(key, 99))
		s.raw("version -1 of "+name, header(key, -1))
	}
	s.only = ""
}

// header is a frame with a request header of version 1 and a body.
func header(key, version int16, body ...byte) []byte {
	frame := binary.BigEndian.AppendUint32(nil, uint32(10+len(body)))
	frame = binary.BigEndian.AppendUint16(frame, uint16(key))
	frame = binary.BigEndian.AppendUint16(frame, uint16(version))
	frame = binary.BigEndian.AppendUint32(frame, requestCorrelation)
	frame = binary.BigEndian.AppendUint16(frame, 0xffff)
	return append(frame, body...)
}

// frames sends bytes that no client should.
func (s *script) frames() {
	const metadata = int16(kmsg.Metadata)
	for name, frame := range inOrder(map[string][]byte{
		"frame of minus one bytes":        {0xff, 0xff, 0xff, 0xff},
		"frame of the least size":         {0x80, 0, 0, 0},
		"frame of no bytes":               {0, 0, 0, 0},
		"frame shorter than a header":     {0, 0, 0, 3, 0, 0, 0},
		"frame of 2 GiB less one":         {0x7f, 0xff, 0xff, 0xff},
		"frame a byte over the limit":     binary.BigEndian.AppendUint32(nil, 104857600+1),
		"HTTP":                            []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":                             []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
		"text":                            []byte(strings.Repeat("hello ", 100)),
		"key 9999":                        header(9999, 0),
		"key -1":                          header(-1, 0),
		"array longer than the frame":     header(metadata, 0, 0x7f, 0xff, 0xff, 0xff),
		"array of -2":                     header(metadata, 1, 0xff, 0xff, 0xff, 0xfe),
		"null array where none may be":    header(metadata, 0, 0xff, 0xff, 0xff, 0xff),
		"string longer than the frame":    header(metadata, 0, 0, 0, 0, 1, 0x7f, 0xff),
		"null string where none may be":   header(metadata, 1, 0, 0, 0, 1, 0xff, 0xff),
		"string of -2":                    header(metadata, 1, 0, 0, 0, 1, 0xff, 0xfe),
		"request cut off":                 header(metadata, 0, 0, 0),
		"client id longer than the frame": {0, 0, 0, 10, 0, 3, 0, 0, 0, 0, 0, 7, 0x7f, 0xff},
		"client id of -2":                 {0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 77, 0xff, 0xfe, 0, 0, 0, 0},
		"produce cut off":                 header(int16(kmsg.Produce), 3, 0xff, 0xff, 0xff, 0xff),
		"ApiVersions 99":                  header(int16(kmsg.ApiVersions), 99, 0, 1, 1, 0),
		"ApiVersions 99 of nothing":       header(int16(kmsg.ApiVersions), 99),
		"ApiVersions 99 of garbage":       header(int16(kmsg.ApiVersions), 99, 0xff, 0xff, 0xff),
		"ApiVersions -1":                  header(int16(kmsg.ApiVersions), -1),
		"ApiVersions 3 cut off":           header(int16(kmsg.ApiVersions), 3, 0, 1),
	}) {
		s.raw(name, frame)
	}
	s.tails()
}

// tails sends requests of which the last byte is missing, and such with bytes
// behind their end, at the newest version that both Kafkas serve.
func (s *script) tails() {
	format := kmsg.NewRequestFormatter()
	for _, c := range []struct {
		req      kmsg.Request
		versions []int16
	}{
		{metadataOf("read"), []int16{1, 12}},
		{listOffsets("read", -1, 0), []int16{4, 9}},
		{s.fetchFrom(fetchPart{"read", 0, 0, 100}), []int16{4, 12}},
		{s.produceTo(part{"read", 0, []byte{}}), []int16{3, 9}},
		{describeConfigs(ofTopic, "read", "retention.ms"), []int16{1, 4}},
	} {
		for _, v := range c.versions {
			c.req.SetVersion(v)
			frame := format.AppendRequest(nil, c.req, requestCorrelation)
			name := fmt.Sprintf("%s v%d", kmsg.NameForKey(c.req.Key()), v)
			s.raw("last byte missing: "+name, resized(frame[:len(frame)-1]))
			body, err := s.send(resized(append(frame, 0, 0, 0)))
			lines := []string{closed}
			if err == nil && body != nil {
				lines = []string{"answered"}
			}
			s.note("bytes behind the end: "+name, lines...)
		}
	}
}

func resized(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}

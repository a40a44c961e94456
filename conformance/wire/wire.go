// Package wire sends single Kafka requests over a plain TCP connection, one
// at a time, with no retries, no metadata and no opinion: what a test needs
// that must see one exact answer, or send one exact byte.
package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxResponseBytes bounds one answer; no request of this suite asks for more.
const maxResponseBytes = 256 << 20

// A Conn is one connection to a broker. Not safe for concurrent use.
type Conn struct {
	net.Conn
	correlation int32
	format      *kmsg.RequestFormatter
}

// Dial connects to addr ("host:port").
func Dial(ctx context.Context, addr string) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("quire-conformance"))}, nil
}

// Call writes req at the given version and decodes the answer. The deadline
// of ctx, when it has one, bounds both.
func (c *Conn) Call(ctx context.Context, req kmsg.Request, version int16) (kmsg.Response, error) {
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	} else {
		c.SetDeadline(time.Time{})
	}
	req.SetVersion(version)
	c.correlation++
	if _, err := c.Write(c.format.AppendRequest(nil, req, c.correlation)); err != nil {
		return nil, fmt.Errorf("send %s v%d: %w", kmsg.NameForKey(req.Key()), version, err)
	}
	body, err := c.ReadFrame()
	if err != nil {
		return nil, fmt.Errorf("answer to %s v%d: %w", kmsg.NameForKey(req.Key()), version, err)
	}
	if len(body) < 4 {
		return nil, fmt.Errorf("answer to %s v%d: %d bytes, too short for a header", kmsg.NameForKey(req.Key()), version, len(body))
	}
	if got := int32(binary.BigEndian.Uint32(body)); got != c.correlation {
		return nil, fmt.Errorf("answer to %s v%d: correlation id %d, want %d", kmsg.NameForKey(req.Key()), version, got, c.correlation)
	}
	body = body[4:]
	// ApiVersions answers always carry the old header (KIP-511), so that a
	// client can read them before it knows the version.
	if req.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("answer to %s v%d: header has tagged fields or none at all", kmsg.NameForKey(req.Key()), version)
		}
		body = body[1:]
	}
	resp := req.ResponseKind()
	resp.SetVersion(version)
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("decode the answer to %s v%d: %w", kmsg.NameForKey(req.Key()), version, err)
	}
	return resp, nil
}

// ReadFrame reads one length-prefixed frame and returns what follows the
// length.
func (c *Conn) ReadFrame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := int32(binary.BigEndian.Uint32(size[:]))
	if n < 0 || n > maxResponseBytes {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(c, body)
	return body, err
}

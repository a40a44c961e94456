package forward

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

// connected is a connection whose other side has proved that it is the node wanted.
type connected struct {
	net.Conn
	incarnation     string
	maxMessageBytes int
}

// connect dials a node where it is now. It blocks, for DialTimeout at most.
func (p *Peers) connect(node int32) (connected, error) {
	address, incarnation, ok := p.cfg.Nodes(node)
	if !ok {
		return connected{}, errUnknownNode
	}
	deadline := time.Now().Add(p.cfg.DialTimeout)
	ctx, cancel := context.WithDeadline(p.ctx, deadline)
	defer cancel()
	socket, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return connected{}, err
	}
	// Peers.Close does not wait for a peer that is silent. What runs then has the socket
	// for itself: c may be about to change.
	defer context.AfterFunc(ctx, func() { socket.SetDeadline(time.Unix(1, 0)) })()
	c := socket
	if p.cfg.TLS != nil {
		if c, err = p.secure(ctx, c, address); err != nil {
			return connected{}, fmt.Errorf("%s: %w", address, err)
		}
	}
	d := dialler{self: p.cfg.Self, secret: p.cfg.Secret, node: node, incarnation: incarnation, clock: p.clock(time.Now())}
	c.SetDeadline(deadline)
	if err := d.shake(c); err != nil {
		c.Close()
		return connected{}, fmt.Errorf("%s: %w", address, err)
	}
	c.SetDeadline(time.Time{})
	// Whatever this node has given up must not reach the other side when a network
	// heals, behind the newer things that were done meanwhile. So the system forgets
	// what it has not got rid of when the link is closed, also by the end of the process.
	if t, ok := socket.(*net.TCPConn); ok {
		if err := t.SetLinger(0); err != nil {
			c.Close()
			return connected{}, fmt.Errorf("%s: %w", address, err)
		}
	}
	return connected{Conn: c, incarnation: incarnation, maxMessageBytes: d.maxMessageBytes}, nil
}

func (p *Peers) secure(ctx context.Context, c net.Conn, address string) (net.Conn, error) {
	cfg := p.cfg.TLS
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			c.Close()
			return nil, err
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	t := tls.Client(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// shake makes a handshake on c.
func (d *dialler) shake(c net.Conn) error {
	next := d.greet()
	for {
		if next != nil {
			frame := binary.BigEndian.AppendUint32(nil, uint32(len(next)))
			if _, err := c.Write(append(frame, next...)); err != nil {
				return fmt.Errorf("handshake: %w", err)
			}
		}
		frame, err := readHandshake(c)
		if err != nil {
			return err
		}
		reply, done, err := d.receive(frame)
		if err != nil {
			if reply != nil {
				// So that the other side can say why. It may be gone.
				_, _ = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(reply))), reply...))
			}
			return err
		}
		if done {
			return nil
		}
		next = reply
	}
}

func readHandshake(c net.Conn) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxHandshakeBytes {
		return nil, fmt.Errorf("%w: a frame of %d bytes", ErrHandshake, size)
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(c, frame); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return frame, nil
}

// warnInterval is how often the same trouble with a node is told again.
const warnInterval = time.Minute

// warnings keeps what was told last of a node.
type warnings struct {
	sync.Mutex
	text string
	told time.Time
}

// warn tells of trouble with a node, if that is news.
func (n *node) warn(log *zap.Logger, err error) {
	w := &n.warnings
	w.Lock()
	defer w.Unlock()
	if text := err.Error(); text != w.text || time.Since(w.told) >= warnInterval {
		w.text, w.told = text, time.Now()
		log.Warn("no link to a node", zap.Int32("node", n.id), zap.Error(err))
	}
}

// connected tells that trouble with a node is over.
func (n *node) connected(log *zap.Logger) {
	w := &n.warnings
	w.Lock()
	defer w.Unlock()
	if w.text != "" {
		w.text = ""
		log.Info("there is a link to the node again", zap.Int32("node", n.id))
	}
}

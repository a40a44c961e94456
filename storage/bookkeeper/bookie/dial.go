package bookie

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// dial makes a connection, with TLS if it is configured.
func (c *Client) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.ConnectTimeout)
	defer cancel()
	address, err := c.cfg.Resolve(c.id)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if c.cfg.TLS == nil {
		return conn, nil
	}
	secure, err := startTLS(ctx, conn, c.cfg.TLS, address)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// hangUp closes a connection at once. To close a TLS connection properly is to
// write to it, which a bookie that stalls could hold up.
func hangUp(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.Close()
}

// startTLS asks for TLS in clear and shakes hands.
func startTLS(ctx context.Context, conn net.Conn, cfg *tls.Config, address string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	const txn = 1
	if _, err := conn.Write(wire.AppendStartTLS(nil, txn)); err != nil {
		return nil, fmt.Errorf("START_TLS: %w", err)
	}
	var room [wire.LengthBytes + wire.MaxStartTLSBytes]byte
	if _, err := io.ReadFull(conn, room[:wire.LengthBytes]); err != nil {
		return nil, fmt.Errorf("START_TLS: %w", err)
	}
	n := binary.BigEndian.Uint32(room[:])
	if n > wire.MaxStartTLSBytes {
		return nil, fmt.Errorf("START_TLS: %w: answer of %d bytes", wire.ErrMalformed, n)
	}
	frame := room[wire.LengthBytes : wire.LengthBytes+n]
	if _, err := io.ReadFull(conn, frame); err != nil {
		return nil, fmt.Errorf("START_TLS: %w", err)
	}
	answer, err := wire.ParseStartTLS(frame)
	if err != nil {
		return nil, err
	}
	if answer.TxnID != txn || answer.Status != wire.OK {
		return nil, fmt.Errorf("bookie refuses TLS with status %d; is its tlsProviderFactoryClass set?", answer.Status)
	}
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		cfg = cfg.Clone()
		cfg.ServerName = host
	}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secure, nil
}

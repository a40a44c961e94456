package bookie

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// selfSigned makes a certificate for where tests listen and a pool that trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bookie"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 4)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	cert, pool := selfSigned(t)
	b := listen(t, bookietest.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}})
	c := connect(t, b, Config{TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}})
	var hs []answers
	for e := range int64(50) {
		hs = append(hs, add(t, c, codec(1), e, 0, 0))
	}
	// Larger than what is joined, and larger than the room for that.
	for i, n := range []int{joinBytes - 200, joinBytes, joinBytes + 1, 4 * joinBytes, 1 << 20} {
		h := make(answers, 1)
		p := NewPacket(codec(1), 0, 50+int64(i), -1, 1<<30, nil, make([]byte, n), nil)
		if err := c.Add(p, 0, h, 0); err != nil {
			t.Fatal(err)
		}
		p.Release()
		hs = append(hs, h)
	}
	for _, h := range hs {
		h.want(t, nil)
	}
	read(t, c, codec(1), 17, 0).wantEntry(t, 17)
	last := read(t, c, codec(1), wire.LastEntry, wire.DoFencing)
	if last.Err != nil || len(last.Entry.Payload) != 1<<20 {
		t.Fatalf("last entry: %d bytes, %v", len(last.Entry.Payload), last.Err)
	}
	last.Buf.Release()
	b.Crash()
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	disconnected(c)
	read(t, c, codec(1), 17, wire.HighPriority).wantEntry(t, 17)
}

func TestTLSRefusals(t *testing.T) {
	cert, pool := selfSigned(t)
	_, strangers := selfSigned(t)
	secure := &tls.Config{Certificates: []tls.Certificate{cert}}
	for name, f := range map[string]struct {
		bookie, client *tls.Config
		want           string
	}{
		"a bookie without TLS":       {nil, &tls.Config{RootCAs: pool}, "tlsProviderFactoryClass"},
		"a certificate of strangers": {secure, &tls.Config{RootCAs: strangers}, "certificate"},
		"the name of another":        {secure, &tls.Config{RootCAs: pool, ServerName: "other"}, "other"},
	} {
		t.Run(name, func(t *testing.T) {
			b := listen(t, bookietest.Config{TLS: f.bookie})
			c := connect(t, b, Config{TLS: f.client, ConnectGrace: -1})
			r := read(t, c, codec(1), 0, 0)
			r.want(t, ErrRefused)
			if !strings.Contains(r.Err.Error(), f.want) {
				t.Errorf("%v does not say %q", r.Err, f.want)
			}
		})
	}
}

// TestStrangers: whatever is at the bookie's port, requests end with an error.
func TestStrangers(t *testing.T) {
	answer := wire.AppendResponse(nil, wire.Response{Version: 2, Op: wire.OpRead, Code: wire.NoEntry, Ledger: 9, Entry: 9}, nil)
	for name, bytes := range map[string][]byte{
		"closes":                    nil,
		"another protocol":          []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"a short frame":             append([]byte{0, 0, 0, 23}, make([]byte, 23)...),
		"a frame of 2 GiB":          append([]byte{0x7f, 0xff, 0xff, 0xff}, answer[4:]...),
		"half an answer":            answer[:20],
		"an answer not asked for":   answer,
		"an add's answer too":       wire.AppendResponse(nil, wire.Response{Version: 2, Op: wire.OpAdd}, nil),
		"an add's answer with more": wire.AppendResponse(nil, wire.Response{Version: 2, Op: wire.OpAdd}, []byte("x")),
		"a batch without id":        wire.AppendResponse(nil, wire.Response{Version: 2, Op: wire.OpBatchRead}, []byte("x")),
		"half a body":               wire.AppendResponse(nil, wire.Response{Version: 2, Op: wire.OpRead, Ledger: 1}, make([]byte, 100))[:60],
	} {
		for _, secure := range []*tls.Config{nil, {InsecureSkipVerify: true}} {
			t.Run(name, func(t *testing.T) {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					for {
						conn, err := ln.Accept()
						if err != nil {
							return
						}
						conn.Read(make([]byte, 4)) // until it is asked
						conn.Write(bytes)
						conn.(*net.TCPConn).CloseWrite()
						for n, err := 0, error(nil); err == nil; n, err = conn.Read(make([]byte, 1<<10)) {
							_ = n
						}
						conn.Close()
					}
				}()
				c := New("stranger:1", Config{
					Resolve:      func(metadata.BookieID) (string, error) { return ln.Addr().String(), nil },
					TLS:          secure,
					ConnectGrace: -1,
				})
				r := read(t, c, codec(1), 0, 0)
				if !errors.Is(r.Err, ErrBroken) && !errors.Is(r.Err, ErrRefused) {
					t.Errorf("read: %v", r.Err)
				}
				c.Close()
				ln.Close()
				<-done
			})
		}
	}
}

// TestCancelInTheMiddleOfAnAnswer: who gave up hears of it once.
func TestCancelInTheMiddleOfAnAnswer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := New(metadata.BookieID(ln.Addr().String()), Config{ReadTimeout: long})
	defer c.Close()
	before := buffer.InUseBytes()
	heard := make(chan ReadReply, 2)
	call, err := c.Read(ReadRequest{Codec: codec(1), Entry: 0}, func(r ReadReply) { heard <- r })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stored := codec(1).AppendAdd(nil, 0, 0, -1, 100, payload(0), nil)[wire.LengthBytes+wire.HeaderBytes+wire.KeyBytes:]
	answer := wire.AppendResponse(nil, wire.Response{Version: 2, Op: wire.OpRead, Ledger: 1}, stored)
	conn.Write(answer[:50])
	for buffer.InUseBytes() == before { // until the answer is being read
		runtime.Gosched()
	}
	call.Cancel()
	_, other := startRead(t, c, ReadRequest{Codec: codec(1), Entry: 9})
	if _, err := io.ReadFull(conn, make([]byte, 2*len(wire.AppendRead(nil, 0, 1, 9, wire.MasterKey{})))); err != nil {
		t.Fatal(err)
	}
	conn.Write(answer[50:])
	conn.Write(wire.AppendResponse(nil, wire.Response{Version: 2, Op: wire.OpRead, Code: wire.NoEntry, Ledger: 1, Entry: 9}, nil))
	(<-other).want(t, wire.NoEntry)
	(<-heard).want(t, ErrCanceled)
	if len(heard) != 0 {
		t.Error("a read that was canceled was answered too")
	}
	if n := buffer.InUseBytes() - before; n != 0 {
		t.Errorf("%d bytes of the answer are left", n)
	}
}

func TestResolveFails(t *testing.T) {
	lost := errors.New("never registered")
	c := New("b:1", Config{ConnectGrace: -1, Resolve: func(metadata.BookieID) (string, error) { return "", lost }})
	defer c.Close()
	r := read(t, c, codec(1), 0, 0)
	r.want(t, ErrRefused)
	r.want(t, lost)
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// tlsConfig is a configuration with a listener that has TLS, and these keys.
func tlsConfig(t *testing.T, keys ...string) *config {
	t.Helper()
	overrides := []override{{"listeners", "SSL://127.0.0.1:0", "--listeners"}}
	for i := 0; i < len(keys); i += 2 {
		overrides = append(overrides, override{keys[i], keys[i+1], "--override"})
	}
	c, err := loadConfig("", nil, overrides)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// join writes the files one behind the other to name.
func (a *authority) join(name string, files ...string) string {
	a.t.Helper()
	var all []byte
	for _, file := range files {
		text, err := os.ReadFile(a.path(file))
		if err != nil {
			a.t.Fatal(err)
		}
		all = append(all, text...)
	}
	if err := os.WriteFile(a.path(name), all, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return a.path(name)
}

// handshake connects to a server with these certificates and returns the one it
// shows. pair is the client's own; nil: none.
func (a *authority) handshake(server *tls.Config, pair *tls.Certificate) (*x509.Certificate, error) {
	a.t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	config := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	if pair != nil {
		// Shown whatever authorities the server names.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	result := make(chan error, 1)
	go func() {
		c := tls.Server(theirs, server)
		err := c.Handshake()
		if err == nil {
			_, err = c.Write([]byte("x"))
		}
		theirs.Close()
		result <- err
	}()
	c := tls.Client(ours, config)
	// With TLS 1.3 a client learns of a refusal by its first read.
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		ours.Close()
		return nil, errors.Join(err, <-result)
	}
	return c.ConnectionState().PeerCertificates[0], <-result
}

func TestCertificateErrors(t *testing.T) {
	a := newAuthority(t)
	a.issue("node", nil)
	a.issue("other", nil)
	both := a.join("both.pem", "node.key", "node.crt", "ca.crt")
	reversed := a.join("reversed.pem", "ca.crt", "node.crt", "node.key")
	a.write("encrypted.key", "ENCRYPTED PRIVATE KEY", []byte{1})
	a.write("garbage.crt", "CERTIFICATE", []byte{1, 2, 3})
	for name, text := range map[string]string{"jks": "\xfe\xed\xfe\xed\x00\x00", "p12": "\x30\x82\x01", "text": "hello", "empty": ""} {
		if err := os.WriteFile(a.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keystore := func(file string) []string { return []string{"ssl.keystore.location", file} }
	pair := func(cert, key string) []string {
		return []string{"ssl.certificate.file", a.path(cert), "ssl.key.file", a.path(key)}
	}
	trust := func(file string) []string {
		return append(keystore(both), "ssl.client.auth", "required", "ssl.truststore.location", a.path(file))
	}
	for _, c := range []struct {
		keys []string
		want string // empty: no error
	}{
		{keystore(both), ""},
		{pair("node.crt", "node.key"), ""},
		{trust("ca.crt"), ""},
		// A trust store that nobody asks for is not looked at.
		{append(keystore(both), "ssl.truststore.location", a.path("absent")), ""},
		{keystore(a.path("absent")), "ssl.keystore.location " + a.path("absent") + ": no such file"},
		{keystore(a.dir), "ssl.keystore.location " + a.dir + ": is a directory"},
		{keystore(a.path("node.crt")), "node.crt: has no PRIVATE KEY"},
		{keystore(a.path("node.key")), "node.key: has no CERTIFICATE"},
		{keystore(reversed), "the key must be that of the first certificate"},
		{keystore(a.path("jks")), "is a Java keystore, not PEM"},
		{keystore(a.path("p12")), "is DER or PKCS#12, not PEM"},
		{keystore(a.path("text")), "is not PEM"},
		{keystore(a.path("empty")), "is not PEM"},
		{pair("node.crt", "encrypted.key"), "ssl.key.file " + a.path("encrypted.key") + ": the private key is encrypted"},
		{pair("node.crt", "other.key"), "the key must be that of the first certificate"},
		{pair("absent", "node.key"), "ssl.certificate.file " + a.path("absent") + ": no such file"},
		{pair("node.crt", "absent"), "ssl.key.file " + a.path("absent") + ": no such file"},
		{trust("absent"), "ssl.truststore.location " + a.path("absent") + ": no such file"},
		{trust("node.key"), "ssl.truststore.location " + a.path("node.key") + ": has no CERTIFICATE"},
		{trust("garbage.crt"), "none of its certificates can be read"},
	} {
		_, err := openCertificates(tlsConfig(t, c.keys...), prometheus.NewRegistry(), zap.NewNop())
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.keys, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%q: %v, want %q in one line", c.keys, err, c.want)
		}
	}
}

// Changed files count from the next connection on; those that are no good are told
// of once and change nothing.
func TestCertificatesChange(t *testing.T) {
	a := newAuthority(t)
	first, _ := a.issue("node", nil)
	a.issue("client", nil)
	client, err := tls.LoadX509KeyPair(a.path("client.crt"), a.path("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	core, lines := observer.New(zapcore.InfoLevel)
	s, err := openCertificates(tlsConfig(t, "ssl.certificate.file", a.path("node.crt"), "ssl.key.file", a.path("node.key"),
		"ssl.client.auth", "required", "ssl.truststore.location", a.path("ca.crt")), prometheus.NewRegistry(), zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	s.recheck = 0
	shows := func(want *x509.Certificate) {
		t.Helper()
		if got, err := a.handshake(s.base, &client); err != nil || !got.Equal(want) {
			t.Fatalf("shows %v, %v", got, err)
		}
	}
	logged := func(info, errors int) {
		t.Helper()
		if i, e := lines.FilterLevelExact(zapcore.InfoLevel).Len(), lines.FilterLevelExact(zapcore.ErrorLevel).Len(); i != info || e != errors {
			t.Fatalf("%d changes and %d errors are logged, want %d and %d: %v", i, e, info, errors, lines.All())
		}
	}
	lines.TakeAll() // it expires within the hour
	shows(first)
	shows(first)
	logged(0, 0)

	// Between the two files of a renewal: the certificate is new, the key old.
	oldKey, err := os.ReadFile(a.path("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	second, _ := a.issue("node", nil)
	newKey, err := os.ReadFile(a.path("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.path("node.key"), oldKey, 0o600); err != nil {
		t.Fatal(err)
	}
	shows(first)
	shows(first)
	logged(0, 1)
	if err := os.WriteFile(a.path("node.key"), newKey, 0o600); err != nil {
		t.Fatal(err)
	}
	shows(second)
	shows(second)
	logged(1, 1)

	if err := os.Remove(a.path("node.key")); err != nil {
		t.Fatal(err)
	}
	shows(second)
	shows(second)
	logged(1, 2)
	if err := os.WriteFile(a.path("node.key"), newKey, 0o600); err != nil {
		t.Fatal(err)
	}
	shows(second)

	// Whom the new trust store does not lead to is not let in, whatever was before.
	stranger := newAuthority(t)
	if err := os.WriteFile(a.path("ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := a.handshake(s.base, &client); err == nil {
		t.Errorf("a client of the old authority is let in, and shown %v", got)
	}
}

func TestClientAuth(t *testing.T) {
	a, strange := newAuthority(t), newAuthority(t)
	a.issue("node", nil)
	load := func(a *authority) *tls.Certificate {
		a.issue("client", nil)
		pair, err := tls.LoadX509KeyPair(a.path("client.crt"), a.path("client.key"))
		if err != nil {
			t.Fatal(err)
		}
		return &pair
	}
	own, stranger := load(a), load(strange)
	for auth, want := range map[string][3]bool{ // no certificate, one of ours, one of a stranger's
		"none":      {true, true, true},
		"requested": {true, true, false},
		"required":  {false, true, false},
	} {
		s, err := openCertificates(tlsConfig(t, "ssl.certificate.file", a.path("node.crt"), "ssl.key.file", a.path("node.key"),
			"ssl.client.auth", auth, "ssl.truststore.location", a.path("ca.crt")), prometheus.NewRegistry(), zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		for i, pair := range []*tls.Certificate{nil, own, stranger} {
			if _, err := a.handshake(s.base, pair); (err == nil) != want[i] {
				t.Errorf("%s, client %d: %v", auth, i, err)
			}
		}
	}
}

// Clients of a listener with TLS behind a load balancer, and of one without.
func TestServeTLSBehindProxy(t *testing.T) {
	a := newAuthority(t)
	a.issue("node", nil)
	s := start(t, serveArgs(t.TempDir(), "--listeners", "PLAINTEXT://127.0.0.1:0,SSL://127.0.0.1:0,BALANCED://127.0.0.1:0",
		"--override", "listener.security.protocol.map=BALANCED:SSL", "--override", "listener.proxy.protocol=balanced",
		"--override", "ssl.keystore.location="+a.join("both.pem", "node.key", "node.crt"),
		"--override", "group.initial.rebalance.delay.ms=0")...)
	s.tool("", "topic", "create", "orders")
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	for name, header := range map[string]string{"SSL": "", "BALANCED": "PROXY TCP4 203.0.113.7 127.0.0.1 51234 9093\r\n"} {
		host := "127.0.0.1"
		if header != "" {
			host = "203.0.113.7"
		}
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			if _, err := io.WriteString(c, header); err != nil {
				return nil, err
			}
			return tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}), nil
		}
		group := "of-" + name
		client, err := kgo.NewClient(kgo.SeedBrokers(s.listeners[name]), kgo.Dialer(dial), kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte(name)}).FirstErr(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if fetches := client.PollFetches(ctx); fetches.NumRecords() == 0 {
			t.Fatalf("%s: no record: %v", name, fetches.Errors())
		}
		groups, err := kadm.NewClient(client).DescribeGroups(ctx, group)
		if err != nil || len(groups[group].Members) != 1 || strings.TrimPrefix(groups[group].Members[0].ClientHost, "/") != host {
			t.Errorf("%s: members are %v, %v; want one at %s", name, groups[group].Members, err, host)
		}
	}
	// Without the header nobody is served there.
	plain, err := tls.Dial("tcp", s.listeners["BALANCED"], &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	if err == nil {
		plain.Close()
		t.Error("a client that comes without the load balancer is served")
	}
	// It is counted after its socket has been closed.
	want := `quire_connections_rejected_total{reason="proxy.protocol"} 1`
	tick, deadline := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		status, text := get(t, s.admin, "/metrics")
		if status == 200 && strings.Contains(text, want) {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("/metrics: %d, no %s", status, want)
		}
	}
	s.stop()
}

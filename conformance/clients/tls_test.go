package clients

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A pki is an authority, a server's certificate and a client's, in PEM files.
type pki struct {
	dir  string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{dir: t.TempDir(), pool: x509.NewCertPool()}
	p.ca, p.key = p.issue(t, "ca")
	p.pool.AddCert(p.ca)
	p.issue(t, "server")
	p.issue(t, "client")
	return p
}

// issue writes name.crt, name.key and both in name.pem. The first one is the authority's.
func (p *pki) issue(t *testing.T, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, signer := p.ca, p.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey})
	for file, text := range map[string][]byte{name + ".crt": cert, name + ".key": private, name + ".pem": slices.Concat(private, cert)} {
		if err := os.WriteFile(p.path(file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c, key
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

// startTLS runs a Quire with a listener that demands a client's certificate, and
// returns its address.
func startTLS(t *testing.T, p *pki) string {
	t.Helper()
	address, err := peer.FreeAddress("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	own, err := peer.FreeAddress("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := peer.NewQuire(t.Context(), peer.Options{Dir: t.TempDir(), Addr: own, Overrides: append([]string{
		"listeners=PLAINTEXT://" + own + ",SSL://" + address,
		"ssl.keystore.location=" + p.path("server.pem"),
		"ssl.client.auth=required",
		"ssl.truststore.location=" + p.path("ca.crt"),
	}, groupOverrides...)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
	})
	return address
}

// TestTLS: clients of three libraries write over TLS with certificates on both sides,
// and each reads what all have written.
func TestTLS(t *testing.T) {
	p := newPKI(t)
	address := startTLS(t, p)
	const topic = "secret"
	pair, err := tls.LoadX509KeyPair(p.path("client.crt"), p.path("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: p.pool, Certificates: []tls.Certificate{pair}}

	franz, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DialTLSConfig(config), kgo.AllowAutoTopicCreation(),
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer franz.Close()
	large := strings.Repeat("x", 200<<10) // of many TLS records
	if err := franz.ProduceSync(step(t), &kgo.Record{Topic: topic, Value: []byte("franz-go")}, &kgo.Record{Topic: topic, Value: []byte(large)}).FirstErr(); err != nil {
		t.Fatal(err)
	}

	secure := []string{"bootstrap.servers", address, "security.protocol", "ssl", "ssl.ca.location", p.path("ca.crt"),
		"ssl.certificate.location", p.path("client.crt"), "ssl.key.location", p.path("client.key")}
	want := []string{"franz-go", large, "librdkafka"}
	confluentProduce(t, topic, []record{{Value: []byte("librdkafka"), Millis: time.Now().UnixMilli()}}, secure...)

	java := filepath.Join(t.TempDir(), "client.properties")
	properties := []string{"security.protocol=SSL", "ssl.truststore.type=PEM", "ssl.truststore.location=" + p.path("ca.crt"),
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + p.path("client.pem")}
	if err := os.WriteFile(java, []byte(strings.Join(properties, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	tool := func(g generation, stdin, class string, args ...string) string {
		t.Helper()
		out, err := peer.RunTool(step(t), g.set, peer.QuickJVM, stdin, class, append([]string{"--bootstrap-server", address, "--topic", topic}, args...)...)
		need(t, err)
		return out
	}
	configs := map[string][2]string{"4.3.1": {"--command-config", "--command-config"}, "3.9.1": {"--producer.config", "--consumer.config"}}
	for version, g := range generations {
		tool(g, "Java "+version+"\n", g.consoleProducer, configs[version][0], java)
		want = append(want, "Java "+version)
	}
	for version, g := range generations {
		out := tool(g, "", consoleConsumer, configs[version][1], java, "--from-beginning", "--max-messages", fmt.Sprint(len(want)))
		if got := strings.Split(strings.TrimSpace(out), "\n"); !slices.Equal(got, want) {
			t.Errorf("Java %s reads %d records: %.200q", version, len(got), got)
		}
	}

	var got []string
	for ctx := step(t); len(got) < len(want); {
		fetches := franz.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("franz-go reads %d of %d records: %v", len(got), len(want), fetches.Errors())
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, string(r.Value)) })
	}
	if !slices.Equal(got, want) {
		t.Errorf("franz-go reads %.200q", got)
	}
	consumer := kafka.ConfigMap{"group.id": "readers", "auto.offset.reset": "earliest"}
	for i := 0; i < len(secure); i += 2 {
		consumer[secure[i]] = secure[i+1]
	}
	c, err := kafka.NewConsumer(&consumer)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Subscribe(topic, nil); err != nil {
		t.Fatal(err)
	}
	got = nil
	for ctx := step(t); len(got) < len(want) && ctx.Err() == nil; {
		const waitMillis = 500
		if m, ok := c.Poll(waitMillis).(*kafka.Message); ok {
			got = append(got, string(m.Value))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("librdkafka reads %.200q", got)
	}

	// Without a certificate nobody gets in.
	stranger, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DialTLSConfig(&tls.Config{RootCAs: p.pool}), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.Ping(step(t)); err == nil {
		t.Error("a client without a certificate is served")
	}
}

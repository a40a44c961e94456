package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// tlsVersions are Kafka's names.
var tlsVersions = map[string]uint16{"TLSv1": tls.VersionTLS10, "TLSv1.1": tls.VersionTLS11, "TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

var clientAuths = map[string]tls.ClientAuthType{"none": tls.NoClientCert, "requested": tls.VerifyClientCertIfGiven, "required": tls.RequireAndVerifyClientCert}

func checkTLSProtocols(v string) error {
	_, _, err := parseTLSProtocols(v)
	return err
}

// parseTLSProtocols returns the lowest and the highest version of a list without gaps.
func parseTLSProtocols(v string) (lowest, highest uint16, err error) {
	var versions []uint16
	for _, name := range splitList(v) {
		version, ok := tlsVersions[name]
		if !ok {
			return 0, 0, fmt.Errorf("must be of TLSv1, TLSv1.1, TLSv1.2 and TLSv1.3, not %q", name)
		}
		versions = append(versions, version)
	}
	slices.Sort(versions)
	versions = slices.Compact(versions)
	if len(versions) == 0 || int(versions[len(versions)-1]-versions[0]) != len(versions)-1 {
		return 0, 0, errors.New("must be versions that follow each other")
	}
	return versions[0], versions[len(versions)-1], nil
}

// checkTLSSet checks what concerns the listeners with TLS and the ssl keys together.
func checkTLSSet(c *config) error {
	keystore, cert, key := c.str("ssl.keystore.location"), c.str("ssl.certificate.file"), c.str("ssl.key.file")
	switch {
	case keystore != "" && (cert != "" || key != ""):
		return errors.New("ssl.keystore.location: has the certificate and the key, remove ssl.certificate.file and ssl.key.file")
	case (cert == "") != (key == ""):
		return errors.New("ssl.certificate.file: set it and ssl.key.file, or neither")
	case c.str("ssl.client.auth") != "none" && c.str("ssl.truststore.location") == "":
		return fmt.Errorf("ssl.client.auth: %s needs ssl.truststore.location, the certificates that those of clients must lead to", c.str("ssl.client.auth"))
	}
	ls, err := parseListeners(c.str("listeners"))
	if err != nil {
		return err
	}
	protocols, err := parseProtocolMap(c.str("listener.security.protocol.map"))
	if err != nil {
		return err
	}
	for _, l := range ls {
		if protocols[l.Name] == "SSL" && keystore == "" && cert == "" {
			return fmt.Errorf("listeners: %s has TLS and no certificate: set ssl.keystore.location, or ssl.certificate.file and ssl.key.file", l.Name)
		}
	}
	return nil
}

// maxPEMBytes bounds a file of certificates and keys.
const maxPEMBytes = 4 << 20

// tlsRecheck is the shortest time between two looks at the files.
const tlsRecheck = time.Second

// certificates are those of the listeners with TLS, as they lie in files. Changed
// files count for connections from then on; those that cannot be used do not, and
// the last that could go on. Safe for use from any goroutine.
type certificates struct {
	certFile, keyFile, trustFile string // keyFile is certFile where one file has both; trustFile may be empty
	base                         *tls.Config
	log                          *zap.Logger
	recheck                      time.Duration

	expiry prometheus.Gauge
	errors prometheus.Counter

	mu      sync.Mutex
	checked time.Time
	seen    [][]byte // what the files had when they were last looked at, good or not
	config  *tls.Config
}

// openCertificates reads the files. Its errors name the file and the key of the
// configuration.
func openCertificates(c *config, registry prometheus.Registerer, log *zap.Logger) (*certificates, error) {
	lowest, highest, err := parseTLSProtocols(c.str("ssl.enabled.protocols"))
	if err != nil {
		return nil, err
	}
	s := &certificates{
		certFile:  c.str("ssl.certificate.file"),
		keyFile:   c.str("ssl.key.file"),
		trustFile: c.str("ssl.truststore.location"),
		log:       log,
		recheck:   tlsRecheck,
		base: &tls.Config{
			MinVersion: lowest,
			MaxVersion: highest,
			ClientAuth: clientAuths[c.str("ssl.client.auth")],
			// Connections live long. A ticket would let a client in after the
			// certificates that it is checked against have changed.
			SessionTicketsDisabled: true,
		},
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quire_tls_certificate_expiry_timestamp_seconds", Help: "When the certificate of the listeners with TLS expires, as Unix time."}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quire_tls_reload_errors_total", Help: "Changes of the files of certificates that could not be used."}),
	}
	if keystore := c.str("ssl.keystore.location"); keystore != "" {
		s.certFile, s.keyFile = keystore, keystore
	}
	if s.base.ClientAuth == tls.NoClientCert {
		s.trustFile = ""
	}
	s.base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current(), nil }
	if s.seen, err = s.read(); err != nil {
		return nil, err
	}
	if s.config, err = s.parse(s.seen); err != nil {
		return nil, err
	}
	s.checked = time.Now()
	for _, m := range []prometheus.Collector{s.expiry, s.errors} {
		if err := registry.Register(m); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// current is the configuration for a connection that begins now. It looks at the
// files now and then: a connection is no more often begun than they are worth it.
func (s *certificates) current() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.checked) < s.recheck {
		return s.config
	}
	s.checked = now
	files, err := s.read()
	if err == nil {
		if slices.EqualFunc(files, s.seen, bytes.Equal) {
			return s.config
		}
		s.seen = files
		var config *tls.Config
		if config, err = s.parse(files); err == nil {
			s.config = config
			s.log.Info("certificates have changed", zap.String("file", s.certFile), zap.Time("expires", config.Certificates[0].Leaf.NotAfter))
			return s.config
		}
	} else {
		if s.seen == nil {
			return s.config // told already
		}
		s.seen = nil
	}
	s.errors.Inc()
	s.log.Error("the certificates in use stay: those in the files cannot be used", zap.Error(err))
	return s.config
}

// read returns what is in the files: certificate, key, trusted certificates.
func (s *certificates) read() ([][]byte, error) {
	var files [][]byte
	for _, path := range []string{s.certFile, s.keyFile, s.trustFile} {
		var text []byte
		if path != "" {
			var err error
			if text, err = readPEM(path); err != nil {
				return nil, fmt.Errorf("%s %s: %w", s.keyOf(path), path, err)
			}
		}
		files = append(files, text)
	}
	return files, nil
}

// keyOf names the key of the configuration that a path is from.
func (s *certificates) keyOf(path string) string {
	switch {
	case path == s.trustFile:
		return "ssl.truststore.location"
	case s.certFile == s.keyFile:
		return "ssl.keystore.location"
	case path == s.keyFile:
		return "ssl.key.file"
	}
	return "ssl.certificate.file"
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPEMBytes+1))
	switch {
	case err != nil:
		return nil, unwrapPath(err)
	case len(text) > maxPEMBytes:
		return nil, fmt.Errorf("larger than %d bytes", maxPEMBytes)
	}
	return text, nil
}

func (s *certificates) parse(files [][]byte) (*tls.Config, error) {
	cert, key, trust := files[0], files[1], files[2]
	if err := checkPEM(cert, "CERTIFICATE"); err != nil {
		return nil, fmt.Errorf("%s %s: %w", s.keyOf(s.certFile), s.certFile, err)
	}
	if err := checkPEM(key, "PRIVATE KEY"); err != nil {
		return nil, fmt.Errorf("%s %s: %w", s.keyOf(s.keyFile), s.keyFile, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %s (the key must be that of the first certificate; those of authorities follow it)",
			s.keyOf(s.certFile), s.certFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
	config := s.base.Clone()
	config.GetConfigForClient = nil
	config.Certificates = []tls.Certificate{pair}
	if s.trustFile != "" {
		if err := checkPEM(trust, "CERTIFICATE"); err != nil {
			return nil, fmt.Errorf("ssl.truststore.location %s: %w", s.trustFile, err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(trust) {
			return nil, fmt.Errorf("ssl.truststore.location %s: none of its certificates can be read", s.trustFile)
		}
	}
	s.expiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	const soon = 14 * 24 * time.Hour
	if left := time.Until(pair.Leaf.NotAfter); left < soon {
		s.log.Warn("the certificate of the listeners with TLS expires soon, or has: clients will refuse it",
			zap.String("file", s.certFile), zap.Time("expires", pair.Leaf.NotAfter))
	}
	return config, nil
}

// checkPEM says why text has no block of a kind that can be used.
func checkPEM(text []byte, kind string) error {
	blocks := 0
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks++
		switch {
		case kind == "PRIVATE KEY" && (block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != ""):
			return errors.New("the private key is encrypted: write it without a password (openssl pkey -in FILE -out NEW), readable for quire alone")
		case strings.HasSuffix(block.Type, kind):
			return nil
		}
	}
	switch {
	case blocks > 0:
		return fmt.Errorf("has no %s", kind)
	case bytes.HasPrefix(text, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return errors.New("is a Java keystore, not PEM")
	case len(text) > 0 && text[0] == 0x30:
		return errors.New("is DER or PKCS#12, not PEM")
	}
	return errors.New("is not PEM")
}

package bookies

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// Bookies that demand TLS and a certificate in it keep Quire's records.
func TestBookiesOverTLS(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "everybody"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, secret := write("cert.pem", "CERTIFICATE", certificate), write("key.pem", "PRIVATE KEY", private)

	cluster := start(t, peer.BookKeeperOptions{Bookies: 3, Overrides: []string{
		"tlsProviderFactoryClass=org.apache.bookkeeper.tls.TLSContextFactory", "tlsProvider=JDK", "tlsClientAuthentication=true",
		"tlsKeyStoreType=PEM", "tlsKeyStore=" + secret, "tlsCertificatePath=" + cert,
		"tlsTrustStoreType=PEM", "tlsTrustStore=" + cert,
	}})
	q := quireOn(t, cluster, threeThreeTwo, "bookkeeper.tls.enable=true", "bookkeeper.tls.ca.file="+cert,
		"bookkeeper.tls.cert.file="+cert, "bookkeeper.tls.key.file="+secret)
	topic := q.topic("over-tls", 1<<18)
	q.produce(topic, 0, 2000, 200)
	q.restart()
	q.check(topic, 0, 2000)
}

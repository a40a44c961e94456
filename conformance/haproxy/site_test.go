package haproxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The machines of deploy/haproxy are addresses of the loopback interface here: the
// nodes 10.0.0.11 to 13 are 127.0.0.11 to 13, HAProxy is 127.0.0.1, and clients come
// from clientIP. Every port stands for a free one.
const (
	nodes     = 3
	proxyIP   = "127.0.0.1"
	clientIP  = "127.0.0.99"
	spooferIP = "127.0.0.66"
)

func nodeIP(i int) string { return fmt.Sprintf("127.0.0.1%d", i+1) }

var (
	machine   = regexp.MustCompile(`\b10\.0\.0\.(1[0-9])\b`)
	knownPort = regexp.MustCompile(`\b(909[2-9]|910[123]|9191|9644)\b`)
	quick     = strings.NewReplacer("agent-inter 1s", "agent-inter 100ms", " inter 2s", " inter 200ms",
		"hard-stop-after 10m", "hard-stop-after 20s")
)

// A site is HAProxy with one of the configurations in front of nodes with its other half.
type site struct {
	t      *testing.T
	name   string
	dir    string
	ports  map[string]string // that are named in the files, and what they are here
	proxy  *peer.HAProxy
	socket string
	nodes  []*peer.Server
	roots  *x509.CertPool // nil: clients speak without TLS
	front  string         // where clients begin, as they know it
	since  time.Time
}

// took logs how long something was.
func (s *site) took(what string) {
	now := time.Now()
	s.t.Logf("%5.1f s for %s", now.Sub(s.since).Seconds(), what)
	s.since = now
}

func deployed(t *testing.T, name string) string {
	t.Helper()
	root, err := peer.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "..", "deploy", "haproxy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A variant is how a site differs from what its files say.
type variant struct {
	quorums [3]int
	// patient leaves all times as they are; else what takes seconds does not.
	patient bool
	// known has clients be told of addresses that are there, for those that cannot be
	// told where to find kafka.example.com.
	known bool
}

// single is for one bookie, and for clients that come by site.client.
var single = variant{quorums: [3]int{1, 1, 1}}

// newSite starts all of it, with the bookies of bk.
func newSite(t *testing.T, name string, bk *peer.BookKeeper, v variant) *site {
	t.Helper()
	// Short: the path of a socket has a limit.
	dir, err := os.MkdirTemp("", "haproxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, name: name, dir: dir, ports: map[string]string{}, socket: filepath.Join(dir, "s"), since: time.Now()}
	cfg, yaml := deployed(t, name+".cfg"), deployed(t, name+".yaml")
	for _, p := range knownPort.FindAllString(cfg+yaml, -1) {
		if s.ports[p] == "" {
			s.ports[p] = s.port()
		}
	}
	s.front = "kafka.example.com:9092"
	if strings.Contains(cfg, "bind :9093") {
		s.front = "kafka.example.com:9093"
		s.certificate()
	}
	s.proxy, err = peer.NewHAProxy(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !v.patient {
		cfg = quick.Replace(cfg)
	}
	s.proxy.Use(s.localized(cfg), s.here(s.front))
	if v.known {
		yaml = strings.ReplaceAll(yaml, s.front, s.here(s.front))
		s.front = s.here(s.front)
	}
	if err := s.proxy.Check(step(t)); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		s.addNode(i, yaml, bk, v)
	}
	s.each(func(n *peer.Server) error { return n.Start(step(t)) })
	if err := s.proxy.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.proxy.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of HAProxy's log:\n%s", s.proxy.Process().LogTail(40))
		}
	})
	return s
}

func (s *site) port() string {
	s.t.Helper()
	a, err := peer.FreeAddress(proxyIP)
	if err != nil {
		s.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(a)
	return port
}

// localized is a configuration of HAProxy's for this machine.
func (s *site) localized(cfg string) string {
	cfg = strings.ReplaceAll(cfg, "/run/haproxy/admin.sock", s.socket)
	cfg = strings.ReplaceAll(cfg, "/etc/haproxy/kafka.pem", filepath.Join(s.dir, "both.pem"))
	cfg = machine.ReplaceAllString(cfg, "127.0.0.$1")
	cfg = knownPort.ReplaceAllStringFunc(cfg, func(p string) string { return s.ports[p] })
	return strings.ReplaceAll(cfg, "bind :", "bind "+proxyIP+":")
}

// here is where an address as clients are told it is to be found on this machine.
func (s *site) here(told string) string {
	host, port, err := net.SplitHostPort(told)
	if err != nil {
		return told
	}
	switch {
	case strings.HasSuffix(host, "kafka.example.com"):
		host = proxyIP
	case machine.MatchString(host):
		host = machine.ReplaceAllString(host, "127.0.0.$1")
	default:
		return told
	}
	return net.JoinHostPort(host, s.ports[port])
}

// addNode prepares a node with the configuration that the yaml file has for it, but
// for what it keeps where and listens on.
func (s *site) addNode(i int, yaml string, bk *peer.BookKeeper, v variant) {
	s.t.Helper()
	name := fmt.Sprintf("quire-%d", i+1)
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(yaml, "\n  - 10.0.0.10\n") || !strings.Contains(yaml, "node.name: quire-1\n") {
		s.t.Fatalf("%s.yaml does not name HAProxy and itself as it should", s.name)
	}
	yaml = strings.NewReplacer(
		"\n  - 10.0.0.10\n", "\n  - "+proxyIP+"\n",
		"node.name: quire-1\n", "node.name: "+name+"\n",
		"node.id: 1\n", fmt.Sprintf("node.id: %d\n", i+1),
		"10.0.0.11:9092", fmt.Sprintf("10.0.0.1%d:9092", i+1), // which clients are told
		"/etc/quire/", s.dir+"/",
	).Replace(yaml)
	config := filepath.Join(dir, "quire.yaml")
	if err := os.WriteFile(config, []byte(yaml), 0o644); err != nil {
		s.t.Fatal(err)
	}
	ip := nodeIP(i)
	own := net.JoinHostPort(ip, s.port())
	listeners := "PLAINTEXT://" + own
	for _, m := range regexp.MustCompile(`(?m)^  - ([A-Z]+)://:(\d+)$`).FindAllStringSubmatch(yaml, -1) {
		listeners += "," + m[1] + "://" + net.JoinHostPort(ip, s.ports[m[2]])
	}
	overrides := slices.Concat(peer.OnBookies(bk, v.quorums), []string{
		"listeners=" + listeners, "cluster.name=" + filepath.Base(s.dir),
		"peer.listen=" + net.JoinHostPort(ip, s.ports["9191"]), "peer.advertised=" + net.JoinHostPort(ip, s.ports["9191"]),
	})
	if !v.patient {
		overrides = append(overrides, "group.initial.rebalance.delay.ms=0", "node.lease.ttl.ms=3000")
	}
	for key, port := range map[string]string{"agent.listen": "9099", "admin.listen": "9644"} {
		if strings.Contains(yaml, key+": ") {
			overrides = append(overrides, key+"="+net.JoinHostPort(ip, s.ports[port]))
		}
	}
	n, err := peer.NewQuire(s.t.Context(), peer.Options{Dir: dir, Addr: own, Overrides: overrides, Env: []string{"QUIRE_CONFIG=" + config}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.nodes = append(s.nodes, n)
	s.t.Cleanup(func() {
		if err := n.Kill(); err != nil {
			s.t.Error(err)
		}
		if s.t.Failed() {
			s.t.Logf("the end of the log of %s:\n%s", name, n.Process().LogTail(30))
		}
	})
}

// each does something to all nodes at once.
func (s *site) each(f func(*peer.Server) error) {
	s.t.Helper()
	errs := make([]error, len(s.nodes))
	var running sync.WaitGroup
	for i, n := range s.nodes {
		running.Go(func() { errs[i] = f(n) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
}

// certificate writes a certificate for the names of the site, as a pair and in one file.
func (s *site) certificate() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"kafka.example.com", "*.kafka.example.com"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey})
	for name, text := range map[string][]byte{"tls.crt": cert, "tls.key": private, "both.pem": slices.Concat(cert, private)} {
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(cert)
}

// dial connects as a client does that has looked up the name and lives at clientIP.
func (s *site) dial(ctx context.Context, network, told string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientIP)}}
	c, err := d.DialContext(ctx, network, s.here(told))
	if err != nil || s.roots == nil {
		return c, err
	}
	host, _, _ := net.SplitHostPort(told)
	return tls.Client(c, &tls.Config{RootCAs: s.roots, ServerName: host}), nil
}

func (s *site) client(opts ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	opts = append(opts, kgo.SeedBrokers(s.front), kgo.Dialer(s.dial))
	if s.perNode() {
		// At the address of a node that is gone HAProxy accepts and closes, which
		// franz-go otherwise takes for a server that wants TLS.
		opts = append(opts, kgo.AlwaysRetryEOF())
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(client.Close)
	return client
}

// perNode says whether each node has an address of its own at HAProxy.
func (s *site) perNode() bool { return s.name != "one-address" && s.name != "direct-bootstrap" }

// command asks HAProxy on its socket.
func (s *site) command(line string) string {
	s.t.Helper()
	var c net.Conn
	for ctx := step(s.t); c == nil; {
		var err error
		// It is there a moment after the frontends.
		if c, err = net.Dial("unix", s.socket); err != nil && ctx.Err() != nil {
			s.t.Fatal(err)
		}
	}
	defer c.Close()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		s.t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(answer)
}

// stats are the columns of "show stat" for a server of the backend that is checked.
func (s *site) stats(server string) map[string]string {
	s.t.Helper()
	lines := bufio.NewScanner(strings.NewReader(s.command("show stat")))
	var names []string
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ",")
		if names == nil {
			fields[0] = strings.TrimPrefix(fields[0], "# ")
			names = fields
			continue
		}
		if len(fields) > 1 && fields[1] == server && (fields[0] == "any" || fields[0] == "quire") {
			columns := map[string]string{}
			for i, f := range fields[:min(len(fields), len(names))] {
				columns[names[i]] = f
			}
			return columns
		}
	}
	s.t.Fatalf("HAProxy knows no server %s", server)
	return nil
}

// await waits until HAProxy has a server in a state.
func (s *site) await(server, status string) {
	s.t.Helper()
	ctx := step(s.t)
	var last map[string]string
	for ctx.Err() == nil {
		if last = s.stats(server); last["status"] == status || last["status"] == status+" (agent)" {
			return
		}
		time.Sleep(20 * time.Millisecond) // HAProxy tells its state to who asks only
	}
	s.t.Fatalf("%s is %s, not %s: check %s %s, agent %s %s", server, last["status"], status,
		last["check_status"], last["last_chk"], last["agent_status"], last["last_agt"])
}

// step bounds one thing that must happen.
func step(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

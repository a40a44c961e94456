package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// An authority signs certificates and keeps them in a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", nil)
	return a
}

// issue writes name.crt and name.key: a certificate for 127.0.0.1, or for
// signing others if it is the first.
func (a *authority) issue(name string, more func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 4)}, // the other one is that of test bookies
	}
	if more != nil {
		more(c)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", rawKey)
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

const etcdPassword = "Brief=encounter: 7"

// startEtcd starts an etcd that demands a certificate of a, or nothing if a is nil.
func startEtcd(t *testing.T, a *authority, dir string) (endpoint string, stop func()) {
	t.Helper()
	return startEtcdAt(t, a, dir, "127.0.0.1:0")
}

func startEtcdAt(t *testing.T, a *authority, dir, host string) (endpoint string, stop func()) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir, c.Name = filepath.Join(dir, "data"), "m"
	client := url.URL{Scheme: "http", Host: host}
	if a != nil {
		client.Scheme = "https"
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = a.path("member.crt"), a.path("member.key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = a.path("ca.crt"), true
	}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = "m=" + peer.String()
	c.LogLevel, c.LogOutputs = "fatal", []string{"/dev/null"}
	c.TickMs, c.ElectionMs = 50, 250
	c.UnsafeNoFsync = true // it ends with the test, and a slow disk must not end leases
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(e.Close)
	t.Cleanup(end)
	<-e.Server.ReadyNotify()
	return client.Scheme + "://" + e.Clients[0].Addr().String(), end
}

// requireUser turns authentication on.
func requireUser(t *testing.T, a *authority, endpoint string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.path("node.crt"), a.path("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "x"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(ctx, "quire", etcdPassword); return err },
		func() error { _, err := client.RoleAdd(ctx, "quire"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "quire", "quire/", clientv3.GetPrefixRangeEnd("quire/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := client.UserGrantRole(ctx, "quire", "quire"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// refuses starts quire, which must end with status 1 and a last line that has all of
// want, and returns what it prints.
func refuses(t *testing.T, args, want []string) string {
	t.Helper()
	return refusesCommand(t, command(t, args...), want)
}

func refusesCommand(t *testing.T, cmd *exec.Cmd, want []string) string {
	t.Helper()
	return beginRefusal(t, cmd).says(t, want)
}

// refusal is a process that is to end with an error before it serves anybody. It is ended
// if it serves, which would be forever.
type refusal struct {
	cmd   *exec.Cmd
	out   bytes.Buffer // read it after ended
	ended chan struct{}
	err   error // of Wait, likewise
}

func beginRefusal(t *testing.T, cmd *exec.Cmd) *refusal {
	t.Helper()
	r := &refusal{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r, r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.ended)
		r.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-r.ended
	})
	return r
}

// Write takes what the process prints.
func (r *refusal) Write(p []byte) (int, error) {
	r.out.Write(p)
	if listenLine.Match(r.out.Bytes()) {
		r.cmd.Process.Kill()
	}
	return len(p), nil
}

// says waits for the end of the process, of which the last line is to hold each of want, and
// returns all that it printed.
func (r *refusal) says(t *testing.T, want []string) string {
	t.Helper()
	<-r.ended
	if r.err == nil || r.cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("%v, want status 1\n%s", r.err, r.out.String())
	}
	lines := strings.Split(strings.TrimSpace(r.out.String()), "\n")
	last := lines[len(lines)-1]
	for _, want := range append(want, "quire: ") {
		if !strings.Contains(last, want) {
			t.Errorf("the last line lacks %q: %s", want, last)
		}
	}
	return r.out.String()
}

// A node whose metadata is in an etcd of its own process, over TLS with a
// client certificate, a user and a password, keeps topics and committed offsets
// over kill -9, and refuses what would tear records and metadata apart.
func TestEtcdCluster(t *testing.T) {
	a := newAuthority(t)
	a.issue("member", nil)
	a.issue("node", func(c *x509.Certificate) { c.Subject.CommonName = "" }) // else etcd takes it for a user
	stranger := newAuthority(t)
	endpoint, _ := startEtcd(t, a, t.TempDir())
	requireUser(t, a, endpoint)

	dir := t.TempDir()
	etcdArgs := func(dir string, more ...string) []string {
		args := serveArgs(dir)
		for _, o := range append([]string{
			"etcd.endpoints=" + endpoint, "etcd.tls.ca.file=" + a.path("ca.crt"), "etcd.tls.cert.file=" + a.path("node.crt"),
			"etcd.tls.key.file=" + a.path("node.key"), "etcd.username=quire", "etcd.password=" + etcdPassword,
		}, more...) {
			args = append(args, "--override", o)
		}
		return args
	}
	s := start(t, etcdArgs(dir)...)
	s.tool("one\ntwo\n", "produce", "greetings")
	commitOffset(t, s, "g", "greetings", 2)
	s.signal(os.Kill)
	s.wait()
	if _, err := os.Stat(filepath.Join(dir, etcdDir)); err == nil {
		t.Error("there is an etcd in the data folder")
	}

	s = start(t, etcdArgs(dir)...)
	if got := committedOffset(t, s, "g", "greetings"); got != 2 {
		t.Errorf("offset %d is committed after a kill, want 2", got)
	}
	s.stop()

	with := t.TempDir() // its metadata is inside
	start(t, serveArgs(with)...).stop()
	lost := t.TempDir() // its metadata is gone
	if err := os.CopyFS(filepath.Join(lost, ledgersDir), os.DirFS(filepath.Join(dir, ledgersDir))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lost, formatFile), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh, _ := startEtcd(t, a, t.TempDir())
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"wrong password":      {etcdArgs(t.TempDir(), "etcd.password=x"), []string{endpoint, "etcd.username"}},
		"unknown authority":   {etcdArgs(t.TempDir(), "etcd.tls.ca.file="+stranger.path("ca.crt")), []string{endpoint, "etcd.tls.*"}},
		"foreign certificate": {etcdArgs(t.TempDir(), "etcd.tls.cert.file="+stranger.path("ca.crt"), "etcd.tls.key.file="+stranger.path("ca.key")), []string{endpoint, "etcd.tls.*"}},
		"no authority":        {etcdArgs(t.TempDir(), "etcd.tls.ca.file="+a.path("none")), []string{a.path("none"), "cannot be read"}},
		"not an authority":    {etcdArgs(t.TempDir(), "etcd.tls.ca.file="+a.path("ca.key")), []string{a.path("ca.key"), "no PEM certificate"}},
		"no key":              {etcdArgs(t.TempDir(), "etcd.tls.key.file="+a.path("none")), []string{a.path("none")}},
		"other folder":        {etcdArgs(t.TempDir()), []string{endpoint, dir, "--data-dir"}},
		"other cluster":       {etcdArgs(lost, "etcd.endpoints="+fresh, "etcd.username=", "etcd.password="), []string{fresh, lost, "knows nothing"}},
		"no endpoints":        {serveArgs(dir), []string{dir, "set etcd.endpoints"}},
		"metadata inside":     {etcdArgs(with), []string{with, "remove etcd.endpoints"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some wait for etcd until they give up
			out := refuses(t, c.args, c.want)
			if strings.Contains(out, etcdPassword) {
				t.Errorf("the password is in the output:\n%s", out)
			}
		})
	}
}

func adminOf(t *testing.T, s *instance) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

func commitOffset(t *testing.T, s *instance, group, topic string, offset int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: topic, At: offset, LeaderEpoch: -1})
	if err := adminOf(t, s).CommitAllOffsets(ctx, group, o); err != nil {
		t.Fatal(err)
	}
}

// committedOffset is the committed offset of partition 0, -1 if there is none.
func committedOffset(t *testing.T, s *instance, group, topic string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	offsets, err := adminOf(t, s).FetchOffsets(ctx, group)
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := offsets.Lookup(topic, 0); ok {
		return o.At
	}
	return -1
}

func TestEtcdKeysRefused(t *testing.T) {
	for _, c := range []struct {
		set  []string
		want string
	}{
		{[]string{"etcd.endpoints=127.0.0.1:2379"}, "http://host:port"},
		{[]string{"etcd.endpoints=http://127.0.0.1"}, "http://host:port"},
		{[]string{"etcd.endpoints=unix:///x:1"}, "http://host:port"},
		{[]string{"etcd.endpoints=http://u:p@127.0.0.1:2379"}, "http://host:port"},
		{[]string{"etcd.endpoints=http://127.0.0.1:2379/x"}, "http://host:port"},
		{[]string{"etcd.endpoints=http://a:1,https://b:1"}, "all http or all https"},
		{[]string{"etcd.username=u", "etcd.password=p"}, "etcd.endpoints is not"},
		{[]string{"etcd.endpoints=http://a:1", "etcd.username=u"}, "etcd.password is not"},
		{[]string{"etcd.endpoints=http://a:1", "etcd.password=u"}, "etcd.username is not"},
		{[]string{"etcd.endpoints=http://a:1", "etcd.tls.ca.file=f"}, "not https"},
		{[]string{"etcd.endpoints=https://a:1", "etcd.tls.key.file=f"}, "etcd.tls.cert.file is not"},
		{[]string{"etcd.endpoints=https://a:1", "etcd.tls.cert.file=f"}, "etcd.tls.key.file is not"},
		{[]string{"etcd.endpoints=http://a:1/,http://b:1"}, ""},
		{[]string{"etcd.endpoints=https://[::1]:1", "etcd.tls.server.name=etcd"}, ""},
	} {
		var overrides []override
		for _, kv := range c.set {
			k, v, _ := strings.Cut(kv, "=")
			overrides = append(overrides, override{k, v, "--override"})
		}
		_, err := loadConfig("", nil, overrides)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.set, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want an error with %q", c.set, err, c.want)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c, err := loadConfig("", []string{"QUIRE_ETCD_PASSWORD=" + etcdPassword}, []override{
		{"etcd.endpoints", "http://a:1", "--override"}, {"etcd.username", "quire", "--override"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, effective := range []bool{false, true} {
		var out bytes.Buffer
		if err := c.print(&out, effective); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), etcdPassword) || !strings.Contains(out.String(), "etcd.password") {
			t.Errorf("effective %v:\n%s", effective, out.String())
		}
	}
}

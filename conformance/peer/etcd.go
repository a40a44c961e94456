package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An Etcd is a cluster of etcd servers on fixed loopback ports, each a process
// of its own: what Quire keeps its metadata in when that is not inside it. Not
// safe for concurrent use.
type Etcd struct {
	Members []*EtcdMember
}

// An EtcdMember is one server of a cluster. It comes back on its ports and its
// folder. Process may be called while another goroutine starts it again.
type EtcdMember struct {
	bin, dir, name string
	client, peer   string // URLs
	cluster        string
	flags          []string
	host           *Host
	proc           atomic.Pointer[Process]
}

// NewEtcd returns a cluster that has not started. It builds the server from the
// module in this suite's folder etcd unless that is done already. flags are more
// flags of each member.
func NewEtcd(dir string, members int, flags ...string) (*Etcd, error) {
	return NewEtcdOn(dir, make([]*Host, members), flags...)
}

// NewEtcdOn is NewEtcd with a member on each of the hosts.
func NewEtcdOn(dir string, hosts []*Host, flags ...string) (*Etcd, error) {
	members := len(hosts)
	bin, err := buildEtcd()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2 * members)
	if err != nil {
		return nil, err
	}
	e := &Etcd{}
	var cluster []string
	for i := range members {
		m := &EtcdMember{
			bin: bin, name: fmt.Sprintf("etcd-%d", i),
			client: "http://" + hosts[i].address(ports[2*i]),
			peer:   "http://" + hosts[i].address(ports[2*i+1]),
			flags:  flags,
			host:   hosts[i],
		}
		m.dir = filepath.Join(dir, m.name)
		cluster = append(cluster, m.name+"="+m.peer)
		e.Members = append(e.Members, m)
	}
	for _, m := range e.Members {
		m.cluster = strings.Join(cluster, ",")
	}
	return e, nil
}

// Endpoints are the members' client URLs, as etcd.endpoints takes them.
func (e *Etcd) Endpoints() string {
	var urls []string
	for _, m := range e.Members {
		urls = append(urls, m.client)
	}
	return strings.Join(urls, ",")
}

// Start runs all members and returns when they serve.
func (e *Etcd) Start(ctx context.Context) error {
	for _, m := range e.Members {
		if err := m.Exec(); err != nil {
			return err
		}
	}
	for _, m := range e.Members {
		if err := m.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Kill ends all members with SIGKILL.
func (e *Etcd) Kill() {
	for _, m := range e.Members {
		if proc := m.proc.Load(); proc != nil {
			proc.Kill()
		}
	}
}

// Name tells the member from others.
func (m *EtcdMember) Name() string { return m.name }

// Process is the running (or last) process.
func (m *EtcdMember) Process() *Process { return m.proc.Load() }

// Exec runs the member without waiting for it.
func (m *EtcdMember) Exec() error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return err
	}
	args := append([]string{"--name", m.name, "--data-dir", filepath.Join(m.dir, "data"),
		"--listen-client-urls", m.client, "--advertise-client-urls", m.client,
		"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", m.cluster, "--log-level", "warn"}, m.flags...)
	cmd := exec.Command(m.bin, args...)
	cmd.Dir = m.dir
	proc, err := startProcess(m.host, cmd, filepath.Join(m.dir, "etcd.log"), nil)
	if err != nil {
		return err
	}
	m.proc.Store(proc)
	return nil
}

// WaitReady returns when the member says that it is healthy: it has a leader,
// and a change went through.
func (m *EtcdMember) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	proc := m.proc.Load()
	for {
		err := m.healthy(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-proc.Exited():
			return fmt.Errorf("%s ended while starting: %v\n%s", m.name, proc.err, proc.LogTail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; last answer: %w\n%s", m.name, context.Cause(ctx), err, proc.LogTail(20))
		case <-tick.C:
		}
	}
}

func (m *EtcdMember) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.client+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Health, Reason string
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Health != "true" {
		return errors.New("not healthy: " + answer.Reason)
	}
	return nil
}

// Pause stops the member's process where it is; its sockets stay open. Resume
// lets it go on.
func (m *EtcdMember) Pause() error { return m.proc.Load().Signal(syscall.SIGSTOP) }

// Resume ends what Pause began.
func (m *EtcdMember) Resume() error { return m.proc.Load().Signal(syscall.SIGCONT) }

// etcdPackage is the server's main package; the module in the folder etcd pins
// its version to the one that Quire embeds.
const etcdPackage = "go.etcd.io/etcd/server/v3"

var buildEtcd = sync.OnceValues(func() (string, error) {
	return goBuild("etcd", "etcd", etcdPackage)
})

package peer

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A HAProxy is one process of HAProxy in TCP mode, with one address for each of
// its frontends whatever server is behind. Not safe for concurrent use.
type HAProxy struct {
	bin, dir string
	host     *Host
	fronts   []Front
	addrs    []string
	text     string // of a whole configuration; "": one is made of fronts
	proc     *Process
}

// A Front is an address of HAProxy's and the servers behind it.
type Front struct {
	Name    string
	Servers []string // host:port each
	Check   []string // the same place each: where GET /readyz says whether the server is to be used
}

// NewHAProxy returns one that has not started.
func NewHAProxy(ctx context.Context, dir string, host *Host) (*HAProxy, error) {
	bin, err := findSystemTool("haproxy")
	if err != nil {
		if bin, err = Debian(ctx, "haproxy", "haproxy"); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &HAProxy{bin: bin, dir: dir, host: host}, nil
}

// Listen takes a free address for a front whose servers Serve names later.
func (h *HAProxy) Listen() (addr string, err error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	h.addrs = append(h.addrs, h.host.address(ports[0]))
	return h.addrs[len(h.addrs)-1], nil
}

// Serve sets what is behind the addresses, in the order of Listen.
func (h *HAProxy) Serve(fronts ...Front) { h.fronts = fronts }

// Use has it run a configuration as it is, one of whose frontends is at addr. It
// stands in the place of Listen and Serve.
func (h *HAProxy) Use(text, addr string) { h.text, h.addrs = text, []string{addr} }

// Check is HAProxy's own opinion of the configuration.
func (h *HAProxy) Check(ctx context.Context) error {
	config, err := h.write()
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, h.bin, "-c", "-f", config).CombinedOutput(); err != nil {
		return fmt.Errorf("haproxy -c: %w\n%s", err, lastLines(out, 10))
	}
	return nil
}

func (h *HAProxy) write() (path string, err error) {
	path = filepath.Join(h.dir, "haproxy.cfg")
	return path, os.WriteFile(path, []byte(h.config()), 0o644)
}

func (h *HAProxy) config() string {
	if h.text != "" {
		return h.text
	}
	var b strings.Builder
	b.WriteString(`global
    log stdout format raw local0 info
    maxconn 2000
    hard-stop-after 20s
defaults
    mode tcp
    log global
    option clitcpka
    option srvtcpka
    timeout connect 2s
    timeout client 15m
    timeout server 15m
    timeout client-fin 10s
    timeout server-fin 10s
    timeout check 1s
    retries 2
    option redispatch 1
`)
	for i, f := range h.fronts {
		fmt.Fprintf(&b, "frontend %s\n    bind %s\n    default_backend %[1]s-servers\n", f.Name, h.addrs[i])
		// nolinger: as in deploy/haproxy/one-address.cfg.
		fmt.Fprintf(&b, "backend %s-servers\n    balance leastconn\n    option nolinger\n    option httpchk GET /readyz\n", f.Name)
		b.WriteString("    default-server inter 500ms fastinter 250ms fall 2 rise 1 on-marked-down shutdown-sessions\n")
		for j, s := range f.Servers {
			_, port, _ := net.SplitHostPort(f.Check[j])
			fmt.Fprintf(&b, "    server quire-%d %s check port %s\n", j+1, s, port)
		}
	}
	return b.String()
}

// Start runs HAProxy and returns when it accepts connections.
func (h *HAProxy) Start(ctx context.Context) error { return h.start(ctx) }

func (h *HAProxy) start(ctx context.Context, flags ...string) error {
	config, err := h.write()
	if err != nil {
		return err
	}
	cmd := exec.Command(h.bin, append([]string{"-db", "-f", config}, flags...)...)
	cmd.Dir = h.dir
	proc, err := startProcess(h.host, cmd, filepath.Join(h.dir, "haproxy.log"), nil)
	if err != nil {
		return err
	}
	h.proc = proc
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !answers(ctx, h.addrs[0]) {
		select {
		case <-proc.Exited():
			return fmt.Errorf("HAProxy ended while starting: %v\n%s", proc.err, proc.LogTail(10))
		case <-ctx.Done():
			return fmt.Errorf("HAProxy does not answer: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}

// Reload starts another process, to which the one before hands its listeners; its
// connections live on in it until they end or 20 s are over.
func (h *HAProxy) Reload(ctx context.Context) error {
	return h.start(ctx, "-sf", fmt.Sprint(h.proc.PID()))
}

// Kill ends the newest process with SIGKILL.
func (h *HAProxy) Kill() error {
	if h.proc == nil {
		return nil
	}
	return h.proc.Kill()
}

// Process is the newest process.
func (h *HAProxy) Process() *Process { return h.proc }

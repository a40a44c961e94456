// Package peer runs the servers and tools that the conformance suite talks
// to: Quire's built binary, Apache Kafka's broker and command line tools, etcd, and
// Apache BookKeeper's bookies, each as a child process on the loopback interface.
package peer

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options say where a server keeps its data and how it differs from its
// defaults.
type Options struct {
	Dir       string   // everything of this server; created when absent
	Addr      string   // Quire's Kafka listener; a free port of 127.0.0.1 if ""
	Overrides []string // broker configs, key=value, Kafka's names
	Env       []string // added to the environment
	Host      *Host    // where Quire runs; nil: here
	// Named is the address by which the server names itself to clients, if that is
	// not Addr.
	Named string
	Bin   string // of Quire, instead of the one that is built
	// Listeners are more of them, NAME://host:port.
	Listeners []string

	// Intercept decides over the server's writes and syncs of files; nil
	// leaves it alone. It costs every such call some ten microseconds.
	Intercept Interceptor
}

// A Server is one broker on fixed loopback ports and a fixed folder. It can be
// started again after it ended and then comes back on both. Not safe for
// concurrent use, except Process and the constant methods.
type Server struct {
	name      string
	addr      string
	adminAddr string
	opts      Options
	prepare   func(context.Context) error // before every start
	command   func() *exec.Cmd
	proc      *Process
	bin       string // Quire's program
}

// Name is the product and, where it is pinned, its version.
func (s *Server) Name() string { return s.name }

// Addr is the Kafka listener, host:port.
func (s *Server) Addr() string { return s.addr }

// AdminAddr is the HTTP listener with metrics and profiles, "" when the
// server has none.
func (s *Server) AdminAddr() string { return s.adminAddr }

// DataDir is the folder to measure or damage.
func (s *Server) DataDir() string { return filepath.Join(s.opts.Dir, "data") }

// Process is the running (or last) process, nil before the first start.
func (s *Server) Process() *Process { return s.proc }

// Start runs the server and returns when it answers.
func (s *Server) Start(ctx context.Context) error {
	if err := s.Exec(ctx); err != nil {
		return err
	}
	if err := s.WaitReady(ctx); err != nil {
		s.proc.Kill()
		return err
	}
	return nil
}

// Exec runs the server without waiting for it. The server outlives ctx.
func (s *Server) Exec(ctx context.Context) error {
	if s.proc != nil {
		select {
		case <-s.proc.Exited():
		default:
			return fmt.Errorf("%s is still running as process %d", s.name, s.proc.PID())
		}
	}
	if err := os.MkdirAll(s.opts.Dir, 0o755); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("prepare %s: %w", s.name, err)
	}
	cmd := s.command()
	cmd.Dir = s.opts.Dir
	cmd.Env = append(os.Environ(), s.opts.Env...)
	proc, err := startProcess(s.opts.Host, cmd, s.logPath(), s.opts.Intercept)
	if err != nil {
		return err
	}
	s.proc = proc
	return nil
}

func (s *Server) logPath() string { return filepath.Join(s.opts.Dir, "server.log") }

// pollInterval is the time between two questions while waiting for a state of
// another process; it bounds how late an event is seen.
const pollInterval = 5 * time.Millisecond

// WaitReady returns when the server names itself in a Metadata answer. It
// fails when the process ends first, with the end of its log.
func (s *Server) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		if last = s.ask(ctx); last == nil {
			return nil
		}
		select {
		case <-s.proc.Exited():
			return fmt.Errorf("%s ended while starting: %v\n%s", s.name, s.proc.err, s.proc.LogTail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; last answer: %v\n%s", s.name, context.Cause(ctx), last, s.proc.LogTail(20))
		case <-tick.C:
		}
	}
}

func (s *Server) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := wire.Dial(ctx, s.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	resp, err := conn.Call(ctx, req, 4)
	if err != nil {
		return err
	}
	brokers := resp.(*kmsg.MetadataResponse).Brokers
	for _, b := range brokers {
		if fmt.Sprintf("%s:%d", b.Host, b.Port) == cmp.Or(s.opts.Named, s.addr) {
			return nil
		}
	}
	return fmt.Errorf("metadata names brokers %v, not %s", brokers, s.addr)
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *Server) Kill() error {
	if s.proc == nil {
		return nil
	}
	return s.proc.Kill()
}

// Stop ends the server with SIGTERM; see Process.Stop.
func (s *Server) Stop(ctx context.Context) error {
	if s.proc == nil {
		return nil
	}
	return s.proc.Stop(ctx)
}

// Ended tells of a process that has ended by itself, with the end of its log.
func (s *Server) Ended() error {
	select {
	case <-s.proc.Exited():
		return fmt.Errorf("%s ended: %v\n%s", s.name, s.proc.err, s.proc.LogTail(30))
	default:
		return nil
	}
}

// LogTail returns the last lines of the process's output.
func (s *Server) LogTail(lines int) string { return s.proc.LogTail(lines) }

// NodeVerb runs a verb of quire node on Quire's admin listener.
func (s *Server) NodeVerb(ctx context.Context, words ...string) error {
	args := slices.Concat([]string{"node"}, words, []string{"--admin", s.adminAddr})
	if out, err := exec.CommandContext(ctx, s.bin, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("quire node %s: %w: %s", strings.Join(words, " "), err, lastLines(out, 3))
	}
	return nil
}

// NewQuire returns a server that runs the binary under test.
func NewQuire(ctx context.Context, opts Options) (*Server, error) {
	bin := opts.Bin
	if bin == "" {
		var err error
		if bin, err = QuireBinary(ctx); err != nil {
			return nil, err
		}
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &Server{
		name:      "Quire",
		addr:      cmp.Or(opts.Addr, opts.Host.address(ports[0])),
		adminAddr: opts.Host.address(ports[1]),
		opts:      opts,
		bin:       bin,
		prepare:   func(context.Context) error { return nil },
	}
	s.command = func() *exec.Cmd {
		args := []string{"serve", "--data-dir", s.DataDir(), "--listeners", strings.Join(append([]string{"PLAINTEXT://" + s.addr}, opts.Listeners...), ","), "--admin-listen", s.adminAddr}
		for _, kv := range opts.Overrides {
			args = append(args, "--override", kv)
		}
		return exec.Command(bin, args...)
	}
	return s, nil
}

// jvmPerformance are the JVM options that Kafka's own start scripts set.
var jvmPerformance = []string{
	"-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
	"-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
}

// NewKafka returns one combined broker and controller of Apache Kafka 4.4.0
// with the values of the shipped server.properties and heap.
func NewKafka(ctx context.Context, opts Options) (*Server, error) {
	return newKafka(ctx, "Apache Kafka 4.4.0", KafkaServer, opts)
}

// NewKafka3 is NewKafka for 3.9.1, the last version that serves clients from
// before 2.1. Its broker comes with its tools.
func NewKafka3(ctx context.Context, opts Options) (*Server, error) {
	return newKafka(ctx, "Apache Kafka 3.9.1", Tools3, opts)
}

func newKafka(ctx context.Context, name string, set JarSet, opts Options) (*Server, error) {
	classPath, err := set.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	s := &Server{
		name: name,
		addr: fmt.Sprintf("127.0.0.1:%d", ports[0]),
		opts: opts,
	}
	properties := filepath.Join(opts.Dir, "server.properties")
	logging := filepath.Join(opts.Dir, "log4j2.xml")
	s.prepare = func(ctx context.Context) error {
		if err := os.WriteFile(properties, kafkaProperties(s.DataDir(), ports[0], ports[1], opts.Overrides), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(logging, []byte(kafkaLogging), 0o644); err != nil {
			return err
		}
		if exists(filepath.Join(s.DataDir(), "meta.properties")) {
			return nil
		}
		// Any 16 bytes in base64 do as a cluster id.
		format := exec.CommandContext(ctx, "java", "-cp", classPath, "-Dlog4j2.configurationFile="+logging,
			"kafka.tools.StorageTool", "format", "-t", "cXVpcmUtY29uZm9ybWFuYw", "-c", properties)
		if out, err := format.CombinedOutput(); err != nil {
			return fmt.Errorf("kafka-storage format: %w\n%s", err, lastLines(out, 10))
		}
		return nil
	}
	s.command = func() *exec.Cmd {
		args := append([]string{"-Xmx1G", "-Xms1G"}, jvmPerformance...)
		args = append(args, "-Dlog4j2.configurationFile="+logging, "-cp", classPath, "kafka.Kafka", properties)
		return exec.Command("java", args...)
	}
	return s, nil
}

func kafkaProperties(data string, port, controllerPort int, overrides []string) []byte {
	lines := []string{
		"process.roles=broker,controller",
		"node.id=1",
		fmt.Sprintf("controller.quorum.voters=1@127.0.0.1:%d", controllerPort),
		fmt.Sprintf("listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", port, controllerPort),
		fmt.Sprintf("advertised.listeners=PLAINTEXT://127.0.0.1:%d", port),
		"inter.broker.listener.name=PLAINTEXT",
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"num.network.threads=3",
		"num.io.threads=8",
		"socket.send.buffer.bytes=102400",
		"socket.receive.buffer.bytes=102400",
		"socket.request.max.bytes=104857600",
		"log.dirs=" + data,
		"num.partitions=1",
		"num.recovery.threads.per.data.dir=1",
		"offsets.topic.replication.factor=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"log.retention.hours=168",
		"log.segment.bytes=1073741824",
		"log.retention.check.interval.ms=300000",
	}
	return []byte(strings.Join(append(lines, overrides...), "\n") + "\n")
}

// kafkaLogging logs at the level the shipped configuration has, to standard
// output.
const kafkaLogging = `<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
`

// A Target is what clients are run against: one server, or several that look like
// one.
type Target interface {
	Name() string
	Addr() string
	Start(ctx context.Context) error
	Stop(ctx context.Context) error // as an operator does
	Kill() error
	Ended() error // nil while all of it runs
	LogTail(lines int) string
}

// TargetEnv names what the tests run against: quire, which is the default; cluster,
// foreign: see NewCluster and NewForeign; kafka, kafka3 for 3.9.1: Apache Kafka,
// which shows that the tests themselves expect what Kafka does.
const TargetEnv = "QUIRE_CONFORMANCE_TARGET"

// NewTarget returns what TargetEnv names.
func NewTarget(ctx context.Context, opts Options) (Target, error) {
	switch os.Getenv(TargetEnv) {
	case "cluster":
		return NewCluster(ctx, opts)
	case "foreign":
		return NewForeign(ctx, opts)
	default:
		return NewServer(ctx, opts)
	}
}

// NewServer is NewTarget for who wants one server.
func NewServer(ctx context.Context, opts Options) (*Server, error) {
	switch target := os.Getenv(TargetEnv); target {
	case "", "quire":
		return NewQuire(ctx, opts)
	case "kafka":
		return NewKafka(ctx, opts)
	case "kafka3":
		return NewKafka3(ctx, opts)
	default:
		return nil, fmt.Errorf("%s=%s: want quire, kafka or kafka3", TargetEnv, target)
	}
}

// OnBookies returns the overrides that make Quire keep its metadata in the
// cluster's etcd and its ledgers on its bookies, with an ensemble size, a write
// quorum and an ack quorum.
func OnBookies(c *BookKeeper, quorums [3]int) []string {
	return []string{
		"etcd.endpoints=" + c.Etcd.Endpoints(),
		"storage.tier=bookkeeper",
		fmt.Sprintf("bookkeeper.ensemble=%d", quorums[0]),
		fmt.Sprintf("bookkeeper.write.quorum=%d", quorums[1]),
		fmt.Sprintf("bookkeeper.ack.quorum=%d", quorums[2]),
	}
}

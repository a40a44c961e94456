package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A JavaServer is a bookie or the AutoRecovery daemon of a cluster, a process
// that comes back on its port and its folder. Safe for concurrent use: a
// Supervisor may start it again while others look at it.
type JavaServer struct {
	ID      string // of a bookie: host:port; of AutoRecovery: what names it as the auditor
	dir     string
	ready   string // its log says so when it serves
	command func(flags ...string) *exec.Cmd
	host    *Host
	decide  Interceptor

	mu     sync.Mutex
	proc   *Process
	wanted bool // it should run: a supervisor brings it back
	from   int64
}

// Dir is the folder of its configuration, log and data.
func (s *JavaServer) Dir() string { return s.dir }

// Process is the running (or last) process, nil before the first start.
func (s *JavaServer) Process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

func (s *JavaServer) logPath() string { return filepath.Join(s.dir, "server.log") }

// Exec runs the server without waiting for it.
func (s *JavaServer) Exec() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && !s.proc.ended() {
		return fmt.Errorf("%s is still running as process %d", s.ID, s.proc.PID())
	}
	return s.exec()
}

// StartReadOnly is Start for a bookie that is to take no writes.
func (s *JavaServer) StartReadOnly(ctx context.Context) error {
	s.mu.Lock()
	err := s.exec("--readOnly")
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.WaitReady(ctx)
}

// exec needs mu.
func (s *JavaServer) exec(flags ...string) error {
	s.from = 0
	if info, err := os.Stat(s.logPath()); err == nil {
		s.from = info.Size()
	}
	cmd := s.command(flags...)
	cmd.Dir = s.dir
	proc, err := startProcess(s.host, cmd, s.logPath(), s.decide)
	if err != nil {
		return err
	}
	s.proc, s.wanted = proc, true
	return nil
}

// Start runs the server and returns when it serves.
func (s *JavaServer) Start(ctx context.Context) error {
	if err := s.Exec(); err != nil {
		return err
	}
	return s.WaitReady(ctx)
}

// WaitReady returns when the process that was started last says in its log that
// it serves. The port alone says less: a bookie binds it a second before.
func (s *JavaServer) WaitReady(ctx context.Context) error {
	s.mu.Lock()
	proc, from := s.proc, s.from
	s.mu.Unlock()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if serves, err := s.serves(from); err != nil || serves {
			return err
		}
		select {
		case <-proc.Exited():
			return fmt.Errorf("%s ended while starting: %w\n%s", s.ID, errors.Join(proc.err), proc.LogTail(20))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", s.ID, context.Cause(ctx), proc.LogTail(20))
		case <-tick.C:
		}
	}
}

// Serves says whether the process that was started last says in its log that it serves.
func (s *JavaServer) Serves() (bool, error) {
	s.mu.Lock()
	from := s.from
	s.mu.Unlock()
	return s.serves(from)
}

func (s *JavaServer) serves(from int64) (bool, error) {
	log, err := readFrom(s.logPath(), from)
	return strings.Contains(log, s.ready), err
}

func readFrom(path string, offset int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	b := make([]byte, max(0, info.Size()-offset))
	n, err := f.ReadAt(b, offset)
	if n == len(b) {
		err = nil
	}
	return string(b[:n]), err
}

// Kill ends the server with SIGKILL and waits until it is gone; it stays away.
func (s *JavaServer) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = false
	if s.proc == nil {
		return nil
	}
	return s.proc.Kill()
}

// Stop ends the server with SIGTERM; it stays away.
func (s *JavaServer) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = false
	if s.proc == nil {
		return nil
	}
	return s.proc.Stop(ctx)
}

// Pause stops the process where it is; its sockets stay open. Resume lets it go
// on.
func (s *JavaServer) Pause() error { return s.Process().Signal(syscall.SIGSTOP) }

// Resume ends what Pause began.
func (s *JavaServer) Resume() error { return s.Process().Signal(syscall.SIGCONT) }

// revive starts a process that ended by itself, and with kill one that runs as
// well. It says whether it did.
func (s *JavaServer) revive(kill bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted || s.proc == nil {
		return false, nil
	}
	if !s.proc.ended() {
		if !kill {
			return false, nil
		}
		if err := s.proc.Kill(); err != nil {
			return false, err
		}
	}
	return true, s.exec()
}

func (p *Process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

const (
	bookieMain       = "org.apache.bookkeeper.server.Main"
	autoRecoveryMain = "org.apache.bookkeeper.replication.AutoRecoveryMain"
	shellMain        = "org.apache.bookkeeper.bookie.BookieShell"
)

// bookieJVM are the options of every JVM that loads BookKeeper: what Netty and
// the storage open by reflection, and Pulsar's metadata drivers.
var bookieJVM = []string{
	"-Dio.netty.tryReflectionSetAccessible=true",
	"--add-opens=java.base/java.io=ALL-UNNAMED", "--add-opens=java.base/java.util.zip=ALL-UNNAMED",
	"--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
	"-Djava.net.preferIPv4Stack=true",
	"-Dbookkeeper.metadata.bookie.drivers=org.apache.pulsar.metadata.bookkeeper.PulsarMetadataBookieDriver",
	"-Dbookkeeper.metadata.client.drivers=org.apache.pulsar.metadata.bookkeeper.PulsarMetadataClientDriver",
}

// smallJVM keeps a server at some 150 MB of resident memory.
var smallJVM = []string{
	"-Xms16m", "-Xmx64m", "-XX:MaxDirectMemorySize=64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
	"-Dio.netty.allocator.numDirectArenas=1", "-Dio.netty.allocator.numHeapArenas=1", "-Dio.netty.recycler.maxCapacityPerThread=0",
}

// commonConfig are lines that bookies and AutoRecovery share. Sessions are short
// so that a death is seen in seconds; NettyMaxFrameBytes is Pulsar's.
func (c *BookKeeper) commonConfig(host *Host, port int) []string {
	return []string{
		"metadataServiceUri=metadata-store:etcd:" + strings.ReplaceAll(c.Etcd.Endpoints(), ",", ";"),
		fmt.Sprintf("bookiePort=%d", port),
		"advertisedAddress=" + host.IP(),
		"allowLoopback=true",
		"zkTimeout=5000",
		"useV2WireProtocol=true",
		"httpServerEnabled=false",
		"enableStatistics=false",
		fmt.Sprintf("nettyMaxFrameSizeBytes=%d", NettyMaxFrameBytes),
	}
}

// NettyMaxFrameBytes is the frame limit of the bookies, as Pulsar sets it.
const NettyMaxFrameBytes = 5253120

func (c *BookKeeper) newBookie(number, port int, host *Host) (*JavaServer, error) {
	dir := filepath.Join(c.opts.Dir, fmt.Sprintf("bookie-%d", number))
	config := slices.Concat(c.opts.Overrides, c.commonConfig(host, port), []string{ // the first of two lines with one key counts
		"listeningInterface=" + host.Interface(),
		"journalDirectories=" + filepath.Join(dir, "journal"),
		"ledgerDirectories=" + filepath.Join(dir, "ledgers"),
		"indexDirectories=" + filepath.Join(dir, "index"),
		"autoRecoveryDaemonEnabled=false",
		"ledgerStorageClass=org.apache.bookkeeper.bookie.InterleavedLedgerStorage",
		"journalMaxGroupWaitMSec=1",
		"journalPreAllocSizeMB=4",
		"journalMaxSizeMB=64",
		"logSizeLimit=67108864",
		"openFileLimit=200",
		"pageLimit=1024",
		"skipListSizeLimit=8388608",
		"numAddWorkerThreads=1",
		"numReadWorkerThreads=2",
		"numHighPriorityWorkerThreads=1",
		"gcWaitTime=1000",
		"minorCompactionInterval=0",
		"majorCompactionInterval=0",
		"diskUsageThreshold=0.99",
		"diskUsageWarnThreshold=0.98",
		"minUsableSizeForIndexFileCreation=1048576",
		"minUsableSizeForEntryLogCreation=1048576",
		"minUsableSizeForHighPriorityWrites=1048576",
	})
	s, err := c.newServer(dir, host.address(port), "Started component bookie-server", bookieMain, config)
	if err == nil {
		s.host = host
		if c.opts.Intercept != nil {
			s.decide = c.opts.Intercept(number - 1)
		}
	}
	return s, err
}

func (c *BookKeeper) newAutoRecovery(port int) (*JavaServer, error) {
	config := slices.Concat(c.opts.Recovery, c.commonConfig(nil, port), []string{
		"lostBookieRecoveryDelay=0",
		"openLedgerRereplicationGracePeriod=30000",
		"lockReleaseOfFailedLedgerGracePeriod=2000",
		"rwRereplicateBackoffMs=1000",
		"auditorPeriodicBookieCheckInterval=5",
		"auditorPeriodicCheckInterval=0",
	})
	return c.newServer(filepath.Join(c.opts.Dir, "autorecovery"), fmt.Sprintf("127.0.0.1:%d", port),
		"Started component autorecovery-server", autoRecoveryMain, config)
}

func (c *BookKeeper) newServer(dir, id, ready, main string, config []string) (*JavaServer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "server.conf")
	if err := os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	jvm := c.opts.JVM
	if len(jvm) == 0 {
		jvm = smallJVM
	}
	s := &JavaServer{ID: id, dir: dir, ready: ready}
	s.command = func(flags ...string) *exec.Cmd {
		args := slices.Concat(bookieJVM, jvm, []string{"-Dlog4j2.configurationFile=" + c.logging, "-cp", c.classPath, main, "--conf", file}, flags)
		return exec.Command("java", args...)
	}
	return s, nil
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The tests run quire as other people do, as a process of its own: the test
// binary started again with beQuire set. The other variables set up the process
// in ways that only it can do to itself.
const (
	beQuire     = "BE_QUIRE"
	beUser      = "BE_QUIRE_AS_NOBODY" // give up root's rights, if there are any
	beFileLimit = "BE_QUIRE_FILE_LIMIT_BYTES"
	beOpenFiles = "BE_QUIRE_OPEN_FILES" // how many
)

const nobody = 65534

// prepareProcess holds what only some systems can do to the process.
var prepareProcess []func()

func TestMain(m *testing.M) {
	if os.Getenv(beQuire) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(beUser) != "" && os.Getuid() == 0 {
		if err := syscall.Setuid(nobody); err != nil {
			panic(err)
		}
	}
	if v := os.Getenv(beFileLimit); v != "" {
		var limit syscall.Rlimit
		if _, err := fmt.Sscan(v, &limit.Cur); err != nil {
			panic(err)
		}
		limit.Max = limit.Cur
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			panic(err)
		}
	}
	if v := os.Getenv(beOpenFiles); v != "" {
		var limit syscall.Rlimit
		if _, err := fmt.Sscan(v, &limit.Cur); err != nil {
			panic(err)
		}
		limit.Max = limit.Cur
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			panic(err)
		}
	}
	for _, prepare := range prepareProcess {
		prepare()
	}
	main()
}

// command is a process that runs quire with args.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), beQuire+"=1")
	return cmd
}

// instance is a running quire serve.
type instance struct {
	t         *testing.T
	cmd       *exec.Cmd
	address   string            // of the first listener
	listeners map[string]string // addresses, by name
	admin     string
	stderr    bytes.Buffer // read it after wait
	done      chan struct{}
	err       error // of Wait; valid when done is closed
}

var (
	listenLine  = regexp.MustCompile(`serves Kafka clients at PLAINTEXT://(\S+)`)
	listenersOf = regexp.MustCompile(` ([A-Z]+)://(\S+)`)
	adminLine   = regexp.MustCompile(`profiles are at http://([^/]+)/`)
	tryLine     = regexp.MustCompile(`try: .*kcat -b (\S+) `)
)

// serveArgs serve dir on ports that the system chooses.
func serveArgs(dir string, more ...string) []string {
	return append([]string{"serve", "--data-dir", dir, "--listeners", "PLAINTEXT://127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, more...)
}

// start runs quire with args until it says that it serves.
func start(t *testing.T, args ...string) *instance {
	t.Helper()
	return startCommand(t, command(t, args...))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *instance {
	t.Helper()
	s := &instance{t: t, cmd: cmd, done: make(chan struct{})}
	s.cmd.Stderr = &s.stderr
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan struct{})
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if m := listenLine.FindStringSubmatch(lines.Text()); m != nil {
				s.address = m[1]
				s.listeners = map[string]string{}
				for _, l := range listenersOf.FindAllStringSubmatch(lines.Text(), -1) {
					s.listeners[l[1]] = l[2]
				}
			}
			if m := adminLine.FindStringSubmatch(lines.Text()); m != nil {
				s.admin = m[1]
			}
			if tryLine.MatchString(lines.Text()) {
				close(serving)
			}
		}
		s.err = s.cmd.Wait()
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.done
		if t.Failed() {
			t.Logf("quire %q said last:\n%s", cmd.Args[1:], s.lastSaid())
		}
	})
	select {
	case <-serving:
	case <-s.done:
		t.Fatalf("quire %q: %v\n%s", cmd.Args[1:], s.err, s.stderr.String())
	}
	return s
}

// lastSaid is the end of what it wrote to standard error, which a test that fails shows:
// what one process saw of another is nowhere else.
func (s *instance) lastSaid() string {
	const most = 8 << 10
	text := s.stderr.String()
	return text[max(0, len(text)-most):]
}

func (s *instance) signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// wait returns the exit status.
func (s *instance) wait() int {
	<-s.done
	return s.cmd.ProcessState.ExitCode()
}

// stop ends it by SIGTERM and expects a clean end.
func (s *instance) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if status := s.wait(); status != 0 {
		s.t.Fatalf("status %d after SIGTERM\n%s", status, s.stderr.String())
	}
}

// tool runs a verb of ours in this process against the instance.
func (s *instance) tool(stdin string, args ...string) string {
	s.t.Helper()
	status, out := s.tryTool(stdin, args...)
	if status != 0 {
		s.t.Fatalf("quire %q: status %d: %s", args, status, out)
	}
	return out
}

func (s *instance) tryTool(stdin string, args ...string) (int, string) {
	var out bytes.Buffer
	p := &process{ctx: context.Background(), stdin: strings.NewReader(stdin), stdout: &out, stderr: &out}
	status := run(p, append(args, "-b", s.address))
	return status, out.String()
}

func TestStartErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().String()

	inUse := t.TempDir()
	start(t, serveArgs(inUse)...)

	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, formatFile), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lost := t.TempDir()
	s := start(t, serveArgs(lost)...)
	s.tool("x\n", "produce", "t")
	s.stop()
	noMetadata, damaged, unmounted := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "data")
	for _, dir := range []string{noMetadata, damaged, unmounted} {
		if err := os.CopyFS(dir, os.DirFS(lost)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.Rename(filepath.Join(lost, ledgersDir), filepath.Join(t.TempDir(), "elsewhere")),
		os.RemoveAll(filepath.Join(noMetadata, etcdDir)),
		os.RemoveAll(filepath.Join(unmounted, ledgersDir)),
		os.Mkdir(filepath.Join(unmounted, ledgersDir), 0o750),
		os.Truncate(filepath.Join(damaged, ledgersDir, "CHECKPOINT"), 0),
	); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "quire.yaml")
	if err := os.WriteFile(bad, []byte("data.dir: /x\nnum.partitons: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Readable by all, writable by root, whose rights the process gives up.
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o555); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(closed); dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	for name, c := range map[string]struct {
		args []string
		env  string
		want []string
	}{
		"port in use":       {args: []string{"serve", "--data-dir", t.TempDir(), "--listeners", "PLAINTEXT://" + port, "--admin-listen="}, want: []string{"PLAINTEXT://" + port, "address is in use", "--listeners"}},
		"admin port in use": {args: []string{"serve", "--data-dir", t.TempDir(), "--listeners", "PLAINTEXT://127.0.0.1:0", "--admin-listen", port}, want: []string{"admin listener " + port, "address is in use", "--admin-listen"}},
		"no such address":   {args: []string{"serve", "--data-dir", t.TempDir(), "--listeners", "PLAINTEXT://192.0.2.1:0", "--admin-listen="}, want: []string{"PLAINTEXT://192.0.2.1:0", "no such address", "--listeners"}},
		"folder locked":     {args: serveArgs(inUse), want: []string{inUse, "in use by another quire (process ", "--data-dir"}},
		"newer format":      {args: serveArgs(newer), want: []string{newer, "format 99", "newer quire"}},
		"not writable":      {args: serveArgs(filepath.Join(closed, "data")), env: beUser + "=1", want: []string{closed, "permission denied", "give this user access"}},
		"lost ledgers":      {args: serveArgs(lost), want: []string{lost, "nothing is in its ledgers", "1 ledgers", "--data-dir"}},
		"unmounted ledgers": {args: serveArgs(unmounted), want: []string{unmounted, "nothing is in its ledgers", "1 ledgers", "--data-dir"}},
		"lost metadata":     {args: serveArgs(noMetadata), want: []string{noMetadata, "no folder etcd", "--data-dir"}},
		"damaged folder":    {args: serveArgs(damaged), want: []string{filepath.Join(damaged, ledgersDir) + ": CHECKPOINT holds no valid record", "backup", "--data-dir"}},
		"foreign folder":    {args: serveArgs(foreign), want: []string{foreign, "holds notes but no quire data", "--data-dir"}},
		"bad config":        {args: serveArgs(t.TempDir(), "--config", bad), want: []string{bad + ":2:", "num.partitons", "did you mean num.partitions?"}},
		"absent config":     {args: serveArgs(t.TempDir(), "--config", bad+"x"), want: []string{bad + "x cannot be read", "no such file"}},
		"mistyped flag":     {args: []string{"serve", "--data-dri", "x"}, want: []string{"--data-dri", "--data-dir"}},
		"full disk":         {args: serveArgs(t.TempDir()), env: beFileLimit + "=0", want: []string{"data folder", "free some space", "--data-dir"}},
		"full disk later":   {args: serveArgs(t.TempDir()), env: beFileLimit + "=4096", want: []string{"data folder", "free some space", "--data-dir"}},
	} {
		cmd := command(t, c.args...)
		if c.env != "" {
			cmd.Env = append(cmd.Env, c.env)
		}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run()
		// Log lines may come before the error, which stands alone and last.
		text := stderr.String()
		if status := cmd.ProcessState.ExitCode(); status != 1 || stdout.Len() > 0 || strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "quire: ") {
			t.Errorf("%s: status %d, %q, %q; want status 1 and one line on standard error", name, status, stdout.String(), text)
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q does not say %q", name, text, want)
			}
		}
	}
	if files, err := os.ReadDir(foreign); err != nil || len(files) != 1 {
		t.Errorf("in the foreign folder is %v, %v: nothing may be left there", files, err)
	}
}

// TestDescriptorLimit: a connection costs a descriptor, and the soft limit of
// a shell is for those who use select.
func TestDescriptorLimit(t *testing.T) {
	s := start(t, serveArgs(t.TempDir())...)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.cmd.Process.Pid))
	if os.IsNotExist(err) {
		return // a system without it; Go raises the limit there alike
	}
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`Max open files\s+(\d+)\s+(\d+)`).FindStringSubmatch(string(limits))
	if m == nil || m[1] != m[2] {
		t.Errorf("limits are %q", m)
	}
}

// TestConnectionsLeaveDescriptors: clients that open connections without end do not
// take what the server opens its files with.
func TestConnectionsLeaveDescriptors(t *testing.T) {
	dir := t.TempDir()
	cmd := command(t, serveArgs(dir)...)
	cmd.Env = append(cmd.Env, beOpenFiles+"=200")
	s := startCommand(t, cmd)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address), kgo.AllowAutoTopicCreation(), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "first", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	for range 300 {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	// The last of them is one too many, and is told so.
	if _, err := idle[len(idle)-1].Read(make([]byte, 1)); err == nil {
		t.Error("a connection that asked nothing was answered")
	}
	for i := range 10 {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: fmt.Sprintf("topic-%d", i), Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	if text := s.stderr.String(); strings.Contains(text, "too many open files") {
		t.Error(text)
	}
	for limit, want := range map[int]shares{1 << 20: {1000, 512}, 1024: {512, 128}, 200: {100, 25}, 64: {16, 16}, 20: {1, 16}} {
		if got := (shares{connections: 1000, ledgers: 512}).of(limit); got != want {
			t.Errorf("of %d descriptors %+v, want %+v", limit, got, want)
		}
	}
}

func TestConsoleTools(t *testing.T) {
	dir := t.TempDir()
	s := start(t, serveArgs(dir)...)
	s.tool("", "topic", "create", "orders", "-p", "3", "-c", "retention.ms=3600000", "-c", "cleanup.policy=delete")
	if status, out := s.tryTool("", "topic", "create", "orders"); status != 1 || !strings.Contains(out, "topic orders: TOPIC_ALREADY_EXISTS: ") {
		t.Errorf("created twice: %d, %s", status, out)
	}
	if out := s.tool("", "topic", "list"); !regexp.MustCompile(`(?m)^orders +3 `).MatchString(out) {
		t.Errorf("list: %s", out)
	}
	s.tool("k1=one\nk2=two=2\nk1=\n", "produce", "orders", "-K", "=", "-H", "h=x", "-z", "zstd")
	s.tool("three\n", "produce", "orders", "-p", "2")
	if status, out := s.tryTool("no separator\n", "produce", "orders", "-K", "="); status != 1 || !strings.Contains(out, "line 1 has no") {
		t.Errorf("line without key: %d, %s", status, out)
	}
	got := strings.Split(strings.TrimSpace(s.tool("", "consume", "orders", "-e", "-f", `%k:%v:%h{%k=%v}\n`)), "\n")
	if len(got) != 4 || strings.Join(got, " ") == "" {
		t.Errorf("consumed %q", got)
	}
	for _, want := range []string{"k1:one:h=x", "k2:two=2:h=x", "k1::h=x", ":three:"} {
		if n := strings.Count("\n"+strings.Join(got, "\n")+"\n", "\n"+want+"\n"); n != 1 {
			t.Errorf("%q is there %d times in %q", want, n, got)
		}
	}

	// More than fits into one batch, in lines of all lengths up to the longest.
	long := strings.Repeat(strings.Repeat("y", 70_000)+"\n", 60)
	s.tool(long, "produce", "long")
	if got := s.tool("", "consume", "long", "-e"); got != long {
		t.Errorf("of 60 long lines %d bytes came back", len(got))
	}
	if status, out := s.tryTool(strings.Repeat("z", 1_100_000), "produce", "long"); status != 1 || !strings.Contains(out, "line 1 ") || !strings.Contains(out, "--max-bytes") {
		t.Errorf("line beyond the limit: %d, %s", status, out)
	}

	// Offsets of a partition, from both ends and by time.
	s.tool("a\nb\nc\nd\n", "produce", "letters", "-p", "0")
	for offset, want := range map[string]string{"earliest": "a b c d", "2": "c d", "-1": "d", "4": "", "@0": "a b c d", "@9999999999999": ""} {
		if got := strings.Join(strings.Fields(s.tool("", "consume", "letters", "-p", "0", "-e", "--offset="+offset)), " "); got != want {
			t.Errorf("--offset %s: %q, want %q", offset, got, want)
		}
	}
	if got := s.tool("", "consume", "letters", "-o", "1", "-n", "2"); got != "b\nc\n" {
		t.Errorf("--count 2: %q", got)
	}
	for args, want := range map[string]string{
		"consume letters -o 5":        "offset 5 is outside what it holds, 0 to 4",
		"consume letters -p 1":        "has no partition 1",
		"consume absent":              "topic absent: UNKNOWN_TOPIC_OR_PARTITION: ",
		"topic describe absent":       "topic absent: UNKNOWN_TOPIC_OR_PARTITION: ",
		"topic delete absent":         "topic absent: UNKNOWN_TOPIC_OR_PARTITION: ",
		"topic alter orders -p 2":     "topic orders: INVALID_PARTITIONS: ",
		"topic alter orders -c a=b":   "topic orders: INVALID_CONFIG: ",
		"topic create bad/name":       "topic bad/name: INVALID_TOPIC_EXCEPTION: ",
		"topic create x -c nope=true": "topic x: INVALID_CONFIG: ",
	} {
		if status, out := s.tryTool("", strings.Fields(args)...); status != 1 || !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("quire %s: %d, %q; want %q", args, status, out, want)
		}
	}

	s.tool("", "topic", "alter", "orders", "-p", "5", "-c", "max.message.bytes=2000", "--delete-config", "retention.ms")
	out := s.tool("", "topic", "describe", "orders")
	if !strings.Contains(out, "max.message.bytes=2000") || strings.Contains(out, "retention.ms") || !regexp.MustCompile(`(?m)^  4 +\d+ +-?\d+ +0 +0$`).MatchString(out) {
		t.Errorf("describe: %s", out)
	}
	s.tool("", "topic", "delete", "orders")
	if out := s.tool("", "topic", "list"); strings.Contains(out, "orders") {
		t.Errorf("deleted topic is listed: %s", out)
	}

	// All of it is there after a restart.
	s.stop()
	s = start(t, serveArgs(dir)...)
	if got := s.tool("", "consume", "letters", "-e"); got != "a\nb\nc\nd\n" {
		t.Errorf("after a restart: %q", got)
	}
	s.stop()
}

func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAdmin(t *testing.T) {
	s := start(t, serveArgs(t.TempDir())...)
	s.tool("x\n", "produce", "t")
	for path, want := range map[string]string{
		"/":                      "/metrics",
		"/livez":                 "event loops: ok",
		"/readyz":                "disk: ok",
		"/metrics":               "quire_disk_free_bytes ",
		"/debug/pprof/":          "goroutine",
		"/debug/pprof/goroutine": "",
		"/debug/pprof/cmdline":   "serve",
	} {
		if status, body := get(t, s.admin, path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %.200s", path, status, body)
		}
	}
	if status, _ := get(t, s.admin, "/absent"); status != 404 {
		t.Errorf("/absent: %d", status)
	}
	_, metrics := get(t, s.admin, "/metrics")
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "quire_kafka_requests_total", "quire_journal_fsync_seconds"} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
	s.stop()
}

// TestFullDisk: below the space that is kept produce is refused, in a way that
// clients try again, and all that reads goes on, readiness included.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	s := start(t, serveArgs(dir)...)
	s.tool("before\n", "produce", "t")
	s.stop()
	s = start(t, serveArgs(dir, "--override", "disk.min.free.bytes=9223372036854775807")...)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address), kgo.DefaultProduceTopic("t"), kgo.RecordRetries(1), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	err = client.ProduceSync(context.Background(), kgo.StringRecord("refused")).FirstErr()
	client.Close()
	var code *kerr.Error
	if !errors.As(err, &code) || !code.Retriable {
		t.Errorf("produce: %v, want an error that is retriable", err)
	}
	if got := s.tool("", "consume", "t", "-e"); got != "before\n" {
		t.Errorf("consumed %q", got)
	}
	if status, body := get(t, s.admin, "/readyz"); status != 200 || !strings.Contains(body, "disk: ok, but produce is refused: ") {
		t.Errorf("/readyz: %d, %s", status, body)
	}
	s.stop()
	if text := s.stderr.String(); !strings.Contains(text, "disk is nearly full") {
		t.Errorf("the log does not tell of the disk: %s", text)
	}
	s = start(t, serveArgs(dir)...)
	s.tool("after\n", "produce", "t")
	if got := s.tool("", "consume", "t", "-e"); got != "before\nafter\n" {
		t.Errorf("with room again: %q", got)
	}
}

func TestUnixListener(t *testing.T) {
	// The path of a socket is at most some 100 bytes long.
	dir, err := os.MkdirTemp("", "quire")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "kafka.sock")
	s := start(t, "serve", "--data-dir", t.TempDir(), "--admin-listen=", "--listeners", "PLAINTEXT://127.0.0.1:0,UNIX://"+socket)
	client, err := kgo.NewClient(
		kgo.SeedBrokers("unix:9092"),
		kgo.Dialer(func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}),
		kgo.AllowAutoTopicCreation(),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(context.Background(), &kgo.Record{Topic: "t", Value: []byte("through a socket")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := s.tool("", "consume", "t", "-e"); got != "through a socket\n" {
		t.Errorf("got %q", got)
	}
	s.stop()
}

// TestTermUnderLoad: whatever was acknowledged before, while and until SIGTERM
// ended the server is there after it, at its offset, once.
func TestTermUnderLoad(t *testing.T) {
	dir := t.TempDir()
	s := start(t, serveArgs(dir)...)
	s.tool("", "topic", "create", "load", "-p", "4")
	client, err := kgo.NewClient(
		kgo.SeedBrokers(s.address), kgo.DefaultProduceTopic("load"),
		kgo.ProducerLinger(0), kgo.MaxBufferedRecords(2000), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
	)
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		partition int32
		offset    int64
	}
	var mu sync.Mutex
	acknowledged := map[place]string{}
	enough := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	var producing sync.WaitGroup
	producing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			client.Produce(ctx, kgo.StringRecord(fmt.Sprintf("value %d", i)), func(r *kgo.Record, err error) {
				if err != nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				acknowledged[place{r.Partition, r.Offset}] = string(r.Value)
				if len(acknowledged) == 5000 {
					close(enough)
				}
			})
		}
	})
	<-enough
	s.stop()
	cancel()
	producing.Wait()
	client.Close()

	s = start(t, serveArgs(dir)...)
	lines := strings.Split(strings.TrimSpace(s.tool("", "consume", "load", "-e", "-f", `%p %o %v\n`)), "\n")
	stored := map[place]string{}
	values := map[string]bool{}
	for _, line := range lines {
		var at place
		var i int
		if _, err := fmt.Sscanf(line, "%d %d value %d", &at.partition, &at.offset, &i); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		value := fmt.Sprintf("value %d", i)
		if values[value] {
			t.Errorf("%q is stored twice", value)
		}
		stored[at], values[value] = value, true
	}
	if len(acknowledged) < 5000 {
		t.Fatalf("only %d records were acknowledged", len(acknowledged))
	}
	for at, value := range acknowledged {
		if stored[at] != value {
			t.Errorf("%+v holds %q, acknowledged was %q", at, stored[at], value)
		}
	}
	s.stop()
}

// TestSecondSignal: a server that stops is not ready any more, and who sends a
// second signal does not want to wait. The server has an answer for a client that
// does not read, which it would give ten seconds.
func TestSecondSignal(t *testing.T) {
	s := start(t, serveArgs(t.TempDir(), "--override", "shutdown.timeout.ms=600000")...)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address), kgo.DefaultProduceTopic("t"),
		kgo.AllowAutoTopicCreation(), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	value := bytes.Repeat([]byte("x"), 900_000)
	for range 16 {
		if err := client.ProduceSync(context.Background(), &kgo.Record{Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}

	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fetch := kmsg.NewFetchRequest()
	fetch.Version, fetch.MaxBytes = 4, 50_000_000
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes = 50_000_000
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.Partitions = "t", append(topic.Partitions, partition)
	fetch.Topics = append(fetch.Topics, topic)
	if _, err := conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, &fetch, 1)); err != nil {
		t.Fatal(err)
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(conn, size); err != nil {
		t.Fatal(err)
	}
	if n := binary.BigEndian.Uint32(size); n < 14_000_000 {
		t.Fatalf("the answer is only %d bytes long, too short to be stuck", n)
	}

	s.signal(syscall.SIGTERM)
	for {
		if status, body := get(t, s.admin, "/readyz"); status == 503 {
			if !strings.HasPrefix(body, "serving: stopping") {
				t.Errorf("/readyz says %q", body)
			}
			break
		}
	}
	s.signal(syscall.SIGINT) // two of a kind may be delivered as one
	if status := s.wait(); status != 130 {
		t.Errorf("status %d\n%s", status, s.stderr.String())
	}
}

// TestWhereDataLies: a folder that holds nothing that is missed is not said to hold data.
func TestWhereDataLies(t *testing.T) {
	for _, c := range []struct{ tier, folderID, want string }{
		{tierEmbedded, "", "data lies in /d"},
		{tierEmbedded, "id", "records lie in /d and metadata in etcd"},
		{tierBookKeeper, "", "records lie on bookies and metadata in /d"},
		{tierBookKeeper, "id", "records lie on bookies and metadata in etcd; the data folder is /d"},
	} {
		config, err := loadConfig("", nil, []override{{"storage.tier", c.tier, "--override"}, {"bookkeeper.metadata.endpoints", "http://127.0.0.1:2379", "--override"}})
		if err != nil {
			t.Fatal(err)
		}
		n := node{config: config, folder: &folder{dir: "/d"}, folderID: c.folderID}
		if got := n.whereDataLies(); got != c.want {
			t.Errorf("%s, folder %q: %q, want %q", c.tier, c.folderID, got, c.want)
		}
	}
}
